// UTF-8 as RFC 3629 has it: shortest forms, no surrogates, at most U+10FFFF.
#pragma once

#include <stddef.h>

// The size of the sequence at `at`, 1 to 4; 0 where it is malformed or cut short by `end`. `at` is before `end`.
size_t utf8_sequence(const unsigned char *at, const unsigned char *end);

// How many characters (code points) a text has that is UTF-8.
size_t utf8_length(const char *text);

// Puts `?` in the place of each byte that belongs to no sequence: what is cut anywhere is text again.
void utf8_mend(char *text);
