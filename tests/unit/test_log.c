// Whatever is logged, a line is one JSON object, and says what it was given as far as it fits.
#include "server/log.h"
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_SIZE = 4096, READ_MAX = 4 << 20 };

static int log_file, standard_error;

// From here to lines_end, standard error is a file.
static void lines_begin(void) {
        char name[] = "/tmp/genie-test-XXXXXX";
        fflush(stderr);
        log_file = mkstemp(name);
        standard_error = dup(STDERR_FILENO);
        assert_true(log_file >= 0 && standard_error >= 0);
        unlink(name);
        assert_int_equal(dup2(log_file, STDERR_FILENO), STDERR_FILENO);
}

// What was written, each line as an object; an array of them. The caller drops it.
static json_t *lines_end(void) {
        char *text = malloc(READ_MAX);
        assert_non_null(text);
        ssize_t size = pread(log_file, text, READ_MAX - 1, 0);
        assert_int_equal(dup2(standard_error, STDERR_FILENO), STDERR_FILENO);
        close(standard_error);
        close(log_file);
        assert_true(size >= 0);
        text[size] = 0;
        json_t *lines = json_array();
        for (char *at = text, *end; *at; at = end + 1) {
                json_error_t error;
                end = strchr(at, '\n');
                assert_non_null(end);
                assert_true(end - at < LINE_MAX_SIZE);
                json_t *line = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, &error);
                if (!line)
                        fail_msg("%s: %.*s", error.text, (int)(end - at), at);
                json_array_append_new(lines, line);
        }
        free(text);
        return lines;
}

static const char *text_of(const json_t *line, const char *key) {
        return json_string_value(json_object_get(line, key));
}

// The one line that was logged.
static json_t *line_end(void) {
        json_t *lines = lines_end();
        assert_int_equal(json_array_size(lines), 1);
        json_t *line = json_incref(json_array_get(lines, 0));
        json_decref(lines);
        return line;
}

static void test_event(void **) {
        lines_begin();
        log_event("started", "port", "8443", "empty", "", "none", (const char *)NULL, "last", "x", NULL);
        json_t *line = line_end();
        assert_string_equal(text_of(line, "event"), "started");
        assert_string_equal(text_of(line, "port"), "8443");
        assert_string_equal(text_of(line, "last"), "x");
        assert_int_equal(json_object_size(line), 4); // what is empty is left out
        unsigned year, month, day, hour, minute, second, milli;
        char end;
        assert_int_equal(sscanf(text_of(line, "time"), "%4u-%2u-%2uT%2u:%2u:%2u.%3u%c", &year, &month, &day, &hour,
                                 &minute, &second, &milli, &end),
                8);
        assert_int_equal(end, 'Z');
        json_decref(line);
}

static void test_call(void **) {
        lines_begin();
        log_call(&(struct log_call){.method = "a.B.C", .code = "OK", .request_id = "r", .milliseconds = 1.25});
        log_flush();
        json_t *line = line_end();
        assert_string_equal(text_of(line, "event"), "call");
        assert_string_equal(text_of(line, "method"), "a.B.C");
        assert_string_equal(text_of(line, "code"), "OK");
        assert_string_equal(text_of(line, "request_id"), "r");
        assert_null(json_object_get(line, "reason"));
        assert_true(json_number_value(json_object_get(line, "ms")) > 1.2);
        json_decref(line);
}

static const struct {
        const char *text, *read;
} hostile[] = {
        {"\"},{\"event\":\"forged\"", NULL},
        {"\\", NULL},
        {"\\u0000\\n", NULL},
        {"line\nfeed\r\ttab\x01\x1f\x7f\x1b[31m", NULL},
        {"<script>&amp;'", NULL},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", NULL},
        {"\xff", "\xef\xbf\xbd"},
        {"a\xc3", "a\xef\xbf\xbd"},
        {"\xe2\x82z", "\xef\xbf\xbd\xef\xbf\xbdz"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
};

static void test_hostile_texts(void **) {
        for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
                lines_begin();
                log_event(hostile[i].text, "detail", hostile[i].text, NULL);
                json_t *line = line_end();
                const char *expected = hostile[i].read ? hostile[i].read : hostile[i].text;
                assert_string_equal(text_of(line, "event"), expected);
                assert_string_equal(text_of(line, "detail"), expected);
                json_decref(line);
        }
}

// The cut falls on every place of an escape and of a sequence.
static void test_long_texts_are_cut(void **) {
        static const char *const parts[] = {"a", "\"", "\n", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xff"};
        static char text[9000];
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
                for (unsigned shift = 0; shift < 12; shift++) {
                        size_t size = strlen(parts[i]), used = shift;
                        memset(text, '.', shift);
                        for (; used + size < sizeof text; used += size)
                                memcpy(text + used, parts[i], size);
                        text[used] = 0;
                        lines_begin();
                        log_event("long", "detail", text, "second", text, "third", text, NULL);
                        log_call(&(struct log_call){.method = text,
                                .code = "INTERNAL",
                                .reason = text,
                                .caller = text,
                                .failure = text,
                                .milliseconds = 123456789.0});
                        log_flush();
                        json_t *lines = lines_end();
                        assert_int_equal(json_array_size(lines), 2);
                        const char *cut = text_of(json_array_get(lines, 0), "detail");
                        if ((unsigned char)*parts[i] != 0xff) {
                                assert_true(strlen(cut) > 500);
                                assert_memory_equal(cut, text, strlen(cut));
                        }
                        assert_non_null(json_object_get(json_array_get(lines, 1), "ms"));
                        json_decref(lines);
                }
}

static void test_lines_of_calls_wait_for_the_flush(void **) {
        lines_begin();
        for (unsigned i = 0; i < 3; i++)
                log_call(&(struct log_call){.method = "m", .code = "OK"});
        assert_int_equal(lseek(log_file, 0, SEEK_END), 0);
        log_event("at once", NULL); // with what waited before it
        assert_true(lseek(log_file, 0, SEEK_END) > 0);
        json_t *lines = lines_end();
        assert_int_equal(json_array_size(lines), 4);
        assert_string_equal(text_of(json_array_get(lines, 3), "event"), "at once");
        json_decref(lines);
}

static void log_one_of_each(void) {
        log_call(&(struct log_call){.method = "m", .code = "OK"});
        log_call(&(struct log_call){.method = "m", .code = "NOT_FOUND"});
        log_flush();
}

static void test_which_calls(void **) {
        lines_begin();
        log_set_calls(LOG_CALLS_REFUSED);
        log_one_of_each();
        log_set_calls(LOG_CALLS_NONE);
        log_one_of_each();
        log_set_calls(LOG_CALLS_ALL);
        json_t *line = line_end();
        assert_string_equal(text_of(line, "code"), "NOT_FOUND");
        json_decref(line);
}

static void *log_many(void *name) {
        for (unsigned i = 0; i < 2000; i++)
                log_call(&(struct log_call){.method = name, .code = "OK"});
        return NULL;
}

// More than the buffer holds, from several threads: no line is lost or mixed with another.
static void test_threads(void **) {
        static char names[4][2] = {"a", "b", "c", "d"};
        pthread_t threads[4];
        unsigned counts[4] = {0};
        lines_begin();
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
        for (unsigned i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        log_flush();
        json_t *lines = lines_end(), *line;
        size_t index;
        json_array_foreach(lines, index, line) counts[*text_of(line, "method") - 'a']++;
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(counts[i], 2000);
        json_decref(lines);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_event),
                cmocka_unit_test(test_call),
                cmocka_unit_test(test_hostile_texts),
                cmocka_unit_test(test_long_texts_are_cut),
                cmocka_unit_test(test_lines_of_calls_wait_for_the_flush),
                cmocka_unit_test(test_which_calls),
                cmocka_unit_test(test_threads),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
