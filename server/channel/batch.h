// Messages that change the database, gathered: one statement of a kind is under way at a time, and what comes meanwhile
// waits in loads for the next. A statement that the database could not take is sent again until it is taken; all of
// them may come twice (migration 0011). One that it will never take is parted, until whose message is at fault is
// known: that session ends, and the others' messages are taken. Everything here under the channel's mutex.
#pragma once

#include "server/rpc/call.h"
#include "storage/arena.h"
#include "storage/storage.h"

#include <google/protobuf/duration.pb-c.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

struct channel;
struct session;

enum { LOAD_ITEMS = 1000, LOAD_BYTES = 4 << 20 };

// What goes with one statement.
struct load {
        struct load *next;
        struct load *whole; // of which it is a part, or itself: the items lie there
        unsigned parts;     // of a whole: how many there are
        struct arena arena;
        size_t bytes;
        unsigned count;
        struct session *sessions[LOAD_ITEMS]; // whose message an item is; held
        ProtobufCMessage *items[LOAD_ITEMS];
};

struct batch {
        struct storage_operation operation; // first
        struct channel *channel;
        enum internal_statement statement;
        ProtobufCMessage
                *container; // a message whose repeated field `items` is filled from a load, the rest by its owner
        // Takes what came of a load; column `item` of a row counts its items from 1.
        void (*done)(struct channel *channel, const struct load *load, const PGresult *result);
        struct load *first, *last, *sent;
        struct arena parameters; // of the statement that is under way
        unsigned load_count, failures;
        int64_t again; // CLOCK_MONOTONIC nanoseconds: not sent before
};

// Adds an item of a session's (NULL: nobody's), zeroed; the caller fills it in, texts with batch_text. `bytes`: what it
// will need beside it. NULL where too much waits.
void *batch_add(
        struct batch *batch, struct session *session, const ProtobufCMessageDescriptor *descriptor, size_t bytes);

// A copy that lives as long as the item that was added last.
char *batch_text(struct batch *batch, const char *text);
void *batch_bytes(struct batch *batch, const void *data, size_t size);
void *batch_add_part(struct batch *batch, size_t size);                                                      // zeroed
Google__Protobuf__Duration *batch_duration(struct batch *batch, const Google__Protobuf__Duration *duration); // or NULL

// Sends what waits, if nothing is under way; with `empty`, though nothing waits.
void batch_send(struct batch *batch, bool empty);

// Whether nothing waits and nothing is under way.
static inline bool batch_is_idle(const struct batch *batch) { return !batch->sent && !batch->first; }

void batch_drop(struct batch *batch); // when nothing is under way any more
