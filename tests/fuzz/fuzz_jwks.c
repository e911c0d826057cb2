// Key sets, for libFuzzer: a set that is taken gives keys of the asked algorithm only.
#include "auth/jwks.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void find(const struct jwks *set, const char *kid, enum jws_algorithm algorithm) {
        EVP_PKEY *key = NULL;
        if (jwks_find(set, kid, algorithm, &key) == TOKEN_OK) {
                if (!EVP_PKEY_is_a(key, algorithm == JWS_RS256 ? "RSA" : "EC"))
                        abort();
                EVP_PKEY_free(key);
        } else if (key)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char *error = NULL;
        struct jwks *set = jwks_parse((const char *)data, size, &error);
        if (!set != (error != NULL))
                abort();
        if (set) {
                find(set, NULL, JWS_RS256);
                find(set, NULL, JWS_ES256);
                find(set, "r", JWS_RS256);
                find(set, "e", JWS_RS256);
                find(set, "e", JWS_ES256);
                jwks_free(set);
        }
        free(error);
        return 0;
}
