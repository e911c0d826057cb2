#include "server/rpc/method.h"

#include <string.h>

// Open addressing at a quarter full or less: a miss costs a comparison or two.
enum { SLOTS = 1024 };
static const struct method *slots[SLOTS];

static uint32_t hash(const char *text, size_t size) {
        uint32_t value = 2166136261U; // FNV-1a
        for (size_t i = 0; i < size; i++)
                value = (value ^ (unsigned char)text[i]) * 16777619U;
        return value;
}

bool method_table_init(void) {
        if (method_count > SLOTS / 4)
                return false;
        for (unsigned i = 0; i < method_count; i++) {
                uint32_t at = hash(methods[i].path, strlen(methods[i].path)) % SLOTS;
                while (slots[at] && slots[at] != &methods[i])
                        at = (at + 1) % SLOTS;
                slots[at] = &methods[i];
        }
        return true;
}

const struct method *method_find(const char *path, size_t size) {
        for (uint32_t at = hash(path, size) % SLOTS; slots[at]; at = (at + 1) % SLOTS)
                if (strlen(slots[at]->path) == size && !memcmp(slots[at]->path, path, size))
                        return slots[at];
        return NULL;
}
