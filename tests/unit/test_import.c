// The client's half of an import without a server: batches, the way back after a lost connection, what is printed.
#include "tools/genie/import_feed.h"
#include "tools/genie/ocsf_framer.h"
#include "tools/genie/options.h"
#include "tools/genie/request_id.h"
#include "tools/genie/terminal.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef Devopsgenie__V1__ImportBatch Batch;
typedef Devopsgenie__V1__ImportResultsRequest Request;

#define REAL_FILE SOURCE_DIR "/tests/data/aws-123456789012-scan1.ocsf.json.gz"
#define SMALLER_FILE SOURCE_DIR "/tests/data/kubernetes-demo-scan1.ocsf.json.gz"
enum { REAL_RECORDS = 10767, REAL_CHECKS = 311, REAL_RESOURCES = 1163, SMALLER_RECORDS = 2256, BATCHES_MAX = 100 };

// All batches of a run: their bytes as they were sent.
struct sent {
        struct {
                int64_t first;
                size_t size;
                uint8_t *data;
        } batches[BATCHES_MAX];
        size_t count;
};

static void send_one(struct sent *sent, struct batch *batch) {
        size_t size;
        const uint8_t *data = batch_finish(batch, &size);

        assert_true(sent->count < BATCHES_MAX);
        sent->batches[sent->count].first = batch->first;
        sent->batches[sent->count].size = size;
        sent->batches[sent->count].data = malloc(size);
        memcpy(sent->batches[sent->count++].data, data, size);
        batch->sent = true;
}

// Sends what there is, acknowledging a batch whenever the window is full, up to a record.
static void send_until(struct feed *feed, struct sent *sent, int64_t record) {
        while (feed->n_window > 0 || !feed->run_ended) {
                struct batch *batch = feed_unsent(feed);
                if (batch && batch->first >= record)
                        return;
                if (batch) {
                        send_one(sent, batch);
                } else if (!feed_fill(feed) && feed->n_window > 0) {
                        assert_true(feed->n_window <= FEED_WINDOW);
                        feed_acknowledge(feed, feed->window[0]->first + (int64_t)feed->window[0]->records);
                }
        }
}

static void drop(struct sent *sent) {
        for (size_t i = 0; i < sent->count; i++)
                free(sent->batches[i].data);
        sent->count = 0;
}

static Request *unpack(const struct sent *sent, size_t i) {
        Request *request = devopsgenie__v1__import_results_request__unpack(
                NULL, sent->batches[i].size, sent->batches[i].data);

        assert_non_null(request);
        assert_int_equal(request->part_case, DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH);
        return request;
}

static void test_batches(void **state) {
        struct report report = {.path = REAL_FILE};
        struct feed feed;
        struct sent sent = {0};
        size_t checks = 0, resources = 0, evaluations = 0;
        int64_t next = 1;

        (void)state;
        assert_true(feed_open(&feed, REAL_FILE, &report));
        assert_true(feed_begin_run(&feed));
        send_until(&feed, &sent, INT64_MAX);
        for (size_t i = 0; i < sent.count; i++) {
                Request *request = unpack(&sent, i);
                const Batch *batch = request->batch;
                assert_int_equal(batch->first_record, next);
                assert_in_range(batch->record_count, 1, BATCH_RECORDS_MAX);
                assert_true(sent.batches[i].size <= BATCH_SIZE_MAX + 100);
                for (size_t e = 0; e < batch->n_evaluations; e++)
                        assert_int_equal(batch->evaluations[e]->record, next + (int64_t)e);
                next += batch->record_count;
                checks += batch->n_checks;
                resources += batch->n_resources;
                evaluations += batch->n_evaluations;
                devopsgenie__v1__import_results_request__free_unpacked(request, NULL);
        }
        assert_int_equal(next, REAL_RECORDS + 1);
        assert_int_equal(evaluations, REAL_RECORDS);
        assert_int_equal(checks, REAL_CHECKS); // each described once
        assert_int_equal(resources, REAL_RESOURCES);
        assert_null(feed.cut);
        assert_string_equal(feed.head.provider, "aws");
        assert_string_equal(feed.head.account_uid, "123456789012");
        assert_string_equal(feed.head.scanner, "Prowler");
        assert_string_equal(feed.head.scanner_version, "5.46.0");
        assert_int_equal(feed.head.time_us, 1795455679000000);
        assert_false(feed_begin_run(&feed));
        drop(&sent);
        feed_close(&feed);
}

// Wherever the server wants to go on, what it gets is byte for byte what it would have got.
static void test_resume(void **state) {
        struct report report = {.path = SMALLER_FILE};
        struct feed feed;
        struct sent all = {0}, again = {0};

        (void)state;
        assert_true(feed_open(&feed, SMALLER_FILE, &report));
        assert_true(feed_begin_run(&feed));
        send_until(&feed, &all, INT64_MAX);
        assert_true(all.count >= 3);
        for (size_t i = 0; i < all.count; i++) {
                assert_true(feed_resume(&feed, all.batches[i].first));
                send_until(&feed, &again, INT64_MAX);
                assert_int_equal(again.count, all.count - i);
                for (size_t n = 0; n < again.count; n++) {
                        assert_int_equal(again.batches[n].size, all.batches[i + n].size);
                        assert_memory_equal(again.batches[n].data, all.batches[i + n].data, all.batches[i + n].size);
                }
                drop(&again);
        }
        assert_true(feed_resume(&feed, SMALLER_RECORDS + 1));  // all is there: only the end is missing
        assert_false(feed_resume(&feed, SMALLER_RECORDS + 2)); // another file
        drop(&all);
        feed_close(&feed);
}

// What cannot be read again goes on with what is kept.
static void test_resume_of_a_pipe(void **state) {
        struct report report = {.path = "-"};
        struct feed feed;
        struct sent sent = {0};
        int ends[2];

        (void)state;
        assert_int_equal(pipe(ends), 0);
        pid_t cat = fork();
        if (cat == 0) {
                dup2(ends[1], STDOUT_FILENO);
                close(ends[0]);
                close(ends[1]);
                execlp("cat", "cat", REAL_FILE, (char *)NULL);
                _exit(127);
        }
        assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
        close(ends[0]);
        close(ends[1]);
        assert_true(feed_open(&feed, "-", &report));
        assert_false(feed.seekable);
        assert_true(feed_begin_run(&feed));
        while (feed.n_window < 5)
                assert_true(feed_fill(&feed));
        for (struct batch *batch; (batch = feed_unsent(&feed));)
                send_one(&sent, batch);
        assert_true(feed_resume(&feed, sent.batches[2].first));
        assert_int_equal(feed.n_window, 3);
        assert_false(feed.window[0]->sent);
        assert_false(feed_resume(&feed, 1));
        drop(&sent);
        feed_close(&feed); // and the pipe: cat ends
        assert_int_equal(waitpid(cat, NULL, 0), cat);
}

static void write_file(const char *path, const char *text) {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        fputs(text, file);
        assert_int_equal(fclose(file), 0);
}

#define RECORD(run, status)                                                                                            \
        "{\"class_uid\":2004,\"metadata\":{\"event_code\":\"c\"},\"time\":1795455679,\"cloud\":{\"account\":{\"uid\":" \
        "\"1\"}},\"resources\":[{\"uid\":\"u\"},{\"uid\":\"v\"}],\"status_code\":\"" status                            \
        "\",\"unmapped\":{\"scan_id\":\"" run "\"}}"

static void test_runs_and_refusals(void **state) {
        char path[] = "/tmp/genie-test-XXXXXX";
        int fd = mkstemp(path);
        struct report report = {.path = path};
        struct feed feed;
        struct sent sent = {0};

        (void)state;
        assert_true(fd >= 0);
        close(fd);
        write_file(path, "[{\"class_uid\":2003}," RECORD("a", "FAIL") "]" RECORD("b", "PASS") "," RECORD("b", "?"));
        assert_true(feed_open(&feed, path, &report));
        assert_true(feed_begin_run(&feed));
        send_until(&feed, &sent, INT64_MAX);
        assert_int_equal(feed.next, 3);
        assert_null(feed.cut);
        Request *request = unpack(&sent, 0);
        assert_int_equal(request->batch->record_count, 2);
        assert_int_equal(request->batch->n_refused, 1);
        assert_int_equal(request->batch->refused[0]->record, 1);
        assert_string_equal(request->batch->refused[0]->reason, "CLASS_UNSUPPORTED");
        assert_int_equal(request->batch->n_evaluations, 2);
        assert_int_equal(request->batch->evaluations[1]->record, 2);
        devopsgenie__v1__import_results_request__free_unpacked(request, NULL);
        drop(&sent);
        assert_int_equal(report.refused, 1);

        report_begin_run(&report);
        assert_true(feed_begin_run(&feed));
        send_until(&feed, &sent, INT64_MAX);
        assert_true(feed_resume(&feed, 1)); // refusals are counted once, however often they are read
        drop(&sent);
        send_until(&feed, &sent, INT64_MAX);
        assert_non_null(feed.cut);
        assert_int_equal(feed.base, 2);
        assert_int_equal(report.refused, 1);
        assert_int_equal(report.first[0].number, 4);
        request = unpack(&sent, 0);
        assert_int_equal(request->batch->first_record, 1);
        assert_int_equal(request->batch->refused[0]->record, 2);
        assert_int_equal(request->batch->n_checks, 1);
        devopsgenie__v1__import_results_request__free_unpacked(request, NULL);
        drop(&sent);
        assert_false(feed_begin_run(&feed));
        feed_close(&feed);
        unlink(path);
}

// A record that packs to more than its JSON has bytes is refused, and what it described is not taken for described.
static void test_piece_too_large(void **state) {
        enum { NUMBERS = 200000 };
        struct ocsf_item item = {.number = 1};
        struct piece piece = {0};
        struct seen described;
        char *json = NULL;
        size_t size;
        FILE *text = open_memstream(&json, &size);

        (void)state;
        fputs("{\"class_uid\":2004,\"metadata\":{\"event_code\":\"c\"},\"time\":1795455679,\"cloud\":{\"account\":"
              "{\"uid\":\"1\"}},\"status_code\":\"FAIL\",\"resources\":[{\"uid\":\"u\",\"data\":{\"metadata\":[1e9",
                text);
        for (size_t i = 0; i < NUMBERS; i++)
                fputs(",1e9", text);
        fputs("]}}]}", text);
        fclose(text);
        assert_true(size < OCSF_RECORD_MAX);
        seen_init(&described);
        ocsf_record_parse(&item.record, json, size);
        assert_null(item.record.reason);
        piece_pack(&piece, &item, 1, &described);
        assert_string_equal(item.record.reason, "RECORD_TOO_LARGE");
        assert_int_equal(piece.refused, 1);
        assert_int_equal(piece.evaluations, 0);
        assert_true(piece.size < 500);
        assert_true(seen_add(&described, 'c', "c", ""));
        ocsf_record_drop(&item.record);
        piece_free(&piece);
        seen_free(&described);
        free(json);
}

static void test_seen(void **state) {
        struct seen seen;
        char key[32];

        (void)state;
        seen_init(&seen);
        assert_true(seen_add(&seen, 'r', "a", "bc"));
        assert_false(seen_add(&seen, 'r', "a", "bc"));
        assert_true(seen_add(&seen, 'r', "ab", "c"));
        assert_true(seen_add(&seen, 'c', "a", "bc"));
        for (int i = 0; i < 600000; i++) { // more than it holds
                snprintf(key, sizeof key, "%d", i);
                assert_true(seen_add(&seen, 'r', key, ""));
        }
        assert_false(seen_add(&seen, 'r', key, ""));
        seen_free(&seen);
}

static void assert_shown(const char *text, unsigned width, const char *expected) {
        char *shown = NULL;
        size_t size;
        FILE *out = open_memstream(&shown, &size);

        if (width)
                put_column(out, text, width);
        else
                put_text(out, text);
        fclose(out);
        assert_string_equal(shown, expected);
        free(shown);
}

static void test_terminal(void **state) {
        char number[GROUPED_SIZE];

        (void)state;
        setlocale(LC_CTYPE, "C.UTF-8");
        assert_shown("plain", 0, "plain");
        assert_shown("\033[31m\r\n\t\177", 0, "\\x1b[31m\\x0d\\x0a\\x09\\x7f");
        assert_shown("\xc2\x9b", 0, "\\u{009b}");
        assert_shown("a\xe2\x80\xae"
                     "b",
                0, "a\\u{202e}b"); // right-to-left override
        assert_shown("\xff\xc3", 0, "\\xff\\xc3");
        assert_shown("\xe6\xbc\xa2\xc3\xa9", 0, "\xe6\xbc\xa2\xc3\xa9");
        assert_shown("ab", 5, "ab   ");
        assert_shown("abcde", 5, "abcde");
        assert_shown("abcdef", 5, "ab...");
        assert_shown("\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2", 5, "\xe6\xbc\xa2..."); // two columns each
        assert_string_equal(grouped(0, number), "0");
        assert_string_equal(grouped(999, number), "999");
        assert_string_equal(grouped(10767, number), "10,767");
        assert_string_equal(grouped(-1234567, number), "-1,234,567");
}

static void test_options(void **state) {
        static char genie[] = "genie", import[] = "import", ocsf[] = "ocsf", file[] = "f",
                    services[] = "--services=a,b", account[] = "--account", name[] = "x", secret[] = "--token=abc";
        char *good[] = {genie, import, ocsf, services, file, account, name, NULL};
        char *bad[] = {genie, import, ocsf, file, secret, NULL};
        struct options options;
        int status;

        (void)state;
        assert_true(options_read(&options, 7, good, &status));
        assert_int_equal(options.command, COMMAND_IMPORT);
        assert_string_equal(options.argument, "f");
        assert_string_equal(options.values[OPTION_SERVICES], "a,b");
        assert_string_equal(options.values[OPTION_ACCOUNT], "x");
        assert_false(options_read(&options, 5, bad, &status)); // a secret on the command line
        assert_int_equal(status, EXIT_USAGE);
        assert_int_equal(read_duration("90s"), 90);
        assert_int_equal(read_duration("12h"), 43200);
        assert_int_equal(read_duration("12"), 0);
        assert_int_equal(read_duration("-1h"), 0);
        assert_int_equal(read_duration("1hour"), 0);
        assert_int_equal(read_duration(""), 0);
}

static void test_request_id(void **state) {
        static const uint8_t bytes[16] = {0, 1, 2, 3, 4, 5, 0xf6, 7, 0xff, 9, 10, 11, 12, 13, 14, 15};
        char text[REQUEST_ID_SIZE];

        (void)state;
        request_id_format(bytes, text);
        assert_string_equal(text, "00010203-0405-8607-bf09-0a0b0c0d0e0f");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_batches),
                cmocka_unit_test(test_resume),
                cmocka_unit_test(test_resume_of_a_pipe),
                cmocka_unit_test(test_runs_and_refusals),
                cmocka_unit_test(test_piece_too_large),
                cmocka_unit_test(test_seen),
                cmocka_unit_test(test_terminal),
                cmocka_unit_test(test_options),
                cmocka_unit_test(test_request_id),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
