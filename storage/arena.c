#include "storage/arena.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_block {
        struct arena_block *next;
        size_t size;
        _Alignas(16) char data[];
};

enum { FIRST_BLOCK = 1024 - 64, LARGEST_BLOCK = 1 << 18 };

static void *allocate_for_protobuf(void *arena, size_t size) { return arena_alloc(arena, size); }
static void free_for_protobuf(void *, void *) {}

void arena_init(struct arena *arena, size_t cap) {
        *arena = (struct arena){
                .cap = cap,
                .allocator = {.alloc = allocate_for_protobuf, .free = free_for_protobuf, .allocator_data = arena},
        };
}

void arena_drop(struct arena *arena, _Bool wipe) {
        for (struct arena_block *block = arena->blocks, *next; block; block = next) {
                next = block->next;
                if (wipe)
                        OPENSSL_cleanse(block->data, block->size);
                free(block);
        }
        arena->blocks = NULL;
        arena->at = arena->end = NULL;
        arena->used = 0;
}

// A new block that holds at least `size`; blocks double, so that few are needed.
static struct arena_block *add_block(struct arena *arena, size_t size) {
        size_t wish = arena->blocks ? arena->blocks->size * 2 : FIRST_BLOCK;
        if (wish > LARGEST_BLOCK)
                wish = LARGEST_BLOCK;
        if (wish > arena->cap - arena->used)
                wish = arena->cap - arena->used;
        if (wish < size)
                wish = size;
        if (wish > arena->cap - arena->used)
                return NULL;
        struct arena_block *block = malloc(sizeof *block + wish);
        if (!block)
                return NULL;
        *block = (struct arena_block){.next = arena->blocks, .size = wish};
        arena->blocks = block;
        arena->used += wish;
        arena->at = block->data;
        arena->end = block->data + wish;
        return block;
}

void *arena_alloc(struct arena *arena, size_t size) {
        if (size > SIZE_MAX - 15)
                return NULL;
        size = (size + 15) & ~(size_t)15;
        if (size > (size_t)(arena->end - arena->at) && !add_block(arena, size))
                return NULL;
        char *at = arena->at;
        arena->at += size;
        return memset(at, 0, size);
}

char *arena_copy(struct arena *arena, const void *data, size_t size) {
        char *copy = size < SIZE_MAX ? arena_alloc(arena, size + 1) : NULL;
        if (copy && size)
                memcpy(copy, data, size);
        return copy;
}

char *arena_printf(struct arena *arena, const char *format, ...) {
        va_list args, again;
        va_start(args, format);
        va_copy(again, args);
        int size = vsnprintf(NULL, 0, format, args);
        va_end(args);
        char *text = size >= 0 ? arena_alloc(arena, (size_t)size + 1) : NULL;
        if (text)
                vsnprintf(text, (size_t)size + 1, format, again);
        va_end(again);
        return text;
}
