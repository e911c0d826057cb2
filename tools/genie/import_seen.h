// Which checks and resources an import has described: a bounded set of 64-bit hashes of their keys. When it is full
// it forgets all, and what comes again is described again, which costs bytes and changes nothing.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seen {
        uint64_t *slots; // 0: free
        size_t count;
};

void seen_init(struct seen *seen);
void seen_free(struct seen *seen);
void seen_clear(struct seen *seen);

// Adds a key of two parts; `kind` tells sorts of keys apart. True: it was not in the set.
bool seen_add(struct seen *seen, char kind, const char *first, const char *second);
