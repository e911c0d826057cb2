// The way to PostgreSQL: three lanes of libpq connections, driven by one thread with an epoll loop.
//
//   READ   pipelined, read-only sessions; operations that wait together go out in one send and one Sync
//   WRITE  pipelined; every operation is an implicit transaction of its own (its settings, its statement, a Sync)
//   BULK   one operation per connection at a time, cancelled on the server when its caller goes
//
// An operation is one prepared statement with binary parameters and a binary result. Any thread may submit;
// `done` is called exactly once, on the storage thread, and must not block. A lane's queue is bounded: past
// it storage_submit refuses. Connections are made, prepared and, after a failure, made again with backoff, by
// the storage thread alone. An operation whose connection broke after it was sent is not sent again unless it
// is a read (once): its outcome is STORAGE_LOST. A write's `done` comes when it is committed.
//
// Where the role that the sessions run as is a superuser or bypasses row-level security, no connection comes to stand.
// A URL with a host name is resolved by libpq on the storage thread whenever a connection is made: where names are
// slow to resolve, give an address (hostaddr).
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

struct storage;

enum lane { LANE_READ, LANE_WRITE, LANE_BULK, LANE_COUNT };

enum storage_outcome {
        STORAGE_OK,        // `result` has the rows
        STORAGE_REFUSED,   // PostgreSQL refused the statement: `result` has SQLSTATE, constraint, message
        STORAGE_CANCELLED, // storage_cancel came first, and nothing was done
        STORAGE_DEADLINE,  // the operation's deadline, or the lane's statement timeout, passed; nothing was done
        STORAGE_LOST,      // the connection broke; a write may or may not have happened
        STORAGE_DOWN,      // no connection could be had in time; nothing was sent
};

// A statement as the lanes know it. Static, or at least as long-lived as the storage.
struct storage_statement {
        const char *name; // unique: the prepared statement's name
        const char *text; // with $1, $2, …
        enum lane lane;
        int parameter_count;
        const Oid *parameter_types; // as described; NULL lets PostgreSQL infer
};

// One parameter in PostgreSQL's binary format; NULL data is SQL NULL.
struct storage_value {
        const char *data;
        int length;
};

struct storage_operation {
        // Set by the submitter, valid until `done`. The struct is zeroed before its first use and can be submitted
        // again once `done` is called, from there too.
        const struct storage_statement *statement;
        const struct storage_value *parameters;
        const char *organization_id; // the tenant's UUID text, "" for none: the setting genie.organization_id
        const char *caller, *method, *request_id; // for the audit triggers; WRITE and BULK only
        int64_t deadline;                         // CLOCK_MONOTONIC nanoseconds; 0: the lane's timeout alone
        // `result` is NULL but for STORAGE_OK and STORAGE_REFUSED. It is the storage's and goes when `done` returns;
        // with keeps_result it is the submitter's from here on, to be cleared.
        void (*done)(struct storage_operation *, enum storage_outcome, PGresult *result);
        bool keeps_result;
        // The storage's own.
        struct storage_operation *next;
        int state;
        _Atomic bool cancelled;
};

struct storage_config {
        const char *url;                  // a libpq connection string or URI
        const char *role;                 // SET ROLE at connect; NULL: the login role
        unsigned connections[LANE_COUNT]; // 0: the lane takes nothing
        unsigned queue_limit[LANE_COUNT]; // operations that wait or are under way
        unsigned timeout_ms[LANE_COUNT];  // statement timeouts
        // How long a lane may be without any connection before its operations get STORAGE_DOWN: those that wait then,
        // and those that come later, at once, until a connection stands again.
        unsigned connect_timeout_ms;
        const struct storage_statement *const *statements; // prepared on each connection of their lane; NULL-terminated
        // Called on the storage thread when something happens that an operator wants to know. Never with a secret.
        void (*log)(const char *event, const char *detail);
        // Called on the storage thread after each turn of its loop, when the operations of that turn are done: the
        // place to flush what `done` has put together. `more`: reads are under way, whose answers come soon. Returns
        // whether something is held back; it is called again within a millisecond then. May be NULL.
        bool (*turn_ended)(void *context, bool more);
        void *context;
};

// Counters and gauges, for logs and metrics; read without a lock.
struct storage_stats {
        unsigned queued[LANE_COUNT];                                   // waiting or under way
        unsigned connected[LANE_COUNT];                                // connections that stand
        uint64_t operations[LANE_COUNT], refused[LANE_COUNT], batches; // batches: Syncs sent by the READ lane
};

// Starts the thread and the connections. Returns NULL with errno when a thread or descriptor cannot be had, EINVAL
// when the URL or a statement cannot be worked with (the log says which); a database that is away is not an error
// here: the storage goes on trying. The statements and their list outlive the storage; the rest of `config` may go.
struct storage *storage_start(const struct storage_config *config);

// Whether every lane has a connection now.
bool storage_ready(const struct storage *storage);

// Waits until storage_ready, at most timeout_ms; false where it is not. *ret_error, where it is set, has the
// last connection error (owned by the storage).
bool storage_wait_ready(struct storage *storage, unsigned timeout_ms, const char **ret_error);

// Queues an operation. False when the lane's queue is full or the storage stops: `done` is not called then.
bool storage_submit(struct storage *storage, struct storage_operation *operation) __attribute__((warn_unused_result));

// Asks that an operation end early; `done` still comes, with the outcome that is true. What waits in the queue ends at
// once, a bulk statement is cancelled on the server; a read or write that is sent runs to its end, which the
// statement timeout bounds (the same holds for deadlines). Any thread, any number of times, before `done` has
// returned.
void storage_cancel(struct storage *storage, struct storage_operation *operation);

struct storage_stats storage_stats(const struct storage *storage);

// Ends the thread and frees the storage: what is queued gets STORAGE_CANCELLED, what is under way is waited for at most
// timeout_ms. Not from `done`, and no other thread uses the storage any more. NULL is allowed.
void storage_stop(struct storage *storage, unsigned timeout_ms);
