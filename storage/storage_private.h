// What the parts of the storage share. A storage owns its lanes, a lane its queue and its connections; all of it
// belongs to the storage thread, but for what is atomic and what stands under `mutex`.
#pragma once

#include "storage/cancel.h"
#include "storage/storage.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

enum {
        MAX_PARAMETERS = 64, // of one statement
        TENANT_TEXT = 36,    // a UUID
        ERROR_TEXT = 1024,
};

// The prepared statement of lane_kind.setting.
#define SETTING_STATEMENT "genie_setting"

#define MILLISECOND INT64_C(1000000)
#define SECOND (1000 * MILLISECOND)

// Why an operation is sent other than with its neighbours: bits of storage_operation.state.
enum {
        OPERATION_ALONE = 1,  // its batch was aborted by another statement: in a batch of its own
        OPERATION_RESENT = 2, // its connection broke once: not a second time
};

// What makes the lanes differ.
struct lane_kind {
        const char *name;
        const char *setting;    // the statement that tells the session on whose behalf it works
        int setting_parameters; // organization_id alone, or caller, method and request_id behind it
        unsigned batches;       // Syncs that may be under way on one connection
        unsigned batch_size;    // operations before one Sync
        bool read_only;
};

extern const struct lane_kind lane_kinds[LANE_COUNT];

// One answer that a connection still owes.
struct expected {
        struct storage_operation *operation; // of a Sync: the write that it commits; NULL where it is settled
        enum { EXPECT_SETTING, EXPECT_STATEMENT, EXPECT_SYNC } what;
        bool sets_tenant; // of a Sync: its batch changes the session's tenant
};

// DOWN -> CONNECTING -> PREPARING -> READY, and from each back to DOWN.
enum session_state { SESSION_DOWN, SESSION_CONNECTING, SESSION_PREPARING, SESSION_READY };

struct connection {
        struct lane_state *lane;
        PGconn *pg;
        enum session_state state;
        int socket; // as epoll knows it
        uint32_t events;
        bool unsent;        // the socket is full: nothing more is queued in libpq until it drains
        int64_t timer;      // DOWN: when to try again; READY: when it last said something; else when to give up
        unsigned failures;  // in a row
        unsigned prepared;  // PREPARING: answers that have come
        unsigned batches;   // Syncs under way
        unsigned capacity;  // of `expected`, a power of two
        unsigned head, end; // of `expected`; they run on and are masked
        struct expected *expected;
        PGresult *held; // a write's result, until its Sync says that it is committed
        char tenant[TENANT_TEXT + 1];
        bool tenant_known;
        unsigned tenant_changes; // batches under way that change the tenant
        struct canceller canceller;
        int64_t cancel_again; // not before this time
};

struct lane_state {
        struct storage *storage;
        const struct lane_kind *kind;
        enum lane number;
        struct storage_operation *first, *last; // the queue
        struct connection *connections;
        unsigned connection_count;
        int64_t down_since; // since when no connection stands; 0: one does
        char *options;      // for the start of a session
        _Atomic unsigned pending, connected;
        _Atomic uint64_t operations, refused;
        // Set while the thread sleeps and could send an operation of this lane: then a submitter wakes it.
        atomic_bool wake;
};

struct storage {
        struct storage_config config;
        PQconninfoOption *target; // the parsed URL
        pthread_t thread;
        int epoll, event;
        int64_t now;                   // CLOCK_MONOTONIC at the turn's begin
        int64_t next_sweep, last_look; // when deadlines and timers are looked at next; when they were last
        struct lane_state lanes[LANE_COUNT];
        _Atomic(struct storage_operation *) inbox; // submitted, newest first
        bool held;                                 // turn_ended wants to be called again soon
        _Atomic uint64_t batches;
        atomic_bool look; // somebody asked for a sweep
        atomic_bool stopping;
        int64_t stop_at; // written before `stopping`
        pthread_mutex_t mutex;
        pthread_cond_t changed;                             // a connection came or went
        char error[ERROR_TEXT], reported_error[ERROR_TEXT]; // the last connection error; what wait_ready gave out
};

int64_t storage_clock(void);

// Asks for a sweep now, whether the thread sleeps or not. Any thread.
void storage_look(struct storage *storage);

// The deadlines and timers are looked at not later than this.
static inline void storage_sweep_by(struct storage *storage, int64_t time) {
        if (time < storage->next_sweep)
                storage->next_sweep = time;
}

static inline void storage_log(const struct storage *storage, const char *event, const char *detail) {
        if (storage->config.log)
                storage->config.log(event, detail);
}
