#include "tools/genie/import_report.h"

#include "tools/genie/json.h"
#include "tools/genie/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { BAR_COLUMNS = 30 };

static double seconds_since(const struct timespec *then) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void report_begin(struct report *report, const char *path, bool json) {
        *report = (struct report){.path = path, .json = json, .terminal = terminal_width(stderr)};
        clock_gettime(CLOCK_MONOTONIC, &report->began);
}

void report_begin_run(struct report *report) {
        report->server_seen = report->refused = 0;
        report->n_reasons = report->n_first = 0;
}

static void count_refusal(
        struct report *report, int64_t number, int64_t offset, const char *reason, const char *message) {
        size_t i = 0;

        report->refused++;
        while (i < report->n_reasons && strcmp(report->reasons[i].reason, reason) != 0)
                i++;
        if (i >= REPORT_REASONS - 1) {
                i = REPORT_REASONS - 1;
                reason = "other reasons";
        }
        if (i >= report->n_reasons) {
                report->n_reasons = i + 1;
                report->reasons[i].count = 0;
                snprintf(report->reasons[i].reason, sizeof report->reasons[i].reason, "%s", reason);
        }
        report->reasons[i].count++;
        if (report->n_first == REPORT_FIRST)
                return;
        struct refusal *first = &report->first[report->n_first++];
        *first = (struct refusal){.number = number, .offset = offset};
        snprintf(first->reason, sizeof first->reason, "%s", reason);
        snprintf(first->message, sizeof first->message, "%s", message);
}

void report_refusal(struct report *report, int64_t number, int64_t offset, const char *reason, const char *message) {
        if (number <= report->reader_seen)
                return;
        report->reader_seen = number;
        count_refusal(report, number, offset, reason, message);
}

void report_server_refusal(
        struct report *report, int64_t number, int64_t offset, const char *reason, const char *message) {
        count_refusal(report, number, offset, reason, message);
}

void report_clear(struct report *report) {
        if (report->drawn)
                fputs("\r\033[K", stderr);
        report->drawn = false;
}

void report_progress(struct report *report, int64_t records, uint64_t consumed, uint64_t size) {
        char number[GROUPED_SIZE], bar[BAR_COLUMNS + 1];

        if (!report->terminal || (report->drawn && seconds_since(&report->drawn_at) < 0.1))
                return;
        clock_gettime(CLOCK_MONOTONIC, &report->drawn_at);
        report->drawn = true;
        if (size == 0) {
                fprintf(stderr, "\r%s records\033[K", grouped(records, number));
                return;
        }
        unsigned percent = consumed >= size ? 100 : (unsigned)(consumed * 100 / size);
        size_t full = percent * BAR_COLUMNS / 100;
        memset(bar, '=', full);
        memset(bar + full, ' ', BAR_COLUMNS - full);
        bar[BAR_COLUMNS] = '\0';
        fprintf(stderr, "\r[%s] %3u %%  %s records\033[K", bar, percent, grouped(records, number));
}

static const char *count_of(int64_t number) {
        static char buffers[8][GROUPED_SIZE];
        static unsigned next;

        return grouped(number, buffers[next++ % 8]);
}

static void print_counts(const Devopsgenie__V1__Scan *scan) {
        static const Devopsgenie__V1__ResultCounts no_results = DEVOPSGENIE__V1__RESULT_COUNTS__INIT;
        static const Devopsgenie__V1__FindingCounts no_findings = DEVOPSGENIE__V1__FINDING_COUNTS__INIT;
        const Devopsgenie__V1__ResultCounts *results = scan->results ? scan->results : &no_results;
        const Devopsgenie__V1__FindingCounts *findings = scan->findings ? scan->findings : &no_findings;

        printf("Results   %s passed, %s failed (%s muted by the scanner), %s for a person to look at\n",
                count_of(results->pass), count_of(results->fail), count_of(results->muted), count_of(results->manual));
        printf("Findings  %s new, %s still failing, %s reopened, %s resolved (%s passed, %s no longer reported)\n",
                count_of(findings->created), count_of(findings->unchanged), count_of(findings->regressed),
                count_of((int64_t)findings->passed + findings->unreported), count_of(findings->passed),
                count_of(findings->unreported));
        printf("Refused   %s\n", count_of(results->refused));
}

void report_print_refusals(const struct report *report, FILE *out, const char *indent) {
        for (size_t i = 0; i < report->n_first; i++) {
                const struct refusal *refusal = &report->first[i];
                fprintf(out, "%srecord %" PRId64, indent, refusal->number);
                if (refusal->offset >= 0)
                        fprintf(out, ", byte %" PRId64, refusal->offset);
                fputs(": ", out);
                put_text(out, refusal->reason);
                fputs(": ", out);
                put_text(out, refusal->message);
                fputc('\n', out);
        }
        if (report->refused > (int64_t)report->n_first)
                fprintf(out, "%sand %s more\n", indent, count_of(report->refused - (int64_t)report->n_first));
}

static void print_reasons(const struct report *report) {
        for (size_t i = 0; i < report->n_reasons; i++) {
                printf("  %s ", count_of(report->reasons[i].count));
                put_text(stdout, report->reasons[i].reason);
                putchar('\n');
        }
}

static void print_json(const struct report *report, const Devopsgenie__V1__Scan *scan, unsigned run, int64_t records,
        const char *cut) {
        json_t *object = json_object(), *reasons = json_object(), *first = json_array();

        for (size_t i = 0; i < report->n_reasons; i++)
                json_object_set_new(reasons, report->reasons[i].reason, json_integer(report->reasons[i].count));
        for (size_t i = 0; i < report->n_first; i++) {
                const struct refusal *refusal = &report->first[i];
                json_t *row = json_object();
                json_object_set_new(row, "record", json_integer(refusal->number));
                json_object_set_new(row, "byte", refusal->offset >= 0 ? json_integer(refusal->offset) : json_null());
                json_object_set_new(row, "reason", json_text(refusal->reason));
                json_object_set_new(row, "message", json_text(refusal->message));
                json_array_append_new(first, row);
        }
        json_object_set_new(object, "run", json_integer(run + 1));
        json_object_set_new(object, "records", json_integer(records));
        json_object_set_new(object, "cut", cut ? json_string(cut) : json_null());
        json_object_set_new(object, "refusedByReason", reasons);
        json_object_set_new(object, "firstRefused", first);
        json_object_set_new(object, "scan", json_message(&scan->base));
        json_print(stdout, object);
}

void report_summary(
        struct report *report, const Devopsgenie__V1__Scan *scan, unsigned run, int64_t records, const char *cut) {
        report_clear(report);
        if (report->json) {
                print_json(report, scan, run, records, cut);
                return;
        }
        printf("Imported  %s records of ", count_of(records));
        put_text(stdout, report->path);
        if (run > 0)
                printf(", run %u", run + 1);
        printf(" in %.1f s\nScan      ", seconds_since(&report->began));
        put_text(stdout, scan->name);
        printf("%s%s%s\n", scan->partial ? ", partial" : "", cut ? ": " : "", cut ? cut : "");
        print_counts(scan);
        print_reasons(report);
        report_print_refusals(report, stdout, "  ");
}
