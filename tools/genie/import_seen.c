#include "tools/genie/import_seen.h"

#include "tools/genie/memory.h"

#include <openssl/sha.h>
#include <string.h>

enum { SLOTS = 1 << 20, FULL = SLOTS / 2 }; // 8 MiB, of which only what is touched is there

void seen_init(struct seen *seen) { *seen = (struct seen){.slots = must(calloc(SLOTS, sizeof *seen->slots))}; }

void seen_free(struct seen *seen) { free(seen->slots); }

void seen_clear(struct seen *seen) {
        if (seen->count > 0)
                memset(seen->slots, 0, SLOTS * sizeof *seen->slots);
        seen->count = 0;
}

// A good hash: what a hostile file could make collide would lose its description.
static uint64_t hash(char kind, const char *first, const char *second) {
        unsigned char digest[SHA256_DIGEST_LENGTH];
        uint64_t value;
        size_t first_size = strlen(first) + 1, size = 1 + first_size + strlen(second);
        char *key = must(malloc(size));

        key[0] = kind;
        memcpy(key + 1, first, first_size);
        memcpy(key + 1 + first_size, second, size - 1 - first_size);
        SHA256((const unsigned char *)key, size, digest);
        free(key);
        memcpy(&value, digest, sizeof value);
        return value ? value : 1;
}

bool seen_add(struct seen *seen, char kind, const char *first, const char *second) {
        uint64_t value = hash(kind, first, second);
        size_t at = value % SLOTS;

        for (; seen->slots[at] != 0; at = (at + 1) % SLOTS) {
                if (seen->slots[at] == value)
                        return false;
        }
        if (seen->count == FULL) {
                seen_clear(seen);
                at = value % SLOTS;
        }
        seen->slots[at] = value;
        seen->count++;
        return true;
}
