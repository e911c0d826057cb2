// Destructors for __attribute__((cleanup)); all take pointers to NULL.
#pragma once

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdlib.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

static inline void drop_text(char **text) { free(*text); }
static inline void drop_pkey(EVP_PKEY **key) { EVP_PKEY_free(*key); }
static inline void drop_pkey_context(EVP_PKEY_CTX **context) { EVP_PKEY_CTX_free(*context); }
static inline void drop_md_context(EVP_MD_CTX **context) { EVP_MD_CTX_free(*context); }
static inline void drop_cipher_context(EVP_CIPHER_CTX **context) { EVP_CIPHER_CTX_free(*context); }
static inline void drop_bignum(BIGNUM **number) { BN_free(*number); }
static inline void drop_param_builder(OSSL_PARAM_BLD **builder) { OSSL_PARAM_BLD_free(*builder); }
static inline void drop_params(OSSL_PARAM **params) { OSSL_PARAM_free(*params); }
