// API keys as text: `dgk_` + 12 characters that name the key + `_` + 43 characters of secret (256 random bits) + 6
// characters of checksum (CRC-32 of all before it), in base62. Prefix and checksum let secret scanners match keys
// without false alarms.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { API_KEY_PREFIX = 16, API_KEY_TEXT = 66, API_KEY_HASH = 32 };

// Makes a key: its text, its prefix (`dgk_` and the 12 characters, NUL-terminated) and the SHA-256 of the text,
// which is all that is stored. False when the system gives no randomness. The caller wipes `ret_text`.
bool api_key_make(char ret_text[API_KEY_TEXT + 1], char ret_prefix[API_KEY_PREFIX + 1],
        unsigned char ret_hash[API_KEY_HASH]) __attribute__((warn_unused_result));

// Checks form and checksum; false for what cannot be a key. Fills prefix and hash.
bool api_key_parse(const char *text, size_t size, char ret_prefix[API_KEY_PREFIX + 1],
        unsigned char ret_hash[API_KEY_HASH]) __attribute__((warn_unused_result));
