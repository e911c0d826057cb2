#include "tools/genie-agent/key_store.h"

#include "tools/genie-agent/text.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <unistd.h>

#define FILE_NAME "offered-key"
#define FRESH_NAME "offered-key.new"
enum { HASH_SIZE = 32 };

// The file: the SHA-256 of the configured key, and the offered key.
static bool hash_of(const char *key, unsigned char ret_hash[static HASH_SIZE]) {
        return EVP_Digest(key, strlen(key), ret_hash, NULL, EVP_sha256(), NULL) == 1;
}

bool key_store_keep(int folder, const char *configured, const char *offered) {
        unsigned char content[HASH_SIZE + KEY_SIZE];
        size_t length = strlen(offered), size = HASH_SIZE + length;
        if (length == 0 || length >= KEY_SIZE || !hash_of(configured, content))
                return false;
        memcpy(content + HASH_SIZE, offered, length); // NOLINT(bugprone-not-null-terminated-result): to the file's end
        unlinkat(folder, FRESH_NAME, 0);
        int file = openat(folder, FRESH_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        bool good = file >= 0 && write(file, content, size) == (ssize_t)size && fsync(file) == 0;
        OPENSSL_cleanse(content, sizeof content);
        if (file >= 0)
                close(file);
        good = good && renameat(folder, FRESH_NAME, folder, FILE_NAME) == 0 && fsync(folder) == 0;
        if (!good)
                unlinkat(folder, FRESH_NAME, 0);
        return good;
}

bool key_store_find(int folder, const char *configured, char ret_key[static KEY_SIZE]) {
        unsigned char content[HASH_SIZE + KEY_SIZE], hash[HASH_SIZE];
        int file = openat(folder, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        ssize_t size = file >= 0 ? read(file, content, sizeof content) : -1;
        if (file >= 0)
                close(file);
        bool good = size > HASH_SIZE && size < (ssize_t)sizeof content && hash_of(configured, hash) &&
                    CRYPTO_memcmp(hash, content, HASH_SIZE) == 0;
        if (good) {
                size_t length = (size_t)size - HASH_SIZE;
                memcpy(ret_key, content + HASH_SIZE, length);
                ret_key[length] = '\0';
        }
        OPENSSL_cleanse(content, sizeof content);
        return good;
}
