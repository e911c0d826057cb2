// The editor of YAML, for libFuzzer: a path, a value and a file, each behind a line break. What it has made, it makes
// again without a change.
#include "tools/genie-agent/pull_request/helm_value.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *file, size_t size, const char *path, const char *value) {
        char *once, *twice;
        size_t once_size, twice_size;
        if (helm_value_set(file, size, path, value, &once, &once_size) != HELM_OK)
                return;
        if (helm_value_set(once, once_size, path, value, &twice, &twice_size) != HELM_OK || twice_size != once_size ||
                memcmp(once, twice, once_size) != 0)
                abort();
        free(once);
        free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char *text = malloc(size + 1);
        if (!text)
                abort();
        memcpy(text, data, size);
        text[size] = 0;
        char *value = strchr(text, '\n');
        char *file = value ? strchr(value + 1, '\n') : NULL;
        if (file) {
                *value++ = 0;
                *file++ = 0;
                check(file, size - (size_t)(file - text), text, value);
        }
        free(text);
        return 0;
}
