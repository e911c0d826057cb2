// The credential vault: envelope encryption with AES-256-GCM. A secret is sealed with a fresh data key; the data key
// is wrapped (RFC 3394 is not used: AES-256-GCM with its own associated data) by a key-encryption key of the key
// file. What is stored opens only with the key file, and only in its own place: the associated data binds
// organization, account and credentials id.
//
// Key file: JSON, mode 0600 or stricter (else refused): {"keys": [{"id": "2026-11-23-a", "key": base64 of 32 bytes},
// …], "current": id}. New records use the current key; any key of the file opens old ones.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct vault;

enum { VAULT_KEY_ID_MAX = 64, VAULT_WRAPPED = 12 + 32 + 16, VAULT_OVERHEAD = 12 + 16, VAULT_SECRET_MAX = 1 << 20 };

// Makes a key file with one new key; fails where the file exists.
bool vault_make_key_file(const char *path, char **ret_error);

// Reads a key file. NULL with *ret_error (malloc'ed, names the file, never a key). Before the first thread: while it
// parses, it changes the JSON library's allocator for one that wipes. What it gives does not change, and any thread
// may use it.
struct vault *vault_open(const char *path, char **ret_error);
void vault_close(struct vault *vault);

const char *vault_current_key(const struct vault *vault); // its id

// Where a secret belongs, as UUID texts; what is no UUID is no place, and nothing is sealed for it.
struct vault_place {
        const char *organization_id, *account_id, *credentials_id;
};

// Seals `size` bytes (at most VAULT_SECRET_MAX) with a fresh data key: wrapped key (VAULT_WRAPPED bytes) and nonce +
// ciphertext + tag (size + VAULT_OVERHEAD bytes).
bool vault_seal(const struct vault *vault, const struct vault_place *place, const void *secret, size_t size,
        unsigned char ret_wrapped[VAULT_WRAPPED], unsigned char *ret_sealed) __attribute__((warn_unused_result));

// Opens what vault_seal made; false where key, place or a bit of it differs. `ret_secret` holds
// sealed_size - VAULT_OVERHEAD bytes; the caller wipes it.
bool vault_unseal(const struct vault *vault, const char *key_id, const struct vault_place *place,
        const unsigned char wrapped[VAULT_WRAPPED], const void *sealed, size_t sealed_size, void *ret_secret)
        __attribute__((warn_unused_result));

// Page tokens: authenticated encryption with a key derived (HKDF-SHA-256, RFC 5869) from the vault's, so that all
// replicas read each other's. `context` (caller's organization, method, arguments) is bound, not stored; a token
// expires after 3 days (AIP-158 asks for a reasonable time). Text is base64url without padding.
enum { PAGE_TOKEN_DAYS = 3, PAGE_CURSOR_MAX = 16384, PAGE_CONTEXT_MAX = 1 << 20 };
size_t page_token_size(size_t cursor_size); // bytes of text, with its NUL
bool page_token_seal(const struct vault *vault, const void *context, size_t context_size, const void *cursor,
        size_t cursor_size, long long now, char *ret_text) __attribute__((warn_unused_result));
// *ret_cursor_size is at most strlen(text). False for anything but an unexpired token of this context.
bool page_token_open(const struct vault *vault, const void *context, size_t context_size, const char *text,
        long long now, void *ret_cursor, size_t *ret_cursor_size) __attribute__((warn_unused_result));
