#include "tools/genie-agent/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_SIZE = 4096 };

static const char *const level_names[LOG_LEVELS] = {"error", "warning", "info", "debug"};
static atomic_int least = LOG_INFO;

void agent_log_level(enum log_level level) { atomic_store(&least, (int)level); }

bool agent_log_level_parse(const char *name, enum log_level *ret_level) {
        for (enum log_level level = LOG_ERROR; level < LOG_LEVELS; level++)
                if (!strcmp(name, level_names[level])) {
                        *ret_level = level;
                        return true;
                }
        return false;
}

// A JSON string. Bytes that are not ASCII pass as they are: what is logged is ours, or was checked.
static void put_string(FILE *to, const char *text) {
        fputc('"', to);
        for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
                if (*c == '"' || *c == '\\')
                        fputc('\\', to);
                if (*c < ' ' || *c == 0x7f)
                        fprintf(to, "\\u%04x", *c);
                else
                        fputc(*c, to);
        }
        fputc('"', to);
}

void agent_log(enum log_level level, const char *event, ...) {
        char line[LINE_MAX_SIZE], time_text[32];
        struct timespec now;
        struct tm parts;

        if ((int)level > atomic_load(&least))
                return;
        clock_gettime(CLOCK_REALTIME, &now);
        strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &parts));
        FILE *to = fmemopen(line, sizeof line - 1, "w"); // a line that is too long is cut, and stays a line
        if (!to)
                return;
        fprintf(to, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":", time_text, now.tv_nsec / 1000000,
                level_names[level]);
        put_string(to, event);
        va_list fields;
        va_start(fields, event);
        for (const char *name; (name = va_arg(fields, const char *));) {
                const char *value = va_arg(fields, const char *);
                fputc(',', to);
                put_string(to, name);
                fputc(':', to);
                put_string(to, value ? value : "");
        }
        va_end(fields);
        fputc('}', to);
        long size = ftell(to);
        fclose(to);
        if (size < 0 || size > LINE_MAX_SIZE - 2)
                size = LINE_MAX_SIZE - 2;
        line[size] = '\n';
        if (write(STDERR_FILENO, line, (size_t)size + 1) < 0)
                return; // nobody is left to tell
}
