#include "tools/genie/terminal.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

// What is shown for one character.
struct glyph {
        char text[16];
        unsigned columns;
};

// Marks that change the order in which other characters are shown, and invisible ones that hide a difference.
static bool misleads(wchar_t c) {
        return c == 0x00ad || c == 0x061c || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
               (c >= 0x2060 && c <= 0x2069) || c == 0xfeff || (c >= 0xe0000 && c <= 0xe007f);
}

// Takes the next character; returns its bytes.
static size_t next_glyph(const char *text, struct glyph *ret_glyph) {
        wchar_t c = 0;
        mbstate_t state = {0};
        size_t size = mbrtowc(&c, text, strlen(text), &state);

        if (size == 0 || size > MB_LEN_MAX) { // not UTF-8
                ret_glyph->columns = (unsigned)snprintf(
                        ret_glyph->text, sizeof ret_glyph->text, "\\x%02x", (unsigned)(unsigned char)*text);
                return 1;
        }
        int columns = wcwidth(c);
        if (columns < 0 || misleads(c)) {
                ret_glyph->columns = (unsigned)snprintf(
                        ret_glyph->text, sizeof ret_glyph->text, c < 0x80 ? "\\x%02x" : "\\u{%04x}", (unsigned)c);
        } else {
                memcpy(ret_glyph->text, text, size);
                ret_glyph->text[size] = '\0';
                ret_glyph->columns = (unsigned)columns;
        }
        return size;
}

void put_text(FILE *out, const char *text) {
        struct glyph glyph;

        while (*text) {
                text += next_glyph(text, &glyph);
                fputs(glyph.text, out);
        }
}

static bool fits(const char *text, unsigned width) {
        struct glyph glyph;
        unsigned columns = 0;

        while (*text && columns <= width) {
                text += next_glyph(text, &glyph);
                columns += glyph.columns;
        }
        return columns <= width;
}

void put_column(FILE *out, const char *text, unsigned width) {
        struct glyph glyph;
        unsigned columns = 0, most = fits(text, width) ? width : width - 3;

        while (*text) {
                text += next_glyph(text, &glyph);
                if (columns + glyph.columns > most)
                        break;
                fputs(glyph.text, out);
                columns += glyph.columns;
        }
        if (most < width && width >= 3) {
                fputs("...", out);
                columns += 3;
        }
        fprintf(out, "%*s", (int)(width > columns ? width - columns : 0), "");
}

unsigned terminal_width(FILE *out) {
        struct winsize size;

        if (!isatty(fileno(out)))
                return 0;
        if (ioctl(fileno(out), TIOCGWINSZ, &size) < 0 || size.ws_col < 40)
                return 80;
        return size.ws_col;
}

const char *grouped(int64_t number, char buffer[static GROUPED_SIZE]) {
        char digits[GROUPED_SIZE];
        size_t size = (size_t)snprintf(digits, sizeof digits, "%" PRId64, number), at = 0;

        for (size_t i = 0; i < size; i++) {
                buffer[at++] = digits[i];
                if (digits[i] != '-' && i + 1 < size && (size - i - 1) % 3 == 0)
                        buffer[at++] = ',';
        }
        buffer[at] = '\0';
        return buffer;
}
