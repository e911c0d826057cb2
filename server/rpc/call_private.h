// What gRPC core needs for a call, around the part that services see. Only server/rpc includes this.
#pragma once

#include "server/rpc/call.h"
#include "server/rpc/server.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <pthread.h>
#include <stdatomic.h>

// What may wait to be written: answers of the handler on the stream thread, messages that other threads post.
enum { SEND_QUEUE = 64, POST_QUEUE = 4096, POST_BYTES = 64 << 20 };

struct outgoing {
        struct outgoing *next;
        grpc_byte_buffer *buffer;
        size_t size;
};

// A completion tag: what runs, on the thread of its queue, when the batch is done. Arming it before the batch and
// reading it after hands over, from thread to thread, all that was written before.
struct tag {
        void (*_Atomic fire)(struct tag *tag, bool ok);
};
static inline void tag_arm(struct tag *tag, void (*fire)(struct tag *tag, bool ok)) {
        atomic_store_explicit(&tag->fire, fire, memory_order_release);
}
#define TAG_OWNER(tag, member) ((struct core_call *)(void *)((char *)(tag)-offsetof(struct core_call, member)))

enum step_result {
        STEP_NEXT, // on to the next step
        STEP_WAIT, // a statement is under way: call_run is called again when it is done
        STEP_END,  // the call is refused or answered
};

struct core_call {
        struct call call; // first: a call is its core_call
        grpc_call *core;
        struct outbox *outbox;        // of its call thread
        struct core_call *next_ready; // the outbox's
        grpc_metadata_array metadata;
        grpc_byte_buffer *received, *reply;
        grpc_slice request_id, details;
        bool has_details;
        unsigned step;
        bool again;            // the statement of a Create runs for the second time
        const char *failure;   // for the log
        atomic_int references; // completions that are outstanding, and what else holds the call

        // The statement that is under way.
        pthread_mutex_t lock; // of under_way and gone, between the storage thread and the one that learns of a cancel,
                              // and of the queue of messages
        struct storage_operation operation;
        const struct binding *binding;
        call_query_done *query_done;
        bool under_way, gone; // a statement runs; the caller has gone

        // Streams only.
        struct tag read_done, write_done, closed, wake, finished;
        struct arena message_arenas[2]; // in turn where a message is read while the one before is in use
        unsigned message_turn;
        struct outgoing *queue_first, *queue_last;
        unsigned queue_count;
        size_t queue_bytes;
        struct core_call *silent_next, **silent_link; // of the server's streams that wait for their callers
        int64_t silent_until;                         // CLOCK_MONOTONIC nanoseconds
        atomic_bool late;                             // it has waited for so long
        bool started, reading, writing, finishing, finish_sent, headers_sent, is_closed, half_closed, cleaning;
        atomic_bool wake_posted, wake_called; // called: by stream_wake, whose handler is to be told
        PGresult *query_result;               // waits for the stream thread
        enum storage_outcome query_outcome;
        bool query_finished;
        int close_cancelled;
};

static inline struct core_call *core_of(struct call *call) { return (struct core_call *)(void *)call; }
static inline struct arena *message_arena(struct core_call *call) { return &call->message_arenas[call->message_turn]; }

struct core_call *call_new(struct server *server, grpc_call *core, const struct method *method);
void call_hold(struct core_call *call);
void call_release(struct core_call *call); // the last one frees

// Runs the steps from where they stand. When the last one is done or one ends the call, calls server/rpc's answer for
// the kind of call.
void call_run(struct core_call *call);

// Decodes what was received into a message of the arena; false with the call refused.
bool call_decode(struct core_call *call, struct arena *arena, ProtobufCMessage **ret_message);

// Counts and logs the call; once, when its outcome stands.
void call_conclude(struct core_call *call);

grpc_byte_buffer *pack_message(const ProtobufCMessage *message);
void unary_accept(struct core_call *call);
// Packs the reply, and sends it: at once on the call's thread, through the outbox from the storage thread.
void unary_answer(struct core_call *call);
void unary_send(struct core_call *call);
void stream_accept(struct core_call *call);
void stream_take_result(struct core_call *call); // wakes the stream thread to take what a statement has found
// Fills the trailing metadata; at most 2 entries.
size_t call_trailers(struct core_call *call, grpc_metadata ret_metadata[2]);
