// Keys as text: a scheme that tells whose they are (`dgk_`: API keys, `dga_`: agents' keys) + 12 characters that name
// the key + `_` + 43 characters of secret (256 random bits) + 6 characters of checksum (CRC-32 of all before it), in
// base62. Prefix and checksum let secret scanners match keys without false alarms.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { API_KEY_SCHEME = 4, API_KEY_PREFIX = 16, API_KEY_TEXT = 66, API_KEY_HASH = 32 };

extern const char api_key_scheme[API_KEY_SCHEME + 1], agent_key_scheme[API_KEY_SCHEME + 1];

// Makes a key: its text, its prefix (the scheme and the 12 characters, NUL-terminated) and the SHA-256 of the text,
// which is all that is stored. False when the system gives no randomness. The caller wipes `ret_text`.
bool api_key_make(const char scheme[API_KEY_SCHEME + 1], char ret_text[API_KEY_TEXT + 1],
        char ret_prefix[API_KEY_PREFIX + 1], unsigned char ret_hash[API_KEY_HASH]) __attribute__((warn_unused_result));

// Whether a text begins as the keys of a scheme do.
bool api_key_has_scheme(const char scheme[API_KEY_SCHEME + 1], const char *text, size_t size);

// Checks form and checksum; false for what cannot be a key of the scheme. Fills prefix and hash.
bool api_key_parse(const char scheme[API_KEY_SCHEME + 1], const char *text, size_t size,
        char ret_prefix[API_KEY_PREFIX + 1], unsigned char ret_hash[API_KEY_HASH]) __attribute__((warn_unused_result));
