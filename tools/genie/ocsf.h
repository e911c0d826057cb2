// Reads a scanner's results in OCSF, record after record, in bounded memory whatever the file's size.
//
// The input is an array, JSON lines or values one after the other, plain or gzip. A file may hold several runs of a
// scanner, one appended to the other: each record says to which it belongs. A run ends where
//   - an array ends, or a comma between two records is missing, and the next record has another run id (or, where
//     the scanner gives none, another time);
//   - the run id changes between two records, without such a sign. Inside one array that is another tool's mixture,
//     whose parts cannot be taken for whole: both are cut.
// A run that comes back after another began is refused (RUN_MIXED), and so is what comes after RUNS_MAX runs.
#pragma once

#include "tools/genie/ocsf_record.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { OCSF_RUNS_MAX = 16 };

struct ocsf_reader;

struct ocsf_item {
        struct ocsf_record record; // the reader's
        int64_t number;            // of the record in the file, from 1
        uint64_t offset;           // of its first byte in the uncompressed file, from 0
        const char *data;          // its bytes; NULL for one that is too large
        size_t size;
        unsigned run;             // from 0
        const char *previous_cut; // with the first record of a run: why the run before it is not whole, or NULL
};

// Reads a file from where it stands, and closes it in the end.
struct ocsf_reader *ocsf_reader_new(FILE *file);
void ocsf_reader_free(struct ocsf_reader *reader);

// The next record, valid until the next call; NULL at the end.
struct ocsf_item *ocsf_reader_next(struct ocsf_reader *reader);

// After the end: why the last run is not whole, for people ("it ends inside a record"); NULL: it is.
const char *ocsf_reader_cut(const struct ocsf_reader *reader);

// After the end: whether reading failed, with errno in *ret_errno.
bool ocsf_reader_failed(const struct ocsf_reader *reader, int *ret_errno);

// How many bytes of the file, as it lies on the disk, were read.
uint64_t ocsf_reader_consumed(const struct ocsf_reader *reader);
