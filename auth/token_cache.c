#include "auth/token_cache.h"

#include <stdlib.h>
#include <string.h>

enum { WAYS = 4 };

struct entry {
        unsigned char hash[TOKEN_HASH];
        uint64_t generation; // of the key set; 0: empty
        uint64_t used;       // the cache's clock when it was last found
        int64_t not_before;
        struct principal principal;
};

struct token_cache {
        size_t set_count;
        uint64_t clock; // counts look-ups, so that the least recently used entry is known
        struct entry entries[];
};

struct token_cache *token_cache_new(unsigned entries) {
        size_t set_count = (entries + (size_t)WAYS - 1) / WAYS;
        struct token_cache *cache = calloc(1, sizeof *cache + set_count * WAYS * sizeof *cache->entries);
        if (cache)
                cache->set_count = set_count;
        return cache;
}

void token_cache_free(struct token_cache *cache) { free(cache); }

// The four entries that may hold a hash; NULL in a cache of no size.
static struct entry *set_of(struct token_cache *cache, const unsigned char hash[TOKEN_HASH]) {
        uint64_t number;
        memcpy(&number, hash, sizeof number);
        return cache->set_count ? cache->entries + number % cache->set_count * WAYS : NULL;
}

bool token_cache_get(struct token_cache *cache, const unsigned char hash[TOKEN_HASH], uint64_t generation, int64_t now,
        struct principal *ret_principal) {
        struct entry *set = set_of(cache, hash);
        for (size_t i = 0; set && i < WAYS; i++) {
                struct entry *entry = &set[i];
                if (entry->generation != generation || memcmp(entry->hash, hash, TOKEN_HASH) != 0)
                        continue;
                if (now < entry->not_before || now >= entry->principal.expire_time)
                        return false;
                entry->used = ++cache->clock;
                *ret_principal = entry->principal;
                return true;
        }
        return false;
}

// Where a token goes: its own entry if it has one, else the least useful. One of an older key set is of no use.
static struct entry *place_for(struct entry *set, const unsigned char hash[TOKEN_HASH], uint64_t generation) {
        struct entry *victim = set;
        for (size_t i = 0; i < WAYS; i++) {
                if (memcmp(set[i].hash, hash, TOKEN_HASH) == 0)
                        return &set[i];
                bool stale = set[i].generation != generation, victim_stale = victim->generation != generation;
                if (stale != victim_stale ? stale : set[i].used < victim->used)
                        victim = &set[i];
        }
        return victim;
}

void token_cache_put(struct token_cache *cache, const unsigned char hash[TOKEN_HASH], uint64_t generation,
        int64_t not_before, const struct principal *principal) {
        struct entry *set = set_of(cache, hash);
        if (!set)
                return;
        struct entry *entry = place_for(set, hash, generation);
        *entry = (struct entry){
                .generation = generation, .used = ++cache->clock, .not_before = not_before, .principal = *principal};
        memcpy(entry->hash, hash, TOKEN_HASH);
}
