// Page tokens, for libFuzzer: no text that was not sealed opens; what was sealed opens, and does not when the byte that
// the input chooses is another.
#include "auth/vault.h"
#include "tests/unit/scratch.h"

#include <stdbool.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const long long now = 1800000000;
static const char context[] = "organizations/acme ListFindings";

static void need(bool holds) {
        if (!holds)
                abort();
}

static struct vault *make_vault(void) {
        struct scratch scratch;
        char *error = NULL;
        scratch_make(&scratch);
        scratch_write(&scratch, "keys",
                "{\"keys\":[{\"id\":\"a\",\"key\":\"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\"}],\"current\":"
                "\"a\"}",
                0600);
        struct vault *vault = vault_open(scratch_path(&scratch, "keys"), &error);
        need(vault != NULL);
        scratch_drop(&scratch);
        return vault;
}

// Opens into just the room that the header asks for; true where it gives these bytes.
static bool opens(const struct vault *vault, const char *text, const void *data, size_t size) {
        size_t room = strlen(text), opened_size = 0;
        char *opened = malloc(room ? room : 1);
        need(opened != NULL);
        bool open = page_token_open(vault, context, sizeof context, text, now, opened, &opened_size);
        need(!open || (opened_size == size && !memcmp(opened, data, size)));
        free(opened);
        return open;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct vault *vault;
        if (!vault)
                vault = make_vault();
        if (size < 3)
                return 0;
        char *text = malloc(size + 1), *token = malloc(page_token_size(size));
        need(text && token);
        memcpy(text, data, size);
        text[size] = 0;
        need(!opens(vault, text, "", 0));
        if (size <= PAGE_CURSOR_MAX) {
                need(page_token_seal(vault, context, sizeof context, data, size, now, token));
                need(opens(vault, token, data, size));
                char *at = &token[(data[0] | (size_t)data[1] << 8) % strlen(token)];
                bool same = *at == (char)data[2];
                *at = (char)data[2];
                need(opens(vault, token, data, size) == same);
        }
        free(text);
        free(token);
        return 0;
}
