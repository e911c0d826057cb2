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

static bool character_good(const char *key, size_t at) {
        if (key[at] == '.')
                return at > 0 && key[at - 1] != '.';
        return isalnum((unsigned char)key[at]) || key[at] == '-' || key[at] == '_';
}

bool branch_name_make(const char *prefix, const char *identity, char ret_name[BRANCH_NAME_MAX + 1]) {
        char name[BRANCH_NAME_MAX + 1];
        unsigned char hash[EVP_MAX_MD_SIZE];
        const char *slash = strchr(identity, '/'), *key = slash ? slash + 1 : "";
        int begin = snprintf(name, sizeof name, "%s", prefix && *prefix ? prefix : "devopsgenie/");
        if (!*key || begin < 0 || begin + 1 + HASH_DIGITS > BRANCH_NAME_MAX ||
                EVP_Digest(identity, strlen(identity), hash, NULL, EVP_sha256(), NULL) != 1)
                return false;
        size_t size = (size_t)begin;
        for (size_t i = 0; key[i] && size + 1 + HASH_DIGITS < BRANCH_NAME_MAX; i++)
                name[size++] = (char)(character_good(key, i) ? key[i] : '-');
        name[size++] = '-';
        for (size_t i = 0; i < HASH_DIGITS / 2; i++)
                size += (size_t)snprintf(name + size, 3, "%02x", hash[i]);
        if (!branch_name_good(name))
                return false;
        memcpy(ret_name, name, sizeof name);
        return true;
}
