#include "auth/cleanup.h"
#include "auth/principal.h"
#include "auth/vault_private.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

enum { NONCE = 12, TAG = 16, PLACE = 3 * 16, ASSOCIATED_MAX = 1 + PLACE + VAULT_KEY_ID_MAX };
_Static_assert(VAULT_OVERHEAD == NONCE + TAG && VAULT_WRAPPED == NONCE + VAULT_KEY + TAG, "what is stored");

// First byte of the associated data, so that a wrapped key cannot pass for a record, nor the other way round.
enum purpose { PURPOSE_DATA_KEY = 1, PURPOSE_RECORD = 2 };

struct associated {
        unsigned char data[ASSOCIATED_MAX];
        size_t size;
};

static int hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c = (char)(c | 0x20);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The UUID's 16 bytes, so that its spelling does not matter. False for what is none.
static bool put_uuid(struct associated *associated, const char *text) {
        if (!text || strlen(text) != UUID_TEXT)
                return false;
        for (size_t i = 0; i < UUID_TEXT; i += 2) {
                if (i == 8 || i == 13 || i == 18 || i == 23)
                        if (text[i++] != '-')
                                return false;
                int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
                if (high < 0 || low < 0)
                        return false;
                associated->data[associated->size++] = (unsigned char)(high << 4 | low);
        }
        return true;
}

// Purpose, place, and for a data key the id of the key that wraps it: all but the last of fixed length, so no two
// places give the same bytes.
static bool associate(
        struct associated *ret, enum purpose purpose, const struct vault_place *place, const char *key_id) {
        struct associated associated = {.data = {(unsigned char)purpose}, .size = 1};
        if (!put_uuid(&associated, place->organization_id) || !put_uuid(&associated, place->account_id) ||
                !put_uuid(&associated, place->credentials_id))
                return false;
        size_t length = strlen(key_id);
        memcpy(associated.data + associated.size, key_id, length);
        associated.size += length;
        *ret = associated;
        return true;
}

// Writes nonce, ciphertext and tag.
static bool gcm_seal(const unsigned char key[VAULT_KEY], const struct associated *associated, const void *plain,
        size_t size, unsigned char *ret_sealed) {
        CLEANUP(drop_cipher_context) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        int length;
        return context && RAND_bytes(ret_sealed, NONCE) == 1 &&
               EVP_EncryptInit_ex2(context, EVP_aes_256_gcm(), key, ret_sealed, NULL) == 1 &&
               EVP_EncryptUpdate(context, NULL, &length, associated->data, (int)associated->size) == 1 &&
               EVP_EncryptUpdate(context, ret_sealed + NONCE, &length, plain, (int)size) == 1 &&
               EVP_EncryptFinal_ex(context, ret_sealed + NONCE + size, &length) == 1 &&
               EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG, ret_sealed + NONCE + size) == 1;
}

// Writes `size` bytes, which are wiped again where the tag does not match: nobody sees what was tampered with.
static bool gcm_open(const unsigned char key[VAULT_KEY], const struct associated *associated,
        const unsigned char *sealed, size_t size, void *ret_plain) {
        CLEANUP(drop_cipher_context) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        unsigned char tag[TAG];
        int length;
        memcpy(tag, sealed + NONCE + size, TAG);
        if (context && EVP_DecryptInit_ex2(context, EVP_aes_256_gcm(), key, sealed, NULL) == 1 &&
                EVP_DecryptUpdate(context, NULL, &length, associated->data, (int)associated->size) == 1 &&
                EVP_DecryptUpdate(context, ret_plain, &length, sealed + NONCE, (int)size) == 1 &&
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG, tag) == 1 &&
                EVP_DecryptFinal_ex(context, (unsigned char *)ret_plain + size, &length) == 1)
                return true;
        OPENSSL_cleanse(ret_plain, size);
        ERR_clear_error();
        return false;
}

const char *vault_current_key(const struct vault *vault) { return vault->keys[vault->current].id; }

static const struct vault_key *find_key(const struct vault *vault, const char *key_id) {
        for (size_t i = 0; i < vault->count; i++)
                if (strcmp(vault->keys[i].id, key_id) == 0)
                        return &vault->keys[i];
        return NULL;
}

bool vault_seal(const struct vault *vault, const struct vault_place *place, const void *secret, size_t size,
        unsigned char ret_wrapped[VAULT_WRAPPED], unsigned char *ret_sealed) {
        const struct vault_key *current = &vault->keys[vault->current];
        struct associated for_key, for_record;
        unsigned char data_key[VAULT_KEY];
        if (size > VAULT_SECRET_MAX || !associate(&for_key, PURPOSE_DATA_KEY, place, current->id) ||
                !associate(&for_record, PURPOSE_RECORD, place, ""))
                return false;
        bool sealed = RAND_priv_bytes(data_key, sizeof data_key) == 1 &&
                      gcm_seal(data_key, &for_record, secret, size, ret_sealed) &&
                      gcm_seal(current->wrapping, &for_key, data_key, sizeof data_key, ret_wrapped);
        OPENSSL_cleanse(data_key, sizeof data_key);
        return sealed;
}

bool vault_unseal(const struct vault *vault, const char *key_id, const struct vault_place *place,
        const unsigned char wrapped[VAULT_WRAPPED], const void *sealed, size_t sealed_size, void *ret_secret) {
        const struct vault_key *key = find_key(vault, key_id);
        struct associated for_key, for_record;
        unsigned char data_key[VAULT_KEY];
        if (!key || sealed_size < VAULT_OVERHEAD || sealed_size > VAULT_OVERHEAD + VAULT_SECRET_MAX ||
                !associate(&for_key, PURPOSE_DATA_KEY, place, key->id) ||
                !associate(&for_record, PURPOSE_RECORD, place, ""))
                return false;
        bool opened = gcm_open(key->wrapping, &for_key, wrapped, sizeof data_key, data_key) &&
                      gcm_open(data_key, &for_record, sealed, sealed_size - VAULT_OVERHEAD, ret_secret);
        OPENSSL_cleanse(data_key, sizeof data_key);
        return opened;
}
