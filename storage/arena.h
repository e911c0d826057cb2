// A bump allocator for what lives as long as one call: nothing is freed by itself, all of it at the end.
//
// Owned by one call and used by one thread at a time. The cap bounds what a hostile message can make the
// server allocate: past it arena_alloc returns NULL, and the call is refused. protobuf-c unpacks into it
// through arena_protobuf_allocator().
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdarg.h>
#include <stddef.h>

struct arena_block;

struct arena {
        struct arena_block *blocks;
        char *at, *end;
        size_t used, cap; // bytes handed out by blocks; the most there may be
        ProtobufCAllocator allocator;
};

// Makes an empty arena that never holds more than `cap` bytes.
void arena_init(struct arena *arena, size_t cap);

// Frees all. With `wipe`, overwrites the memory first: for arenas that have held secrets.
void arena_drop(struct arena *arena, _Bool wipe);

// Zeroed memory, aligned to 16; NULL past the cap.
void *arena_alloc(struct arena *arena, size_t size) __attribute__((malloc, alloc_size(2), warn_unused_result));

// A copy of `size` bytes with a NUL behind them.
char *arena_copy(struct arena *arena, const void *data, size_t size) __attribute__((warn_unused_result));

// printf into the arena.
char *arena_printf(struct arena *arena, const char *format, ...)
        __attribute__((format(printf, 2, 3), warn_unused_result));

// The allocator that protobuf-c takes; free does nothing.
static inline ProtobufCAllocator *arena_protobuf_allocator(struct arena *arena) { return &arena->allocator; }
