#include "auth/api_key.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

enum { NAME_AT = API_KEY_SCHEME, NAME = 12, SECRET_AT = API_KEY_PREFIX + 1, SECRET = 43, CHECKSUM = 6 };
enum { CHECKSUM_AT = SECRET_AT + SECRET };
_Static_assert(NAME_AT + NAME == API_KEY_PREFIX && CHECKSUM_AT + CHECKSUM == API_KEY_TEXT, "the parts of a key");

const char api_key_scheme[] = "dgk_", agent_key_scheme[] = "dga_";

static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

// Random digits, each as likely as the others: a byte that would favour some is drawn again. 43 of them are 256 bits.
static bool random_digits(char *ret_digits, size_t count) {
        unsigned char pool[64];
        size_t done = 0;
        while (done < count) {
                if (RAND_priv_bytes(pool, sizeof pool) != 1)
                        break;
                for (size_t i = 0; i < sizeof pool && done < count; i++)
                        if (pool[i] < 4 * 62)
                                ret_digits[done++] = base62[pool[i] % 62];
        }
        OPENSSL_cleanse(pool, sizeof pool);
        return done == count;
}

static void checksum(const char *text, char ret_digits[CHECKSUM]) {
        unsigned long value = crc32(0, (const unsigned char *)text, CHECKSUM_AT);
        for (int i = CHECKSUM; i-- > 0; value /= 62)
                ret_digits[i] = base62[value % 62];
}

static bool hash(const char *text, unsigned char ret_hash[API_KEY_HASH]) {
        return EVP_Digest(text, API_KEY_TEXT, ret_hash, NULL, EVP_sha256(), NULL) == 1;
}

static void copy_prefix(const char *text, char ret_prefix[API_KEY_PREFIX + 1]) {
        memcpy(ret_prefix, text, API_KEY_PREFIX);
        ret_prefix[API_KEY_PREFIX] = 0;
}

bool api_key_make(const char scheme[API_KEY_SCHEME + 1], char ret_text[API_KEY_TEXT + 1],
        char ret_prefix[API_KEY_PREFIX + 1], unsigned char ret_hash[API_KEY_HASH]) {
        char text[API_KEY_TEXT + 1] = {0};
        memcpy(text, scheme, API_KEY_SCHEME);
        text[API_KEY_PREFIX] = '_';
        bool made = random_digits(text + NAME_AT, NAME) && random_digits(text + SECRET_AT, SECRET);
        checksum(text, text + CHECKSUM_AT);
        made = made && hash(text, ret_hash);
        if (made) {
                memcpy(ret_text, text, sizeof text);
                copy_prefix(text, ret_prefix);
        }
        OPENSSL_cleanse(text, sizeof text);
        return made;
}

static bool all_digits(const char *text, size_t size) {
        for (size_t i = 0; i < size; i++) {
                char c = text[i];
                if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
                        return false;
        }
        return true;
}

bool api_key_has_scheme(const char scheme[API_KEY_SCHEME + 1], const char *text, size_t size) {
        return size >= API_KEY_SCHEME && !memcmp(text, scheme, API_KEY_SCHEME);
}

bool api_key_parse(const char scheme[API_KEY_SCHEME + 1], const char *text, size_t size,
        char ret_prefix[API_KEY_PREFIX + 1], unsigned char ret_hash[API_KEY_HASH]) {
        char sum[CHECKSUM];
        if (size != API_KEY_TEXT || !api_key_has_scheme(scheme, text, size) || text[API_KEY_PREFIX] != '_' ||
                !all_digits(text + NAME_AT, NAME) || !all_digits(text + SECRET_AT, SECRET + CHECKSUM))
                return false;
        checksum(text, sum);
        if (memcmp(sum, text + CHECKSUM_AT, CHECKSUM) != 0 || !hash(text, ret_hash))
                return false;
        copy_prefix(text, ret_prefix);
        return true;
}
