#include "tools/genie-agent/pull_request/branch_name.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum { HASH_DIGITS = 16 };

static bool part_good(const char *part, size_t size) {
        return size > 0 && part[0] != '.' && !(size >= 5 && strncmp(part + size - 5, ".lock", 5) == 0);
}

bool branch_name_good(const char *name) {
        size_t size = strlen(name);
        if (size == 0 || size > BRANCH_NAME_MAX || name[0] == '-' || name[size - 1] == '.' || strcmp(name, "@") == 0 ||
                strcmp(name, "HEAD") == 0 || strstr(name, "..") || strstr(name, "@{"))
                return false;
        for (size_t i = 0; i < size; i++)
                if ((unsigned char)name[i] <= ' ' || name[i] == 0x7f || strchr("~^:?*[\\", name[i]))
                        return false;
        for (const char *part = name;; part++) {
                size_t length = strcspn(part, "/");
                if (!part_good(part, length))
                        return false;
                part += length;
                if (!*part)
                        return true;
        }
}

static bool character_good(const char *key, size_t at, size_t size) {
        if (key[at] == '.')
                return at > 0 && at + 1 < size && key[at - 1] != '.';
        return isalnum((unsigned char)key[at]) || key[at] == '-' || key[at] == '_';
}

// A key that looks like one with a hash gets one too: then no key can be written as another one's name.
static bool ends_like_a_hash(const char *key, size_t size) {
        if (size <= HASH_DIGITS || key[size - HASH_DIGITS - 1] != '-')
                return false;
        for (size_t i = size - HASH_DIGITS; i < size; i++)
                if (!strchr("0123456789abcdef", key[i]))
                        return false;
        return true;
}

static bool hash_append(const char *key, size_t size, char *ret_text, size_t capacity) {
        unsigned char hash[EVP_MAX_MD_SIZE];
        if (capacity < 1 + HASH_DIGITS + 1 || EVP_Digest(key, size, hash, NULL, EVP_sha256(), NULL) != 1)
                return false;
        *ret_text++ = '-';
        for (size_t i = 0; i < HASH_DIGITS / 2; i++)
                snprintf(ret_text + 2 * i, 3, "%02x", hash[i]);
        return true;
}

bool branch_name_make(const char *prefix, const char *key, char ret_name[BRANCH_NAME_MAX + 1]) {
        char name[BRANCH_NAME_MAX + 1] = "";
        size_t size = strlen(key);
        int begin = snprintf(name, sizeof name, "%s", prefix && *prefix ? prefix : "devopsgenie/");
        if (begin < 0 || size == 0 || (size_t)begin + size > BRANCH_NAME_MAX)
                return false;
        char *at = name + begin;
        bool changed = ends_like_a_hash(key, size) || (size >= 5 && strcmp(key + size - 5, ".lock") == 0);
        for (size_t i = 0; i < size; i++) {
                at[i] = key[i];
                if (!character_good(key, i, size)) {
                        at[i] = '-';
                        changed = true;
                }
        }
        at[size] = '\0';
        if (changed && !hash_append(key, size, at + size, sizeof name - (size_t)begin - size))
                return false;
        if (!branch_name_good(name))
                return false;
        memcpy(ret_name, name, sizeof name);
        return true;
}
