// JSON Web Key Sets (RFC 7517): the public keys that tokens are verified with. A set does not change once it is
// parsed; its keys are counted references, so a key in use outlives its set.
#pragma once

#include "auth/token.h"

#include <openssl/evp.h>
#include <stddef.h>

enum jws_algorithm { JWS_NONE, JWS_RS256, JWS_ES256 };
enum { JWKS_KEYS_MAX = 64, JWKS_KEY_ID_MAX = 255, JWKS_RSA_BITS_MIN = 2048, JWKS_RSA_BITS_MAX = 8192 };

struct jwks;

// RS256 or ES256 for their names, JWS_NONE for any other text and for NULL.
enum jws_algorithm jws_algorithm_named(const char *name);

// Takes the RSA keys of 2,048 to 8,192 bits and the EC P-256 keys that are for RS256 and ES256 signatures, and
// ignores other keys, as the RFC asks. NULL with *ret_error (malloc'ed) where the text is no key set, no key is left,
// or two have one `kid`.
struct jwks *jwks_parse(const char *text, size_t size, char **ret_error);
void jwks_free(struct jwks *set);

// The key named `kid`, if it is for that algorithm (else TOKEN_ALGORITHM). Without `kid` (NULL) the set's only key for
// the algorithm. TOKEN_UNKNOWN_KEY where there is none. The caller frees *ret_key.
enum token_status jwks_find(const struct jwks *set, const char *kid, enum jws_algorithm algorithm, EVP_PKEY **ret_key);
