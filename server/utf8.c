#include "server/utf8.h"

#include <string.h>

size_t utf8_sequence(const unsigned char *at, const unsigned char *end) {
        unsigned char lead = *at;
        if (lead < 0x80)
                return 1;
        size_t size = lead >= 0xc2 && lead <= 0xdf   ? 2
                      : (lead & 0xf0) == 0xe0        ? 3
                      : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                     : 0;
        if (!size || size > (size_t)(end - at))
                return 0;
        unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (at[1] < low || at[1] > high)
                return 0;
        for (size_t i = 2; i < size; i++)
                if ((at[i] & 0xc0) != 0x80)
                        return 0;
        return size;
}

size_t utf8_length(const char *text) {
        size_t count = 0;
        for (; *text; text++)
                count += (*text & 0xc0) != 0x80;
        return count;
}

void utf8_mend(char *text) {
        unsigned char *at = (unsigned char *)text, *end = at + strlen(text);
        while (at < end) {
                size_t size = utf8_sequence(at, end);
                if (!size)
                        *at = '?';
                at += size ? size : 1;
        }
}
