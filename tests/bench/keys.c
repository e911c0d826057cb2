// Makes API keys: COUNT lines of text, prefix, and SHA-256 in hexadecimal.
#include "auth/api_key.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
        for (long left = argc > 1 ? strtol(argv[1], NULL, 10) : 1; left > 0; left--) {
                char text[API_KEY_TEXT + 1], prefix[API_KEY_PREFIX + 1];
                unsigned char hash[API_KEY_HASH];
                if (!api_key_make(api_key_scheme, text, prefix, hash))
                        return 1;
                printf("%s %s ", text, prefix);
                for (int i = 0; i < API_KEY_HASH; i++)
                        printf("%02x", hash[i]);
                putchar('\n');
        }
        return 0;
}
