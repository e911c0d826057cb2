// What page tokens share with the vault: its key file.
#pragma once

#include "auth/vault.h"

#include <openssl/evp.h>

enum { VAULT_KEYS_MAX = 32, VAULT_KEY = 32, VAULT_PAGE_KEY = 64 };

struct vault_key {
        char id[VAULT_KEY_ID_MAX + 1];
        unsigned char wrapping[VAULT_KEY];  // AES-256-GCM, of data keys
        unsigned char page[VAULT_PAGE_KEY]; // AES-256-SIV, derived from the one above
};

// Does not change once it is open, so any thread may use it.
struct vault {
        size_t count, current;
        EVP_CIPHER *siv;
        struct vault_key keys[VAULT_KEYS_MAX];
};
