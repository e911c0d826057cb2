// One call, as the services' code sees it. What gRPC core needs for it is in call_private.h.
//
// A call belongs to one thread at a time: a call thread until its statement is handed over, then the storage thread,
// and its call thread again for the answer to be sent; a stream to the stream thread throughout. All that is allocated
// for it lives in its arena and ends with it.
#pragma once

#include "auth/principal.h"
#include "server/rpc/method.h"
#include "storage/arena.h"
#include "storage/storage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Canonical codes, by gRPC's numbers.
enum code {
        CODE_OK,
        CODE_CANCELLED,
        CODE_UNKNOWN,
        CODE_INVALID_ARGUMENT,
        CODE_DEADLINE_EXCEEDED,
        CODE_NOT_FOUND,
        CODE_ALREADY_EXISTS,
        CODE_PERMISSION_DENIED,
        CODE_RESOURCE_EXHAUSTED,
        CODE_FAILED_PRECONDITION,
        CODE_ABORTED,
        CODE_OUT_OF_RANGE,
        CODE_UNIMPLEMENTED,
        CODE_INTERNAL,
        CODE_UNAVAILABLE,
        CODE_DATA_LOSS,
        CODE_UNAUTHENTICATED,
        CODE_COUNT
};

enum { NAME_VARIABLES = 4, GIVEN_MAX = 8, VIOLATIONS_MAX = 8, METADATA_MAX = 8, REQUEST_ID_MAX = 64, UUID_SIZE = 37 };

// Why a call is refused: a code, an ErrorInfo, and what else the case has (AIP-193). Texts live in the call's arena
// or are static.
struct refusal {
        enum code code;
        const char *reason, *message;
        struct {
                const char *name, *value;
        } metadata[METADATA_MAX], violations[VIOLATIONS_MAX]; // ErrorInfo.metadata; BadRequest field and description
        unsigned metadata_count, violation_count;
        const char *precondition; // PreconditionFailure: its type; the subject is the resource named
        bool about_resource;      // ResourceInfo of the resource named
        unsigned retry_ms;        // RetryInfo; 0: none
};

struct server;

struct call {
        struct server *server;
        const struct method *method;
        struct arena arena;
        bool secret; // the arena has held a secret: it is wiped
        struct principal principal;
        bool key_known, place_known; // the identity's: its look-ups for this call are done
        char request_id[REQUEST_ID_MAX + 1], peer[64];
        ProtobufCMessage *request, *response;
        const char *name;                        // the resource name as the caller wrote it; NULL: none
        const char *organization;                // its slug; NULL: the method names none
        const char *name_values[NAME_VARIABLES]; // beside method->name.variables
        char new_id[UUID_SIZE];
        struct storage_value given[GIVEN_MAX]; // what `before` gives
        int64_t start, deadline;               // CLOCK_MONOTONIC nanoseconds
        struct refusal refusal;
        void *state; // a stream handler's own
};

// Refuses the call. Always returns false, so that a step or hook can end with it. The first refusal stands.
bool call_refuse(struct call *call, enum code code, const char *reason, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

// INVALID_ARGUMENT for a field, by its path in the request. May be called several times before the call ends.
bool call_refuse_field(struct call *call, const char *field, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

// Adds to the ErrorInfo of the refusal.
void call_refusal_metadata(struct call *call, const char *name, const char *value);

// INTERNAL with the request id alone, for a failure of ours; `what` goes to the log only.
bool call_fail(struct call *call, const char *what);

// What the log is to say beside the refusal; the caller never sees it. Static, or in the call's arena.
void call_note(struct call *call, const char *note);

struct identity *server_identity(const struct server *server);
const struct vault *server_vault(const struct server *server);
struct channel *server_channel(const struct server *server);

// A statement of storage/queries/internal. Always bound: the server does not start otherwise.
enum internal_statement {
        INTERNAL_FIND_API_KEY,
        INTERNAL_FIND_AGENT_KEY,
        INTERNAL_FIND_MEMBER,
        INTERNAL_FIND_ORGANIZATION,
        INTERNAL_TOUCH_API_KEYS,
        INTERNAL_SWEEP,
        INTERNAL_START_IMPORT,
        INTERNAL_IMPORT_BATCH,
        INTERNAL_COMPLETE_IMPORT,
        INTERNAL_RELEASE_IMPORT,
        INTERNAL_OPEN_SESSION,
        INTERNAL_CLOSE_SESSIONS,
        INTERNAL_CHECK_SESSIONS,
        INTERNAL_FIND_NEW_SESSIONS,
        INTERNAL_CLAIM_TASKS,
        INTERNAL_START_TASKS,
        INTERNAL_REJECT_TASKS,
        INTERNAL_END_TASKS,
        INTERNAL_NOTE_EFFECTS,
        INTERNAL_APPEND_LOGS,
        INTERNAL_ANSWER_CANCELS,
        INTERNAL_FIND_CANCELS,
        INTERNAL_CHANNEL_TICK,
        INTERNAL_LEAVE_REPLICA,
        INTERNAL_OFFER_KEY,
        INTERNAL_NOTIFY,
        INTERNAL_READ_TASK_LOG,
        INTERNAL_WATCH_TASKS,
        INTERNAL_WATCH_AGENTS,
        INTERNAL_COUNT
};
const struct binding *server_binding(const struct server *server, enum internal_statement statement);

// Runs an internal statement for a call: binds `request` and the call's given values, and calls `done` with the
// result, on the stream thread for a stream, on the storage thread else. `result` ends when `done` returns. False where
// it refused the call instead. One statement at a time.
typedef void call_query_done(struct call *call, PGresult *result);
bool call_query(struct call *call, enum internal_statement statement, const ProtobufCMessage *request,
        call_query_done *done) __attribute__((warn_unused_result));

// --- Streams; on the stream thread only ---

// The memory of the message that is being handled.
struct arena *stream_arena(struct call *call);
// Asks for the next message; the one before ends with this (its memory is used again).
void stream_read(struct call *call);
// The same while the message that is being handled stays in use: its memory is used again with the next read ahead.
void stream_read_ahead(struct call *call);
// Frees what statements of the call have needed so far.
void stream_forget(struct call *call);
// Queues a message (packed before this returns). False, with the call refused, where 64 wait already.
bool stream_send(struct call *call, const ProtobufCMessage *message);
// From any thread, while the call is known to live: queues a message behind what waits. False where 4,096 or 64 MiB
// wait already, and the message is dropped; the caller ends the call then.
bool stream_post(struct call *call, const ProtobufCMessage *message) __attribute__((warn_unused_result));
// From any thread, while the call is known to live: how much waits to be written.
struct backlog {
        unsigned messages;
        size_t bytes;
};
struct backlog stream_backlog(struct call *call);
// Ends the call, with call->refusal where it is set, else OK, after the queued messages. What is posted later is
// dropped.
void stream_finish(struct call *call);
// From any thread, while the call is known to live: ends a call whose caller does not read, so that it cannot be told.
void stream_abort(struct call *call);
// From any thread: `woken` runs on the stream thread, at least once after this. Only while the call is known to live.
void stream_wake(struct call *call);
