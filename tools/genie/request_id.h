// Request ids: UUIDs (RFC 9562) made of bytes of our own choice, version 8.
#pragma once

#include <stdint.h>
#include <stdio.h>

enum { REQUEST_ID_SIZE = 37 };

static inline void request_id_format(const uint8_t bytes[static 16], char ret_text[static REQUEST_ID_SIZE]) {
        const uint8_t *b = bytes;

        snprintf(ret_text, REQUEST_ID_SIZE, "%02x%02x%02x%02x-%02x%02x-8%x%02x-%x%x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                b[1], b[2], b[3], b[4], b[5], b[6] & 0xf, b[7], 8 | (b[8] & 3), b[8] >> 4, b[9], b[10], b[11], b[12],
                b[13], b[14], b[15]);
}
