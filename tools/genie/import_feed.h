// A file's runs as batches: what was read and is not acknowledged, and the way back to any record.
#pragma once

#include "tools/genie/import_batch.h"
#include "tools/genie/import_report.h"
#include "tools/genie/import_seen.h"
#include "tools/genie/ocsf.h"

#include <stdbool.h>
#include <stdint.h>

enum { FEED_WINDOW = 16, FEED_TEXT_MAX = 256, DIGEST_SIZE = 32 };

// What the first readable record of a run says of the scan.
struct scan_head {
        char provider[FEED_TEXT_MAX], account_uid[FEED_TEXT_MAX], scanner[101], scanner_version[101];
        int64_t time_us;
        uint8_t digest[DIGEST_SIZE]; // SHA-256 of the record's bytes
};

struct feed {
        const char *path; // "-": standard input
        bool seekable;
        uint64_t file_size; // 0: unknown
        struct report *report;
        struct ocsf_reader *reader;
        struct ocsf_item *item; // the next record; NULL: not read yet
        bool read_ended;
        struct seen described;
        struct piece piece; // of the next record, when it is packed
        bool packed;

        // The run at hand. Its records are counted from 1.
        unsigned run;
        int64_t base; // records of the file before it
        int64_t next; // the record that the next batch begins with
        bool run_ended;
        const char *cut; // once it ended: why it is not whole; NULL: it is
        bool has_head;
        struct scan_head head;
        struct batch *window[FEED_WINDOW]; // not acknowledged, in order
        size_t n_window;
};

// False: the file cannot be read, which was printed.
bool feed_open(struct feed *feed, const char *path, struct report *report);
void feed_close(struct feed *feed);

// Goes on to the next run. False: there is none.
bool feed_begin_run(struct feed *feed);

// Reads one more batch into the window. False: the window is full, or the run ended.
bool feed_fill(struct feed *feed);

// The first batch of the window that is not sent; NULL: none.
struct batch *feed_unsent(struct feed *feed);

// Lets go of what lies before a record.
void feed_acknowledge(struct feed *feed, int64_t next_record);

// Makes `next_record` the next to be sent, reading the file again where it must be. False: that cannot be done,
// which was printed.
bool feed_resume(struct feed *feed, int64_t next_record);

// Where a record of the run begins in the file, if it is in the window; -1: it is not.
int64_t feed_offset(const struct feed *feed, int64_t record);

// Whether reading the file failed, which is then printed.
bool feed_failed(const struct feed *feed);
