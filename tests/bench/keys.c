// Makes keys: COUNT lines of text, prefix, and SHA-256 in hexadecimal.
//
//   bench-keys COUNT [agents]     API keys, or agents' keys
#include "auth/api_key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
        const char *scheme = argc > 2 && !strcmp(argv[2], "agents") ? agent_key_scheme : api_key_scheme;
        for (long left = argc > 1 ? strtol(argv[1], NULL, 10) : 1; left > 0; left--) {
                char text[API_KEY_TEXT + 1], prefix[API_KEY_PREFIX + 1];
                unsigned char hash[API_KEY_HASH];
                if (!api_key_make(scheme, text, prefix, hash))
                        return 1;
                printf("%s %s ", text, prefix);
                for (int i = 0; i < API_KEY_HASH; i++)
                        printf("%02x", hash[i]);
                putchar('\n');
        }
        return 0;
}
