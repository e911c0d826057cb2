// The signing half, for `genie token` and for tests. libjwt writes the tokens here, so that the verifier is held
// against a writer that it does not share a line with.
#include "auth/base64url.h"
#include "auth/cleanup.h"
#include "auth/small_file.h"
#include "auth/token.h"

#include <jansson.h>
#include <jwt.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { COORDINATE = 32, COORDINATE_TEXT = 44, SHA256_SIZE = 32 };

// A public key as a JSON Web Key has it; the key's id is its thumbprint (RFC 7638), so it needs no storing.
struct public_key {
        char x[COORDINATE_TEXT], y[COORDINATE_TEXT], kid[COORDINATE_TEXT];
};

static void drop_jwt(jwt_t **jwt) { jwt_free(*jwt); }
static void drop_bio(BIO **bio) { BIO_free_all(*bio); }

static bool coordinate(const EVP_PKEY *key, const char *name, char ret_text[COORDINATE_TEXT]) {
        unsigned char bytes[COORDINATE];
        CLEANUP(drop_bignum) BIGNUM *number = NULL;
        if (EVP_PKEY_get_bn_param(key, name, &number) != 1 || BN_bn2binpad(number, bytes, COORDINATE) != COORDINATE)
                return false;
        base64url_encode(bytes, sizeof bytes, ret_text);
        return true;
}

// False for a key that is not EC P-256.
static bool describe_key(const EVP_PKEY *key, struct public_key *ret_public) {
        char group[32] = "", members[256];
        unsigned char digest[SHA256_SIZE];
        if (!EVP_PKEY_is_a(key, "EC") || EVP_PKEY_get_group_name(key, group, sizeof group, NULL) != 1 ||
                strcmp(group, "prime256v1") != 0 || !coordinate(key, OSSL_PKEY_PARAM_EC_PUB_X, ret_public->x) ||
                !coordinate(key, OSSL_PKEY_PARAM_EC_PUB_Y, ret_public->y))
                return false;
        int size = snprintf(members, sizeof members, "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}",
                ret_public->x, ret_public->y);
        if (EVP_Digest(members, (size_t)size, digest, NULL, EVP_sha256(), NULL) != 1)
                return false;
        base64url_encode(digest, sizeof digest, ret_public->kid);
        return true;
}

static bool write_private_key(const char *path, EVP_PKEY *key, char **ret_error) {
        CLEANUP(drop_bio) BIO *bio = BIO_new(BIO_s_secmem());
        char *pem;
        if (!bio || PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
                return auth_error(ret_error, "%s: OpenSSL cannot write the key", path);
        long size = BIO_get_mem_data(bio, &pem);
        return small_file_create(path, 0600, pem, (size_t)size, ret_error);
}

static bool write_key_set(const char *path, const EVP_PKEY *key, char **ret_error) {
        struct public_key public;
        char json[512];
        if (!describe_key(key, &public))
                return auth_error(ret_error, "%s: OpenSSL cannot describe the key", path);
        int size = snprintf(json, sizeof json,
                "{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"use\": \"sig\", \"alg\": \"ES256\", \"kid\": "
                "\"%s\", "
                "\"x\": \"%s\", \"y\": \"%s\"}]}\n",
                public.kid, public.x, public.y);
        return small_file_create(path, 0644, json, (size_t)size, ret_error);
}

bool token_keys_make(const char *private_key_file, const char *jwks_file, char **ret_error) {
        CLEANUP(drop_pkey) EVP_PKEY *key = EVP_EC_gen("P-256");
        if (!key)
                return auth_error(ret_error, "%s: OpenSSL cannot make a key", private_key_file);
        if (!write_private_key(private_key_file, key, ret_error))
                return false;
        if (write_key_set(jwks_file, key, ret_error))
                return true;
        unlink(private_key_file); // half a pair is of no use
        return false;
}

// Else OpenSSL asks on the terminal for the passphrase of a locked key.
static int no_passphrase(char *buffer, int size, int writing, void *context) {
        (void)buffer, (void)size, (void)writing, (void)context;
        return -1;
}

// The kid of the PEM's key; false where there is no EC P-256 key in it.
static bool key_id(const char *pem, size_t size, char ret_kid[COORDINATE_TEXT]) {
        struct public_key public;
        CLEANUP(drop_bio) BIO *bio = BIO_new_mem_buf(pem, (int)size);
        CLEANUP(drop_pkey) EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
        bool described = key && describe_key(key, &public);
        if (described)
                memcpy(ret_kid, public.kid, COORDINATE_TEXT);
        else
                ERR_clear_error();
        return described;
}

// Times go in as JSON, because libjwt takes them as `long`.
static bool add_claims(jwt_t *jwt, const struct token_claims *claims) {
        json_auto_t *json = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s*, s:s*}", "iss", claims->issuer, "aud",
                claims->audience, "sub", claims->subject, "iat", (json_int_t)claims->issued, "exp",
                (json_int_t)claims->expires, "email", claims->email, "genie_service_role", claims->service_role);
        if (!json || (claims->email && json_object_set_new(json, "email_verified", json_true()) != 0))
                return false;
        CLEANUP(drop_text) char *text = json_dumps(json, JSON_COMPACT);
        return text && jwt_add_grants_json(jwt, text) == 0;
}

static char *sign(const char *pem, size_t size, const struct token_claims *claims) {
        char kid[COORDINATE_TEXT];
        CLEANUP(drop_jwt) jwt_t *jwt = NULL;
        if (!key_id(pem, size, kid) || jwt_new(&jwt) != 0 || jwt_add_header(jwt, "kid", kid) != 0 ||
                !add_claims(jwt, claims) || jwt_set_alg(jwt, JWT_ALG_ES256, (const unsigned char *)pem, (int)size) != 0)
                return NULL;
        return jwt_encode_str(jwt);
}

char *token_sign(const char *private_key_file, const struct token_claims *claims, char **ret_error) {
        struct stat status;
        size_t size;
        char *pem = small_file_read(private_key_file, &status, &size, ret_error);
        if (!pem)
                return NULL;
        char *token = sign(pem, size, claims);
        small_file_free(pem, size);
        if (!token)
                auth_error(ret_error, "%s: not the PEM file of an EC P-256 private key, or claims that are no text",
                        private_key_file);
        return token;
}
