#include "auth/base64url.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void base64url_encode(const void *data, size_t size, char *ret_text) {
        const unsigned char *bytes = data;
        uint32_t bits = 0;
        unsigned count = 0;
        for (size_t i = 0; i < size; i++) {
                bits = bits << 8 | bytes[i];
                for (count += 8; count >= 6; count -= 6)
                        *ret_text++ = alphabet[bits >> (count - 6) & 63];
        }
        if (count)
                *ret_text++ = alphabet[bits << (6 - count) & 63];
        *ret_text = 0;
}

static int digit(char c) {
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool base64url_decode(const char *text, size_t length, unsigned char *ret_data, size_t capacity, size_t *ret_size) {
        size_t size = length / 4 * 3 + (length % 4 ? length % 4 - 1 : 0);
        if (length % 4 == 1 || size > capacity)
                return false;
        uint32_t bits = 0;
        unsigned count = 0;
        for (size_t i = 0; i < length; i++) {
                int value = digit(text[i]);
                if (value < 0)
                        return false;
                bits = bits << 6 | (uint32_t)value;
                count += 6;
                if (count >= 8) {
                        count -= 8;
                        *ret_data++ = (unsigned char)(bits >> count);
                }
        }
        if (bits & ((1U << count) - 1))
                return false;
        *ret_size = size;
        return true;
}
