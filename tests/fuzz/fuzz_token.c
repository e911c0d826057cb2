// Tokens, for libFuzzer. A text with a line feed is a header and claims, which get a good signature here, so that what
// is behind the signature is reached; any other is a token as it stands, and none of those may pass.
#include "auth/token.h"
#include "tests/unit/forge.h"
#include "tests/unit/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PART_MAX = 10000 };

static const char *const issuers[] = {"https://genie.local", NULL};
static EVP_PKEY *key;

static struct token_verifier *make_verifier(void) {
        struct scratch scratch;
        char *error = NULL;
        key = EVP_EC_gen("P-256");
        forge_check(key != NULL);
        scratch_make(&scratch);
        scratch_write(&scratch, "jwks", forge_set(forge_jwk(key, ",\"kid\":\"e\""), NULL, NULL), 0600);
        static char path[PATH_MAX];
        snprintf(path, sizeof path, "%s", scratch_path(&scratch, "jwks"));
        struct token_verifier *verifier = token_verifier_new(
                &(struct token_settings){
                        .jwks_file = path, .issuers = issuers, .audience = "devopsgenie", .cache_size = 16},
                &error);
        forge_check(verifier != NULL);
        scratch_drop(&scratch);
        return verifier;
}

static void check_principal(const struct principal *principal) {
        forge_check(principal->kind != PRINCIPAL_NONE && *principal->caller);
        forge_check(strnlen(principal->caller, sizeof principal->caller) < sizeof principal->caller);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct token_verifier *verifier;
        struct principal principal = {.kind = PRINCIPAL_NONE};
        if (!verifier)
                verifier = make_verifier();
        char *text = malloc(size + 1);
        forge_check(text != NULL);
        memcpy(text, data, size);
        text[size] = 0;
        char *claims = strchr(text, '\n');
        if (claims && size < PART_MAX) {
                *claims++ = 0;
                const char *token = forge_token(text, claims, SIGN_ES256, key);
                if (token_verify(verifier, token, strlen(token), 1800000000, &principal) == TOKEN_OK)
                        check_principal(&principal);
        } else
                forge_check(token_verify(verifier, text, size, 1800000000, &principal) != TOKEN_OK);
        free(text);
        return 0;
}
