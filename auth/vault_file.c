// The vault's key file.
#include "auth/cleanup.h"
#include "auth/small_file.h"
#include "auth/vault_private.h"

#include <jansson.h>
#include <malloc.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

// A key of 32 bytes in base64, and room for what EVP_DecodeBlock writes: whole groups of three.
enum { KEY_TEXT = 44, KEY_DECODED = 33 };

bool vault_make_key_file(const char *path, char **ret_error) {
        unsigned char key[VAULT_KEY];
        char text[KEY_TEXT + 1], date[sizeof "2026-11-23"], json[256];
        time_t now = time(NULL);
        struct tm day;
        if (RAND_priv_bytes(key, sizeof key) != 1 || !gmtime_r(&now, &day) || !strftime(date, sizeof date, "%F", &day))
                return auth_error(ret_error, "%s: no random bytes or no date for a new key", path);
        EVP_EncodeBlock((unsigned char *)text, key, sizeof key);
        int size = snprintf(json, sizeof json,
                "{\"keys\": [{\"id\": \"%s-a\", \"key\": \"%s\"}], \"current\": \"%s-a\"}\n", date, text, date);
        bool made = small_file_create(path, 0600, json, (size_t)size, ret_error);
        OPENSSL_cleanse(key, sizeof key);
        OPENSSL_cleanse(text, sizeof text);
        OPENSSL_cleanse(json, sizeof json);
        return made;
}

static bool id_sane(const char *id) {
        size_t length = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
        return length > 0 && length <= VAULT_KEY_ID_MAX && !id[length];
}

static bool decode_key(const json_t *json, unsigned char ret_key[VAULT_KEY]) {
        unsigned char decoded[KEY_DECODED];
        const char *text = json_string_value(json);
        if (json_string_length(json) != KEY_TEXT || text[KEY_TEXT - 1] != '=' || text[KEY_TEXT - 2] == '=')
                return false;
        bool whole = EVP_DecodeBlock(decoded, (const unsigned char *)text, KEY_TEXT) == KEY_DECODED;
        if (whole)
                memcpy(ret_key, decoded, VAULT_KEY);
        OPENSSL_cleanse(decoded, sizeof decoded);
        return whole;
}

static void drop_kdf(EVP_KDF **kdf) { EVP_KDF_free(*kdf); }
static void drop_kdf_context(EVP_KDF_CTX **context) { EVP_KDF_CTX_free(*context); }

static bool derive_page_key(struct vault_key *key) {
        char digest[] = "SHA256", info[] = "devopsgenie page token";
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key->wrapping, VAULT_KEY),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, strlen(info)),
                OSSL_PARAM_construct_end(),
        };
        CLEANUP(drop_kdf) EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        CLEANUP(drop_kdf_context) EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
        return context && EVP_KDF_derive(context, key->page, VAULT_PAGE_KEY, params) == 1;
}

static bool has_id(const struct vault *vault, const char *id, size_t *ret_index) {
        for (size_t i = 0; i < vault->count; i++)
                if (strcmp(vault->keys[i].id, id) == 0) {
                        *ret_index = i;
                        return true;
                }
        return false;
}

// What is wrong with the file, or NULL. Static texts: none can hold a key.
static const char *add_key(struct vault *vault, const json_t *json) {
        const char *id = json_string_value(json_object_get(json, "id"));
        size_t other;
        if (vault->count == VAULT_KEYS_MAX)
                return "more than 32 keys";
        if (!id || !id_sane(id))
                return "a key without an id of 1 to 64 letters, digits, '-', '_' and '.'";
        if (has_id(vault, id, &other))
                return "two keys with the same id";
        struct vault_key *key = &vault->keys[vault->count++];
        snprintf(key->id, sizeof key->id, "%s", id);
        if (!decode_key(json_object_get(json, "key"), key->wrapping))
                return "a key that is not the base64 of 32 bytes";
        return derive_page_key(key) ? NULL : "OpenSSL cannot derive a key from it";
}

static const char *add_keys(struct vault *vault, const json_t *json) {
        const json_t *keys = json_object_get(json, "keys");
        const char *current = json_string_value(json_object_get(json, "current")), *problem = NULL;
        if (!json_is_array(keys))
                return "no JSON object with an array \"keys\"";
        for (size_t i = 0; i < json_array_size(keys) && !problem; i++)
                problem = add_key(vault, json_array_get(keys, i));
        if (problem)
                return problem;
        return current && has_id(vault, current, &vault->current) ? NULL : "\"current\" names none of the keys";
}

static void wipe_and_free(void *memory) {
        if (memory)
                OPENSSL_cleanse(memory, malloc_usable_size(memory));
        free(memory);
}

// Parses with a `free` that wipes, since jansson copies the keys as it reads and builds. Its allocator is the whole
// process's: the reason why vault_open belongs before the first thread.
static const char *parse_keys(struct vault *vault, const char *text, size_t size) {
        json_malloc_t usual_malloc;
        json_free_t usual_free;
        json_get_alloc_funcs(&usual_malloc, &usual_free);
        json_set_alloc_funcs(malloc, wipe_and_free);
        json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
        const char *problem = add_keys(vault, json);
        json_decref(json);
        json_set_alloc_funcs(usual_malloc, usual_free);
        return problem;
}

static bool read_file(struct vault *vault, const char *path, char **ret_error) {
        struct stat status;
        size_t size;
        char *text = small_file_read(path, &status, &size, ret_error);
        if (!text)
                return false;
        bool private = (status.st_mode & 077) == 0;
        const char *problem = private ? parse_keys(vault, text, size) : "others may read or write it: chmod 600 it";
        small_file_free(text, size);
        return problem ? auth_error(ret_error, "%s: %s", path, problem) : true;
}

struct vault *vault_open(const char *path, char **ret_error) {
        struct vault *vault = calloc(1, sizeof *vault);
        if (vault)
                vault->siv = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
        bool ready = vault && vault->siv;
        if (!ready)
                auth_error(ret_error, "%s: no memory, or an OpenSSL without AES-SIV", path);
        if (ready && read_file(vault, path, ret_error))
                return vault;
        vault_close(vault);
        return NULL;
}

void vault_close(struct vault *vault) {
        if (!vault)
                return;
        EVP_CIPHER_free(vault->siv);
        OPENSSL_cleanse(vault, sizeof *vault);
        free(vault);
}
