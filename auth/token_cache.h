// Principals of verified tokens, by the SHA-256 of the token: set-associative, so of fixed size, and a look-up
// compares four entries at most. Only tokens that were verified come in, so forged ones push nothing out. Without a
// lock of its own.
#pragma once

#include "auth/principal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TOKEN_HASH = 32 };

struct token_cache;

// Room for `entries` (rounded up to sets of four). NULL without memory.
struct token_cache *token_cache_new(unsigned entries);
void token_cache_free(struct token_cache *cache);

// An entry is found by callers of the key set's generation that it was verified with, from `not_before` until the
// principal's expire_time.
bool token_cache_get(struct token_cache *cache, const unsigned char hash[TOKEN_HASH], uint64_t generation, int64_t now,
        struct principal *ret_principal);
void token_cache_put(struct token_cache *cache, const unsigned char hash[TOKEN_HASH], uint64_t generation,
        int64_t not_before, const struct principal *principal);
