// What an import tells its user: progress while it runs, a summary in the end.
#pragma once

#include "devopsgenie/v1/scan_service.pb-c.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { REPORT_REASONS = 32, REPORT_FIRST = 10 };

struct refusal {
        int64_t number, offset; // of the record in the file; offset -1: not known
        char reason[64], message[240];
};

struct report {
        const char *path;
        bool json;
        unsigned terminal; // columns of standard error; 0: no progress bar
        bool drawn;
        struct timespec began, drawn_at;

        // Refusals of the run at hand. A record is counted once, however often it is read or sent.
        int64_t reader_seen, server_seen; // positions up to which they are counted
        int64_t refused;
        struct {
                char reason[64];
                int64_t count;
        } reasons[REPORT_REASONS]; // the last one takes what has no place
        size_t n_reasons;
        struct refusal first[REPORT_FIRST];
        size_t n_first;
};

void report_begin(struct report *report, const char *path, bool json);

// A new run: nothing of it is refused yet.
void report_begin_run(struct report *report);

// The reader refused a record of the file; `number` and `offset` are its place in it.
void report_refusal(struct report *report, int64_t number, int64_t offset, const char *reason, const char *message);

// The server refused results of a batch that ends before `next`; offset -1: not known.
void report_server_refusal(
        struct report *report, int64_t number, int64_t offset, const char *reason, const char *message);

void report_progress(struct report *report, int64_t records, uint64_t consumed, uint64_t size);

// Takes the progress bar away, so that something else can be printed.
void report_clear(struct report *report);

// Prints the first refusals, a line each.
void report_print_refusals(const struct report *report, FILE *out, const char *indent);

// Prints a run's summary: `scan` as the server has it, `records` of the file, why it is cut (NULL: it is not), and
// where the file holds several runs, which one it was (from 0).
void report_summary(
        struct report *report, const Devopsgenie__V1__Scan *scan, unsigned run, int64_t records, const char *cut);
