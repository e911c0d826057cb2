// Base64 with the URL and file name safe alphabet, without padding (RFC 4648, section 5), as tokens write it.
#pragma once

#include <stdbool.h>
#include <stddef.h>

// Characters that encode `size` bytes, without the NUL.
static inline size_t base64url_length(size_t size) { return size / 3 * 4 + (size % 3 ? size % 3 + 1 : 0); }

// Writes base64url_length(size) characters and a NUL.
void base64url_encode(const void *data, size_t size, char *ret_text);

// Exactly one text decodes to given bytes: padding, other characters and stray bits at the end are refused, so that
// a token cannot be altered without notice. False also where `capacity` bytes do not hold the result.
bool base64url_decode(const char *text, size_t length, unsigned char *ret_data, size_t capacity, size_t *ret_size)
        __attribute__((warn_unused_result));
