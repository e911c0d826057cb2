#include "storage/sql_text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

// What stood before: it tells a slice's colon from a parameter's, and a subscript from an array's bracket.
enum previous { OPERATOR, OPERAND, ARRAY_WORD };

struct reader {
        const char *at;
        FILE *out;
        struct sql_text *text;
        enum previous previous;
        char open[MAX_DEPTH]; // the brackets that are open: ( for a parenthesis, a for an array's, s for a subscript's
        unsigned depth;
        const char *problem;
};

static bool is_word_start(char c) { return isalpha((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80; }
static bool is_word(char c) { return is_word_start(c) || isdigit((unsigned char)c) || c == '$'; }
static bool is_name_start(char c) { return isalpha((unsigned char)c) || c == '_'; }
static bool is_name(char c) { return is_name_start(c) || isdigit((unsigned char)c); }

int sql_text_find(char *const *names, unsigned count, const char *name, unsigned size) {
        for (unsigned i = 0; i < count; i++)
                if (strlen(names[i]) == size && !memcmp(names[i], name, size))
                        return (int)i;
        return -1;
}

static bool fail(struct reader *reader, const char *problem) {
        reader->problem = problem;
        return false;
}

static bool copy_to(struct reader *reader, const char *end) {
        fwrite(reader->at, 1, (size_t)(end - reader->at), reader->out);
        reader->at = end;
        return true;
}

// Adds a name to a list that grows by one; its index, or -1 without memory.
static int add_name(char ***names, unsigned *count, const char *name, unsigned size) {
        int known = sql_text_find(*names, *count, name, size);
        if (known >= 0)
                return known;
        char **grown = reallocarray(*names, *count + 1, sizeof *grown);
        if (!grown)
                return -1;
        *names = grown;
        grown[*count] = strndup(name, size);
        return grown[*count] ? (int)(*count)++ : -1;
}

// --- What is copied as it is ---

// The `a, b` of a line `-- unset: a, b`.
static bool read_unset(struct reader *reader, const char *at, const char *end) {
        for (;;) {
                while (at < end && strchr(" \t\r,", *at))
                        at++;
                if (at == end)
                        return true;
                const char *name = at;
                while (at < end && (is_name(*at) || *at == '.'))
                        at++;
                if (at == name)
                        return fail(reader, "`-- unset:` takes field names, with commas between them");
                if (add_name(&reader->text->unset, &reader->text->unset_count, name, (unsigned)(at - name)) < 0)
                        return fail(reader, "out of memory");
        }
}

static bool read_line_comment(struct reader *reader) {
        const char *end = strchrnul(reader->at, '\n'), *at = reader->at + 2;
        while (at < end && strchr(" \t", *at))
                at++;
        static const char unset[] = "unset:";
        if ((size_t)(end - at) >= sizeof unset - 1 && !memcmp(at, unset, sizeof unset - 1) &&
                !read_unset(reader, at + sizeof unset - 1, end))
                return false;
        return copy_to(reader, end);
}

static bool read_block_comment(struct reader *reader) {
        unsigned depth = 0;
        for (const char *at = reader->at; *at; at++) {
                if (at[0] == '/' && at[1] == '*') {
                        depth++;
                        at++;
                } else if (at[0] == '*' && at[1] == '/') {
                        at++;
                        if (!--depth)
                                return copy_to(reader, at + 1);
                }
        }
        return fail(reader, "the comment has no end");
}

// A string or a quoted identifier from its first quote; a doubled quote ends one part and begins the next.
static bool read_quoted(struct reader *reader, bool escapes) {
        char quote = *reader->at;
        for (const char *at = reader->at + 1; *at; at++) {
                if (escapes && *at == '\\' && at[1])
                        at++;
                else if (*at == quote && at[1] == quote)
                        at++;
                else if (*at == quote) {
                        reader->previous = OPERAND;
                        return copy_to(reader, at + 1);
                }
        }
        return fail(reader, quote == '"' ? "the quoted identifier has no end" : "the string has no end");
}

static bool read_dollar(struct reader *reader) {
        const char *tag_end = reader->at + 1;
        if (isdigit((unsigned char)*tag_end))
                return fail(reader, "parameters have names, not numbers");
        while (is_word(*tag_end) && *tag_end != '$')
                tag_end++;
        reader->previous = OPERATOR;
        if (*tag_end != '$')
                return copy_to(reader, reader->at + 1);
        size_t tag = (size_t)(tag_end + 1 - reader->at);
        for (const char *at = tag_end + 1; (at = strchr(at, '$')); at++)
                if (!strncmp(at, reader->at, tag)) {
                        reader->previous = OPERAND;
                        return copy_to(reader, at + tag);
                }
        return fail(reader, "the dollar-quoted string has no end");
}

static bool read_word(struct reader *reader) {
        const char *end = reader->at;
        while (is_word(*end))
                end++;
        size_t size = (size_t)(end - reader->at);
        bool escapes = size == 1 && (*reader->at == 'e' || *reader->at == 'E') && *end == '\'';
        bool array = size == 5 && !strncasecmp(reader->at, "array", size);
        copy_to(reader, end);
        reader->previous = array ? ARRAY_WORD : OPERAND;
        return !escapes || read_quoted(reader, /* escapes= */ true);
}

static bool read_number(struct reader *reader) {
        const char *end = reader->at;
        while (is_word(*end) || *end == '.')
                end++;
        reader->previous = OPERAND;
        return copy_to(reader, end);
}

// --- Brackets and colons ---

static bool read_open(struct reader *reader) {
        if (reader->depth == MAX_DEPTH)
                return fail(reader, "the brackets nest too deep");
        bool in_array = reader->depth && reader->open[reader->depth - 1] == 'a' && reader->previous == OPERATOR;
        char kind = *reader->at == '(' ? '(' : reader->previous == ARRAY_WORD || in_array ? 'a' : 's';
        reader->open[reader->depth++] = kind;
        reader->previous = OPERATOR;
        return copy_to(reader, reader->at + 1);
}

static bool read_close(struct reader *reader) {
        // One too many is PostgreSQL's to refuse.
        reader->depth -= reader->depth > 0;
        reader->previous = OPERAND;
        return copy_to(reader, reader->at + 1);
}

static bool read_parameter(struct reader *reader) {
        const char *name = reader->at + 1, *end = name;
        while (is_name(*end))
                end++;
        int index = add_name(&reader->text->parameters, &reader->text->parameter_count, name, (unsigned)(end - name));
        if (index < 0)
                return fail(reader, "out of memory");
        fprintf(reader->out, "$%d", index + 1);
        reader->at = end;
        reader->previous = OPERAND;
        return true;
}

static bool read_colon(struct reader *reader) {
        bool slice = reader->depth && reader->open[reader->depth - 1] == 's' && reader->previous == OPERAND;
        if (is_name_start(reader->at[1]) && !slice)
                return read_parameter(reader);
        reader->previous = OPERATOR;
        return copy_to(reader, reader->at + (reader->at[1] == ':' || reader->at[1] == '=' ? 2 : 1));
}

static bool read_token(struct reader *reader) {
        const char *at = reader->at;
        if (isspace((unsigned char)*at))
                return copy_to(reader, at + 1);
        if (at[0] == '-' && at[1] == '-')
                return read_line_comment(reader);
        if (at[0] == '/' && at[1] == '*')
                return read_block_comment(reader);
        if (*at == '\'' || *at == '"')
                return read_quoted(reader, /* escapes= */ false);
        if (*at == '$')
                return read_dollar(reader);
        if (is_word_start(*at))
                return read_word(reader);
        if (isdigit((unsigned char)*at))
                return read_number(reader);
        if (*at == '(' || *at == '[')
                return read_open(reader);
        if (*at == ')' || *at == ']')
                return read_close(reader);
        if (*at == ':')
                return read_colon(reader);
        reader->previous = OPERATOR;
        return copy_to(reader, at + 1);
}

bool sql_text_read(const char *sql, struct sql_text *ret_text, unsigned *ret_line, const char **ret_problem) {
        size_t size;
        *ret_text = (struct sql_text){0};
        struct reader reader = {.at = sql, .text = ret_text};
        reader.out = open_memstream(&ret_text->text, &size);
        while (reader.out && *reader.at && read_token(&reader))
                ;
        if (!reader.out || fclose(reader.out) != 0)
                reader.problem = "out of memory";
        if (!reader.problem)
                return true;
        *ret_problem = reader.problem;
        *ret_line = 1;
        for (const char *at = sql; at < reader.at; at++)
                *ret_line += *at == '\n';
        sql_text_drop(ret_text);
        return false;
}

void sql_text_drop(struct sql_text *text) {
        for (unsigned i = 0; i < text->parameter_count; i++)
                free(text->parameters[i]);
        for (unsigned i = 0; i < text->unset_count; i++)
                free(text->unset[i]);
        free(text->parameters);
        free(text->unset);
        free(text->text);
        *text = (struct sql_text){0};
}
