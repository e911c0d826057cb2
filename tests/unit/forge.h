// Tokens and key sets as an identity provider makes them, and as an attacker would.
#pragma once

#include "auth/base64url.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum forge_signature { SIGN_RS256, SIGN_ES256, SIGN_ES256_AS_DER, SIGN_HS256_WITH_PEM, SIGN_EMPTY, SIGN_ZEROS };

enum { FORGE_TOKEN_MAX = 40000 };

static inline void forge_check(bool good) {
        if (!good)
                abort();
}

static inline size_t forge_der(EVP_PKEY *key, const char *text, unsigned char *ret, size_t capacity) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        size_t size = capacity;
        forge_check(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
                    EVP_DigestSign(context, ret, &size, (const unsigned char *)text, strlen(text)) == 1);
        EVP_MD_CTX_free(context);
        return size;
}

static inline size_t forge_es256(EVP_PKEY *key, const char *text, unsigned char *ret) {
        unsigned char der[128];
        const unsigned char *at = der;
        ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &at, (long)forge_der(key, text, der, sizeof der));
        forge_check(signature && BN_bn2binpad(ECDSA_SIG_get0_r(signature), ret, 32) == 32 &&
                    BN_bn2binpad(ECDSA_SIG_get0_s(signature), ret + 32, 32) == 32);
        ECDSA_SIG_free(signature);
        return 64;
}

// The classic confusion: the public key, which everybody has, as the secret of an HMAC.
static inline size_t forge_hs256(EVP_PKEY *key, const char *text, unsigned char *ret) {
        BIO *bio = BIO_new(BIO_s_mem());
        char *pem;
        unsigned size;
        forge_check(PEM_write_bio_PUBKEY(bio, key) == 1);
        int pem_size = (int)BIO_get_mem_data(bio, &pem);
        HMAC(EVP_sha256(), pem, pem_size, (const unsigned char *)text, strlen(text), ret, &size);
        BIO_free(bio);
        return size;
}

static inline size_t forge_sign(enum forge_signature how, EVP_PKEY *key, const char *text, unsigned char *ret) {
        switch (how) {
        case SIGN_RS256:
        case SIGN_ES256_AS_DER:
                return forge_der(key, text, ret, 1024);
        case SIGN_ES256:
                return forge_es256(key, text, ret);
        case SIGN_HS256_WITH_PEM:
                return forge_hs256(key, text, ret);
        case SIGN_ZEROS:
                memset(ret, 0, 64);
                return 64;
        case SIGN_EMPTY:
                break;
        }
        return 0;
}

// A token from header and claims as they stand, in a static buffer.
static inline const char *forge_token(const char *header, const char *claims, enum forge_signature how, EVP_PKEY *key) {
        static char token[FORGE_TOKEN_MAX];
        unsigned char signature[1024];
        char *at = token;
        forge_check(base64url_length(strlen(header)) + base64url_length(strlen(claims)) + 1500 < sizeof token);
        base64url_encode(header, strlen(header), at);
        at += strlen(at);
        *at++ = '.';
        base64url_encode(claims, strlen(claims), at);
        size_t size = forge_sign(how, key, token, signature);
        at += strlen(at);
        *at++ = '.';
        base64url_encode(signature, size, at);
        return token;
}

static inline void forge_member(const EVP_PKEY *key, const char *name, int size, char *ret_text) {
        unsigned char bytes[1024];
        BIGNUM *number = NULL;
        forge_check(EVP_PKEY_get_bn_param(key, name, &number) == 1);
        size = size ? size : BN_num_bytes(number);
        forge_check(BN_bn2binpad(number, bytes, size) == size);
        base64url_encode(bytes, (size_t)size, ret_text);
        BN_free(number);
}

// A JSON Web Key with `more` members behind it (`,"use":"sig"`), in one of a few static buffers.
static inline const char *forge_jwk(const EVP_PKEY *key, const char *more) {
        static char texts[8][2048];
        static unsigned next;
        char *text = texts[next++ % 8], a[1400], b[128];
        bool rsa = EVP_PKEY_is_a(key, "RSA");
        int bits = EVP_PKEY_get_bits(key), coordinate = rsa ? 0 : bits / 8;
        forge_member(key, rsa ? OSSL_PKEY_PARAM_RSA_N : OSSL_PKEY_PARAM_EC_PUB_X, coordinate, a);
        forge_member(key, rsa ? OSSL_PKEY_PARAM_RSA_E : OSSL_PKEY_PARAM_EC_PUB_Y, coordinate, b);
        if (rsa)
                snprintf(text, sizeof texts[0], "{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"%s}", a, b, more);
        else
                snprintf(text, sizeof texts[0], "{\"kty\":\"EC\",\"crv\":\"P-%d\",\"x\":\"%s\",\"y\":\"%s\"%s}", bits,
                        a, b, more);
        return text;
}

// A set of up to three keys as JSON; NULL for fewer.
static inline const char *forge_set(const char *a, const char *b, const char *c) {
        static char text[8192];
        snprintf(text, sizeof text, "{\"keys\":[%s%s%s%s%s]}", a, b ? "," : "", b ? b : "", c ? "," : "", c ? c : "");
        return text;
}
