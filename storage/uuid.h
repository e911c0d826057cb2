// UUIDs (RFC 9562). Any thread; each thread has its own randomness.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { UUID_BYTES = 16, UUID_TEXT_SIZE = 37 }; // bytes; text with its NUL

// Makes a version 7 UUID: milliseconds since 1970, 12 bits of a fraction of the millisecond, 62 random bits. Those of
// one thread ascend, unless the clock was set back by more than a second; those of several do so to a quarter of a
// microsecond.
void uuid_v7(unsigned char ret_uuid[UUID_BYTES]);
void uuid_v7_text(char ret_text[UUID_TEXT_SIZE]);

// Writes the text form: 36 characters in lower case, and a NUL.
void uuid_to_text(const unsigned char uuid[UUID_BYTES], char ret_text[UUID_TEXT_SIZE]);

// Reads the text form (either case, exactly 36 characters, any version). False, with ret_uuid as it was, for
// anything else.
bool uuid_from_text(const char *text, size_t size, unsigned char ret_uuid[UUID_BYTES])
        __attribute__((warn_unused_result));
