// Small helps with memory for a program that can do nothing better than stop when there is none.
#pragma once

#include <stdio.h>
#include <stdlib.h>

// What an allocation returned.
static inline void *must(void *memory) {
        if (!memory) {
                fputs("genie: out of memory\n", stderr);
                exit(1);
        }
        return memory;
}

// protobuf-c's structs have `char *` for strings that it never changes.
static inline char *unconst(const char *text) {
        union {
                const char *text;
                char *same;
        } same = {.text = text};
        return same.same;
}

static inline void free_text(char **text) { free(*text); }
#define AUTO_TEXT __attribute__((cleanup(free_text))) char *
