// Small helps with strings, memory and randomness.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

static inline void drop_text(char **text) { free(*text); }

// protobuf-c's structs have `char *` for strings that it never changes.
static inline char *unconst(const char *text) { return (char *)(uintptr_t)text; }

// What an allocation returned. An agent without memory can do nothing better than end: its journal holds all that
// counts.
static inline void *must(void *memory) {
        if (!memory)
                abort();
        return memory;
}

static inline uint64_t random_number(void) {
        uint64_t number;
        if (getrandom(&number, sizeof number, 0) != sizeof number)
                abort();
        return number;
}

// From 0 to below `limit`; 0 where there is nothing below it.
static inline int64_t random_below(int64_t limit) {
        return limit <= 0 ? 0 : (int64_t)(random_number() % (uint64_t)limit);
}

enum { UUID_SIZE = 37 };

// A random UUID (RFC 9562, version 4).
static inline void random_uuid(char ret_text[static UUID_SIZE]) {
        uint64_t high = random_number(), low = random_number();
        snprintf(ret_text, UUID_SIZE, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(high >> 32),
                (unsigned)(high >> 16) & 0xffff, (unsigned)high & 0xfff, (unsigned)(low >> 48 & 0x3fff) | 0x8000,
                (unsigned long long)(low & 0xffffffffffff));
}
