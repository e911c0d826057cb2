// Page tokens with AES-SIV (RFC 5297). It needs no nonce, so the key's life has no bound that busy lists could reach,
// as it would have with GCM and random nonces.
#include "auth/base64url.h"
#include "auth/cleanup.h"
#include "auth/vault_private.h"

#include <openssl/err.h>
#include <stdint.h>
#include <string.h>

enum { TAG = 16, EXPIRY = 8, OVERHEAD = TAG + EXPIRY, RAW_MAX = OVERHEAD + PAGE_CURSOR_MAX };

// A token before it is text: tag, then expiry (Unix seconds, most significant byte first) and cursor, encrypted.
struct raw {
        unsigned char bytes[RAW_MAX];
        size_t size;
};

size_t page_token_size(size_t cursor_size) { return base64url_length(OVERHEAD + cursor_size) + 1; }

static void put_expiry(unsigned char bytes[EXPIRY], uint64_t expiry) {
        for (int i = EXPIRY; i-- > 0; expiry >>= 8)
                bytes[i] = (unsigned char)expiry;
}

static uint64_t get_expiry(const unsigned char bytes[EXPIRY]) {
        uint64_t expiry = 0;
        for (int i = 0; i < EXPIRY; i++)
                expiry = expiry << 8 | bytes[i];
        return expiry;
}

bool page_token_seal(const struct vault *vault, const void *context, size_t context_size, const void *cursor,
        size_t cursor_size, long long now, char *ret_text) {
        struct raw raw = {.size = OVERHEAD + cursor_size};
        int length;
        if (cursor_size > PAGE_CURSOR_MAX || context_size > PAGE_CONTEXT_MAX)
                return false;
        put_expiry(raw.bytes + TAG, (uint64_t)now + (uint64_t)PAGE_TOKEN_DAYS * 86400);
        memcpy(raw.bytes + OVERHEAD, cursor, cursor_size);
        CLEANUP(drop_cipher_context) EVP_CIPHER_CTX *siv = EVP_CIPHER_CTX_new();
        if (!siv || EVP_EncryptInit_ex2(siv, vault->siv, vault->keys[vault->current].page, NULL, NULL) != 1 ||
                EVP_EncryptUpdate(siv, NULL, &length, context, (int)context_size) != 1 ||
                EVP_EncryptUpdate(siv, raw.bytes + TAG, &length, raw.bytes + TAG, (int)(EXPIRY + cursor_size)) != 1 ||
                EVP_CIPHER_CTX_ctrl(siv, EVP_CTRL_AEAD_GET_TAG, TAG, raw.bytes) != 1)
                return false;
        base64url_encode(raw.bytes, raw.size, ret_text);
        return true;
}

static bool decrypt(const struct vault *vault, const struct vault_key *key, const void *context, size_t context_size,
        const struct raw *raw, unsigned char *ret_plain) {
        CLEANUP(drop_cipher_context) EVP_CIPHER_CTX *siv = EVP_CIPHER_CTX_new();
        unsigned char tag[TAG];
        int length;
        memcpy(tag, raw->bytes, TAG);
        if (siv && EVP_DecryptInit_ex2(siv, vault->siv, key->page, NULL, NULL) == 1 &&
                EVP_CIPHER_CTX_ctrl(siv, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1 &&
                EVP_DecryptUpdate(siv, NULL, &length, context, (int)context_size) == 1 &&
                EVP_DecryptUpdate(siv, ret_plain, &length, raw->bytes + TAG, (int)(raw->size - TAG)) == 1)
                return true;
        ERR_clear_error();
        return false;
}

bool page_token_open(const struct vault *vault, const void *context, size_t context_size, const char *text,
        long long now, void *ret_cursor, size_t *ret_cursor_size) {
        struct raw raw;
        unsigned char plain[RAW_MAX - TAG];
        if (context_size > PAGE_CONTEXT_MAX ||
                !base64url_decode(text, strlen(text), raw.bytes, sizeof raw.bytes, &raw.size) || raw.size < OVERHEAD)
                return false;
        // Any key of the file: a token may be older than the current one. Another's costs microseconds.
        for (size_t i = 0; i < vault->count; i++) {
                if (!decrypt(vault, &vault->keys[i], context, context_size, &raw, plain))
                        continue;
                if ((uint64_t)now >= get_expiry(plain))
                        return false;
                memcpy(ret_cursor, plain + EXPIRY, raw.size - OVERHEAD);
                *ret_cursor_size = raw.size - OVERHEAD;
                return true;
        }
        return false;
}
