// Text for people. Names of resources come from strangers: a control character in one must not steer a terminal.
#pragma once

#include <stdint.h>
#include <stdio.h>

// Writes text with all that is not printable escaped: control characters, marks that turn the direction of writing,
// and bytes that are no UTF-8 (as \xNN), so that what is seen is what is there.
void put_text(FILE *out, const char *text);

// The same in exactly `width` columns: padded, or cut with an ellipsis.
void put_column(FILE *out, const char *text, unsigned width);

// The columns of the terminal behind a stream; 0: it is none.
unsigned terminal_width(FILE *out);

// 10767 as "10,767".
enum { GROUPED_SIZE = 32 };
const char *grouped(int64_t number, char buffer[static GROUPED_SIZE]);
