#include "server/log.h"

#include "server/utf8.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, LINE = 4096 };

static struct {
        pthread_mutex_t lock;
        char text[BUFFER];
        size_t used;
        enum log_calls calls;
} log_ = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct line {
        char text[LINE];
        size_t used;
};

// One byte is kept for the newline: a line that is too long is cut, and still ends.
static void put(struct line *line, const char *text, size_t size) {
        if (size > LINE - 2 - line->used)
                size = LINE - 2 - line->used;
        memcpy(line->text + line->used, text, size);
        line->used += size;
}

// As much of it as the line takes; what is not UTF-8 becomes U+FFFD, since JSON is UTF-8.
static void put_string(struct line *line, const char *text) {
        const unsigned char *at = (const unsigned char *)text, *end = at + strlen(text);
        put(line, "\"", 1);
        for (size_t size; at < end && line->used < LINE - 64; at += size) {
                char escaped[8];
                size = *at < 0x80 ? 1 : utf8_sequence(at, end);
                if (!size) {
                        put(line, "\\ufffd", 6);
                        size = 1;
                } else if (*at == '"' || *at == '\\')
                        put(line, (char[]){'\\', (char)*at}, 2);
                else if (*at < 0x20 || *at == 0x7f)
                        put(line, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", *at));
                else
                        put(line, (const char *)at, size);
        }
        put(line, "\"", 1);
}

static void put_field(struct line *line, const char *name, const char *value) {
        if (!value || !*value || line->used > LINE - 256)
                return;
        put(line, ",\"", 2);
        put(line, name, strlen(name));
        put(line, "\":", 2);
        put_string(line, value);
}

static void begin(struct line *line, const char *event) {
        struct timespec now;
        struct tm utc;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        char time_[48];
        size_t size = strftime(time_, sizeof time_, "%Y-%m-%dT%H:%M:%S", &utc);
        size += (size_t)snprintf(time_ + size, sizeof time_ - size, ".%03ldZ", now.tv_nsec / 1000000);
        line->used = 0;
        put(line, "{\"time\":\"", 9);
        put(line, time_, size);
        put(line, "\",\"event\":", 10);
        put_string(line, event);
}

static void write_all(const char *text, size_t size) {
        while (size) {
                ssize_t written = write(STDERR_FILENO, text, size);
                if (written <= 0)
                        return; // nobody to tell
                text += written;
                size -= (size_t)written;
        }
}

static void flush_locked(void) {
        write_all(log_.text, log_.used);
        log_.used = 0;
}

void log_flush(void) {
        pthread_mutex_lock(&log_.lock);
        flush_locked();
        pthread_mutex_unlock(&log_.lock);
}

static void finish(struct line *line, bool now) {
        line->text[line->used++] = '}';
        line->text[line->used++] = '\n';
        pthread_mutex_lock(&log_.lock);
        if (log_.used + line->used > BUFFER)
                flush_locked();
        memcpy(log_.text + log_.used, line->text, line->used);
        log_.used += line->used;
        if (now)
                flush_locked();
        pthread_mutex_unlock(&log_.lock);
}

void log_event(const char *event, ...) {
        struct line line;
        begin(&line, event);
        va_list args;
        va_start(args, event);
        for (const char *name; (name = va_arg(args, const char *));)
                put_field(&line, name, va_arg(args, const char *));
        va_end(args);
        line.used = line.used > LINE - 3 ? LINE - 3 : line.used;
        finish(&line, true);
}

void log_set_calls(enum log_calls which) { log_.calls = which; }

void log_call(const struct log_call *call) {
        bool refused = strcmp(call->code, "OK") != 0;
        if (log_.calls == LOG_CALLS_NONE || (log_.calls == LOG_CALLS_REFUSED && !refused))
                return;
        struct line line;
        begin(&line, "call");
        put_field(&line, "method", call->method);
        put_field(&line, "code", call->code);
        put_field(&line, "reason", call->reason);
        put_field(&line, "caller", call->caller);
        put_field(&line, "organization", call->organization);
        put_field(&line, "request_id", call->request_id);
        put_field(&line, "peer", call->peer);
        put_field(&line, "failure", call->failure);
        char number[48];
        put(&line, number, (size_t)snprintf(number, sizeof number, ",\"ms\":%.3f", call->milliseconds));
        line.used = line.used > LINE - 3 ? LINE - 3 : line.used;
        finish(&line, false);
}
