// The reader of SQL files, for libFuzzer: lines stay where they were, and without parameters nothing changes.
#include "storage/sql_text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned lines(const char *text) {
        unsigned count = 0;
        for (; (text = strchr(text, '\n')); text++)
                count++;
        return count;
}

static void check(const char *sql, const struct sql_text *text) {
        if (lines(sql) != lines(text->text) || (!text->parameter_count && strcmp(sql, text->text) != 0))
                abort();
        for (unsigned i = 0; i < text->parameter_count; i++) // each has the place of its first use
                if (sql_text_find(text->parameters, text->parameter_count, text->parameters[i],
                            (unsigned)strlen(text->parameters[i])) != (int)i)
                        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct sql_text text;
        unsigned line = 0;
        const char *problem = NULL;
        char *sql = malloc(size + 1);
        if (!sql)
                abort();
        memcpy(sql, data, size);
        sql[size] = 0;
        if (sql_text_read(sql, &text, &line, &problem)) {
                check(sql, &text);
                sql_text_drop(&text);
        } else if (!problem || !line || line > lines(sql) + 1)
                abort();
        free(sql);
        return 0;
}
