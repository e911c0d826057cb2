// A batch of an import, packed as it grows: on the wire a repeated field is nothing but its elements one after the
// other, so a batch is a buffer, and sending it again costs nothing.
#pragma once

#include "tools/genie/import_seen.h"
#include "tools/genie/ocsf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        BATCH_RECORDS_MAX = 1000,
        BATCH_SIZE_MAX = 1 << 20, // bytes, a quarter of what the server takes
};

// What one record adds to a batch.
struct piece {
        uint8_t *data;
        size_t size, capacity;
        size_t checks, resources, evaluations, refused;
};

struct batch {
        int64_t first; // of its records in the import, from 1
        size_t records;
        bool sent;
        struct piece body;                   // behind BATCH_HEAD bytes of room for what stands before it
        uint64_t offsets[BATCH_RECORDS_MAX]; // of its records in the file
};

// Packs a record, as position `record` of the import, with what was not described yet. One that packs to more than
// a batch holds is refused, in its place. The item's record says afterwards what became of it.
void piece_pack(struct piece *piece, struct ocsf_item *item, int64_t record, struct seen *described);
void piece_free(struct piece *piece);

struct batch *batch_new(int64_t first);
void batch_free(struct batch *batch);

// Adds a record's piece. False: it does not fit, and the batch is full.
bool batch_add(struct batch *batch, const struct piece *piece, uint64_t offset) __attribute__((warn_unused_result));

// Puts the head before the body, once: an ImportResultsRequest, valid as long as the batch.
const uint8_t *batch_finish(struct batch *batch, size_t *ret_size);
