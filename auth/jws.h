// Signed tokens in compact form (RFC 7515): taken apart, and the signature checked. libjwt 1.10 is not used for it:
// it refuses `typ` at+jwt, passes over stray characters in a signature and reads a repeated claim as its last.
#pragma once

#include "auth/jwks.h"

#include <jansson.h>
#include <stddef.h>

enum { JWS_MAX = 16384, JWS_SIGNATURE_MAX = JWKS_RSA_BITS_MAX / 8 };

// A token in parts; the pointers are into its text.
struct jws {
        enum jws_algorithm algorithm;
        bool named;
        char kid[JWKS_KEY_ID_MAX + 1];
        const char *text; // what is signed: header, dot, payload
        size_t text_size;
        const char *payload;
        size_t payload_size, signature_size;
        unsigned char signature[JWS_SIGNATURE_MAX];
};

// Takes a token of at most JWS_MAX bytes apart. TOKEN_MALFORMED, or TOKEN_ALGORITHM where the header names no algorithm
// of ours.
enum token_status jws_parse(const char *token, size_t size, struct jws *ret_jws);

// TOKEN_OK, TOKEN_SIGNATURE or TOKEN_FAILURE. The key must be for the token's algorithm, as jwks_find makes sure.
enum token_status jws_verify(const struct jws *jws, EVP_PKEY *key);

// The claims; NULL where the payload is no JSON object. Only after jws_verify.
json_t *jws_claims(const struct jws *jws);
