#include "tools/genie/ocsf.h"

#include "tools/genie/memory.h"
#include "tools/genie/ocsf_framer.h"
#include "tools/genie/ocsf_source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_SIZE = 64 << 10, RUN_ID_MAX = 100 };

static const char gap[] = "something is missing between two records";

struct run {
        char id[RUN_ID_MAX + 1];
        int64_t time_us;
        const char *cut; // why it is not whole; NULL: nothing known
};

struct ocsf_reader {
        struct ocsf_source *source;
        struct ocsf_framer *framer;
        struct ocsf_item item;
        // What the framing said since the last readable record, and whether one was refused since.
        bool begins_array, cut_before, refused;
        struct run runs[OCSF_RUNS_MAX];
        unsigned n_runs;
        bool ended;
        enum source_result result;
        int failure;
        size_t at, size;
        char chunk[CHUNK_SIZE];
};

struct ocsf_reader *ocsf_reader_new(FILE *file) {
        struct ocsf_reader *reader = must(calloc(1, sizeof *reader));

        reader->source = must(ocsf_source_new(file));
        reader->framer = must(ocsf_framer_new());
        return reader;
}

void ocsf_reader_free(struct ocsf_reader *reader) {
        if (!reader)
                return;
        ocsf_record_drop(&reader->item.record);
        ocsf_source_free(reader->source);
        ocsf_framer_free(reader->framer);
        free(reader);
}

// The next record's bytes. False: there are no more.
static bool next_frame(struct ocsf_reader *reader, struct ocsf_frame *ret_frame) {
        while (!reader->ended) {
                size_t taken = 0;
                bool framed = ocsf_framer_feed(
                        reader->framer, reader->chunk + reader->at, reader->size - reader->at, &taken, ret_frame);
                reader->at += taken;
                if (framed)
                        return true;
                reader->at = 0;
                reader->result = ocsf_source_read(reader->source, reader->chunk, CHUNK_SIZE, &reader->size);
                if (reader->result == SOURCE_DATA)
                        continue;
                reader->failure = reader->result == SOURCE_FAILED ? errno : 0;
                reader->ended = true;
                // The last word of data that was cut is no word.
                return reader->result == SOURCE_END && ocsf_framer_end(reader->framer, ret_frame);
        }
        return false;
}

static bool same_run(const struct ocsf_reader *reader, const struct ocsf_record *record) {
        const struct run *run = &reader->runs[reader->n_runs - 1];

        if (*run->id && *record->run)
                return strncmp(run->id, record->run, RUN_ID_MAX) == 0;
        return !reader->begins_array || (*run->id == *record->run && run->time_us == record->time_us);
}

static bool was_run(const struct ocsf_reader *reader, const char *id) {
        for (unsigned i = 0; *id && i < reader->n_runs; i++) {
                if (strncmp(reader->runs[i].id, id, RUN_ID_MAX) == 0)
                        return true;
        }
        return false;
}

// The record begins another run: says what the end of the one and the beginning of the other lack.
static void begin_run(struct ocsf_reader *reader, bool in_array) {
        static const char mixed[] = "records of two runs are mixed in one array";
        const struct ocsf_record *record = &reader->item.record;
        struct run *run = &reader->runs[reader->n_runs];

        *run = (struct run){.time_us = record->time_us};
        memccpy(run->id, record->run, '\0', RUN_ID_MAX);
        if (reader->n_runs > 0) {
                struct run *previous = run - 1;
                bool is_mixed = !reader->begins_array && in_array;
                if (!previous->cut && reader->cut_before)
                        previous->cut = "another run begins before its closing bracket";
                else if (!previous->cut && is_mixed)
                        previous->cut = mixed;
                if (is_mixed)
                        run->cut = mixed;
                else if (reader->refused)
                        run->cut = "its first records cannot be read";
                reader->item.previous_cut = previous->cut;
        } else if (reader->cut_before) {
                run->cut = "its beginning is missing";
        }
        reader->n_runs++;
}

// Finds the run of a readable record; may refuse it.
static void place(struct ocsf_reader *reader, bool in_array) {
        struct ocsf_record *record = &reader->item.record;

        if (reader->n_runs > 0 && same_run(reader, record)) {
                if (reader->cut_before)
                        reader->runs[reader->n_runs - 1].cut = gap;
        } else if (was_run(reader, record->run)) {
                ocsf_record_refuse(record, "RUN_MIXED", "it is of a run that another run in this file ended");
        } else if (reader->n_runs == OCSF_RUNS_MAX) {
                ocsf_record_refuse(record, "RUNS_TOO_MANY", "the file holds more than %d runs", OCSF_RUNS_MAX);
        } else {
                begin_run(reader, in_array);
        }
        if (!record->reason)
                reader->begins_array = reader->cut_before = reader->refused = false;
}

struct ocsf_item *ocsf_reader_next(struct ocsf_reader *reader) {
        struct ocsf_item *item = &reader->item;
        struct ocsf_frame frame;

        ocsf_record_drop(&item->record);
        if (!next_frame(reader, &frame))
                return NULL;
        item->number++;
        item->offset = frame.offset;
        item->data = frame.data;
        item->size = frame.size;
        item->previous_cut = NULL;
        reader->begins_array |= frame.begins_array;
        reader->cut_before |= frame.cut_before;
        if (frame.data)
                ocsf_record_parse(&item->record, frame.data, frame.size);
        else
                ocsf_record_refuse(&item->record, "RECORD_TOO_LARGE", "it is larger than %d bytes", OCSF_RECORD_MAX);
        if (!item->record.reason)
                place(reader, frame.in_array);
        reader->refused |= item->record.reason != NULL;
        item->run = reader->n_runs > 0 ? reader->n_runs - 1 : 0;
        return item;
}

const char *ocsf_reader_cut(const struct ocsf_reader *reader) {
        const char *missing = ocsf_framer_missing(reader->framer);

        if (reader->result == SOURCE_CUT)
                return "its gzip data is cut or damaged";
        if (missing)
                return missing;
        if (reader->cut_before)
                return gap;
        return reader->n_runs > 0 ? reader->runs[reader->n_runs - 1].cut : NULL;
}

bool ocsf_reader_failed(const struct ocsf_reader *reader, int *ret_errno) {
        *ret_errno = reader->failure;
        return reader->result == SOURCE_FAILED;
}

uint64_t ocsf_reader_consumed(const struct ocsf_reader *reader) { return ocsf_source_consumed(reader->source); }
