#include "tools/genie-agent/pull_request/text.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool text_is_utf8(const char *text, size_t size) {
        json_t *string = json_stringn(text, size);
        json_decref(string);
        return string != NULL;
}

bool text_format(char *ret_text, size_t capacity, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        int size = vsnprintf(ret_text, capacity, format, arguments);
        va_end(arguments);
        return size >= 0 && (size_t)size < capacity;
}

// How much of what begins here must not be shown: the secret, or what stands before the @ of a URL's host.
static size_t hidden(const char *said, size_t size, const char *secret, bool behind_scheme) {
        size_t length = secret ? strlen(secret) : 0;
        if (length > 0 && length <= size && memcmp(said, secret, length) == 0)
                return length;
        for (size_t i = 0; behind_scheme && i < size && !isspace((unsigned char)said[i]) && said[i] != '/'; i++)
                if (said[i] == '@')
                        return i;
        return 0;
}

// Puts `?` in the place of each byte that belongs to no sequence, one that was cut among them.
static void mend(char *text, size_t size) {
        for (size_t i = 0, length; i < size; i += length) {
                for (length = 1; length <= 4 && i + length <= size && !text_is_utf8(text + i, length);)
                        length++;
                if (length > 4 || i + length > size) {
                        text[i] = '?';
                        length = 1;
                }
        }
}

void text_show(const char *said, size_t size, const char *secret, char *ret_text, size_t capacity) {
        size_t length = 0;
        for (size_t i = 0; i < size && length + 1 < capacity;) {
                size_t skip = hidden(said + i, size - i, secret, i >= 3 && memcmp(said + i - 3, "://", 3) == 0);
                if (skip > 0) {
                        for (int star = 0; star < 3 && length + 1 < capacity; star++)
                                ret_text[length++] = '*';
                        i += skip;
                        continue;
                }
                unsigned char c = (unsigned char)said[i++];
                if (c >= ' ' && c != 0x7f)
                        ret_text[length++] = (char)c;
                else if (length > 0 && ret_text[length - 1] != ' ')
                        ret_text[length++] = ' ';
        }
        ret_text[length] = '\0';
        mend(ret_text, length);
        while (length > 0 && ret_text[length - 1] == ' ')
                ret_text[--length] = '\0';
}

bool text_encode(const char *text, char *ret_text, size_t capacity) {
        size_t length = 0;
        for (; *text; text++) {
                bool plain = isalnum((unsigned char)*text) || strchr("-._~", *text);
                if (length + 4 > capacity)
                        return false;
                if (plain)
                        ret_text[length++] = *text;
                else
                        length += (size_t)snprintf(ret_text + length, 4, "%%%02X", (unsigned char)*text);
        }
        ret_text[length] = '\0';
        return true;
}
