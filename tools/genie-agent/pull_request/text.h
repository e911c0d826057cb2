// Text: ours into fixed buffers, and strangers' into logs and messages. No I/O.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { TEXT_SHORT = 300 }; // of what a host says, in a message

bool text_is_utf8(const char *text, size_t size);

// snprintf; false where it does not fit.
bool text_format(char *ret_text, size_t capacity, const char *format, ...)
        __attribute__((format(printf, 3, 4), warn_unused_result));

// Makes what a host or a library said fit to be shown: one line of UTF-8 without control characters, the secret (NULL:
// none) and users and passwords in URLs as `***`, cut to the capacity.
void text_show(const char *said, size_t size, const char *secret, char *ret_text, size_t capacity);

// Percent-encodes all but RFC 3986's unreserved characters. False where it does not fit.
bool text_encode(const char *text, char *ret_text, size_t capacity) __attribute__((warn_unused_result));
