#include "auth/jwks.h"

#include "auth/base64url.h"
#include "auth/cleanup.h"
#include "auth/small_file.h"

#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <string.h>

struct jwk {
        char kid[JWKS_KEY_ID_MAX + 1];
        bool named; // has a kid
        enum jws_algorithm algorithm;
        EVP_PKEY *key;
};

struct jwks {
        size_t count;
        struct jwk keys[JWKS_KEYS_MAX];
};

enum { P256_COORDINATE = 32 };

enum jws_algorithm jws_algorithm_named(const char *name) {
        if (name && strcmp(name, "RS256") == 0)
                return JWS_RS256;
        if (name && strcmp(name, "ES256") == 0)
                return JWS_ES256;
        return JWS_NONE;
}

static EVP_PKEY *key_from_params(const char *type, OSSL_PARAM *params) {
        CLEANUP(drop_pkey_context) EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
        EVP_PKEY *key = NULL;
        if (!context || !params || EVP_PKEY_fromdata_init(context) != 1 ||
                EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
                return NULL;
        return key;
}

// A member's bytes; 0 where it is missing, malformed or longer than the buffer.
static size_t decode_member(const json_t *jwk, const char *name, unsigned char *ret_data, size_t capacity) {
        const json_t *member = json_object_get(jwk, name);
        size_t size = 0;
        if (!json_is_string(member) ||
                !base64url_decode(json_string_value(member), json_string_length(member), ret_data, capacity, &size))
                return 0;
        return size;
}

static BIGNUM *decode_number(const json_t *jwk, const char *name) {
        unsigned char bytes[JWKS_RSA_BITS_MAX / 8];
        size_t size = decode_member(jwk, name, bytes, sizeof bytes);
        return size ? BN_bin2bn(bytes, (int)size, NULL) : NULL;
}

// Verification takes the time of the exponent's length: no longer than anyone uses, odd and more than 1.
static bool exponent_sane(const BIGNUM *e) { return BN_is_odd(e) && !BN_is_one(e) && BN_num_bits(e) <= 32; }

static EVP_PKEY *rsa_key(const json_t *jwk) {
        CLEANUP(drop_bignum) BIGNUM *n = decode_number(jwk, "n");
        CLEANUP(drop_bignum) BIGNUM *e = decode_number(jwk, "e");
        if (!n || !e || BN_num_bits(n) < JWKS_RSA_BITS_MIN || !BN_is_odd(n) || !exponent_sane(e))
                return NULL;
        CLEANUP(drop_param_builder) OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
        if (!builder || !OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) ||
                !OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e))
                return NULL;
        CLEANUP(drop_params) OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
        return key_from_params("RSA", params);
}

// RFC 7518, section 6.2.1: both coordinates at full length. OpenSSL checks that the point is on the curve.
static EVP_PKEY *p256_key(const json_t *jwk) {
        unsigned char point[1 + 2 * P256_COORDINATE] = {POINT_CONVERSION_UNCOMPRESSED};
        char group[] = "prime256v1";
        if (decode_member(jwk, "x", point + 1, P256_COORDINATE) != P256_COORDINATE ||
                decode_member(jwk, "y", point + 1 + P256_COORDINATE, P256_COORDINATE) != P256_COORDINATE)
                return NULL;
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
                OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point),
                OSSL_PARAM_construct_end(),
        };
        return key_from_params("EC", params);
}

static bool member_is(const json_t *jwk, const char *name, const char *value) {
        const char *text = json_string_value(json_object_get(jwk, name));
        return text && strcmp(text, value) == 0;
}

static bool absent_or_is(const json_t *jwk, const char *name, const char *value) {
        return !json_object_get(jwk, name) || member_is(jwk, name, value);
}

// Whether `key_ops`, where it stands, lets the key verify.
static bool may_verify(const json_t *jwk) {
        const json_t *operations = json_object_get(jwk, "key_ops");
        for (size_t i = 0; i < json_array_size(operations); i++) {
                const char *operation = json_string_value(json_array_get(operations, i));
                if (operation && strcmp(operation, "verify") == 0)
                        return true;
        }
        return !operations;
}

// Fills *ret_key; false for a key that is not for us.
static bool parse_key(const json_t *jwk, struct jwk *ret_key) {
        bool rsa = member_is(jwk, "kty", "RSA");
        bool p256 = member_is(jwk, "kty", "EC") && member_is(jwk, "crv", "P-256");
        const json_t *kid = json_object_get(jwk, "kid");
        if ((!rsa && !p256) || !absent_or_is(jwk, "use", "sig") || !may_verify(jwk) ||
                !absent_or_is(jwk, "alg", rsa ? "RS256" : "ES256") ||
                (kid && (!json_is_string(kid) || json_string_length(kid) > JWKS_KEY_ID_MAX)))
                return false;
        *ret_key = (struct jwk){.named = kid, .algorithm = rsa ? JWS_RS256 : JWS_ES256};
        if (kid)
                memcpy(ret_key->kid, json_string_value(kid), json_string_length(kid));
        ret_key->key = rsa ? rsa_key(jwk) : p256_key(jwk);
        return ret_key->key;
}

static const struct jwk *find_named(const struct jwks *set, const char *kid) {
        for (size_t i = 0; i < set->count; i++)
                if (set->keys[i].named && strcmp(set->keys[i].kid, kid) == 0)
                        return &set->keys[i];
        return NULL;
}

static bool add_keys(struct jwks *set, const json_t *keys, char **ret_error) {
        for (size_t i = 0; i < json_array_size(keys); i++) {
                struct jwk key;
                if (!parse_key(json_array_get(keys, i), &key))
                        continue;
                if (set->count == JWKS_KEYS_MAX || (key.named && find_named(set, key.kid))) {
                        EVP_PKEY_free(key.key);
                        return set->count == JWKS_KEYS_MAX
                                       ? auth_error(ret_error, "more than %d keys", JWKS_KEYS_MAX)
                                       : auth_error(ret_error, "two keys with the kid \"%s\"", key.kid);
                }
                set->keys[set->count++] = key;
        }
        if (!set->count)
                return auth_error(ret_error, "no key for RS256 (RSA, %d to %d bits) or ES256 (EC P-256)",
                        JWKS_RSA_BITS_MIN, JWKS_RSA_BITS_MAX);
        return true;
}

struct jwks *jwks_parse(const char *text, size_t size, char **ret_error) {
        json_error_t error;
        json_auto_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
        const json_t *keys = json_object_get(json, "keys");
        if (!json) {
                auth_error(ret_error, "line %d: %s", error.line, error.text);
                return NULL;
        }
        if (!json_is_array(keys)) {
                auth_error(ret_error, "not a JSON Web Key Set: no array \"keys\"");
                return NULL;
        }
        struct jwks *set = calloc(1, sizeof *set);
        if (set && add_keys(set, keys, ret_error))
                return set;
        if (!set)
                auth_error(ret_error, "out of memory");
        jwks_free(set);
        return NULL;
}

void jwks_free(struct jwks *set) {
        for (size_t i = 0; set && i < set->count; i++)
                EVP_PKEY_free(set->keys[i].key);
        free(set);
}

static const struct jwk *find_only(const struct jwks *set, enum jws_algorithm algorithm) {
        const struct jwk *only = NULL;
        for (size_t i = 0; i < set->count; i++) {
                if (set->keys[i].algorithm != algorithm)
                        continue;
                if (only)
                        return NULL;
                only = &set->keys[i];
        }
        return only;
}

enum token_status jwks_find(const struct jwks *set, const char *kid, enum jws_algorithm algorithm, EVP_PKEY **ret_key) {
        const struct jwk *found = kid ? find_named(set, kid) : find_only(set, algorithm);
        if (!found)
                return TOKEN_UNKNOWN_KEY;
        if (found->algorithm != algorithm)
                return TOKEN_ALGORITHM;
        if (EVP_PKEY_up_ref(found->key) != 1)
                return TOKEN_FAILURE;
        *ret_key = found->key;
        return TOKEN_OK;
}
