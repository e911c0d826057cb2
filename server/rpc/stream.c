// Streams: messages are read one at a time, when the handler asks; what is sent waits in a bounded queue. Everything
// here but stream_accept, stream_post, stream_backlog, stream_wake and server_tick runs on the stream thread.
#include "server/rpc/query.h"
#include "server/rpc/server_private.h"

#include <stdlib.h>
#include <string.h>

static bool start(
        struct core_call *call, const grpc_op *ops, size_t count, struct tag *tag, void (*fire)(struct tag *, bool)) {
        tag_arm(tag, fire);
        call_hold(call);
        if (grpc_call_start_batch(call->core, ops, count, tag, NULL) == GRPC_CALL_OK)
                return true;
        call_release(call);
        return false;
}

static void end_now(struct core_call *call);
static void write_next(struct core_call *call);

// --- Streams that have not said anything yet, and those that end and are not read to their end ---

// Anew where it is expected already. 0: not at all.
static void expect(struct core_call *call, int seconds) {
        struct server *server = call->call.server;
        if (!seconds)
                return;
        pthread_mutex_lock(&server->silent_lock);
        call->silent_until = now_ns() + seconds * INT64_C(1000000000);
        atomic_store(&call->late, false);
        if (!call->silent_link) {
                call->silent_next = server->silent;
                call->silent_link = &server->silent;
                if (server->silent)
                        server->silent->silent_link = &call->silent_next;
                server->silent = call;
        }
        pthread_mutex_unlock(&server->silent_lock);
}

static void is_heard(struct core_call *call) {
        struct server *server = call->call.server;
        pthread_mutex_lock(&server->silent_lock);
        if (call->silent_link) {
                *call->silent_link = call->silent_next;
                if (call->silent_next)
                        call->silent_next->silent_link = call->silent_link;
                call->silent_link = NULL;
        }
        pthread_mutex_unlock(&server->silent_lock);
}

void server_tick(struct server *server) {
        int64_t now = now_ns();
        pthread_mutex_lock(&server->silent_lock);
        for (struct core_call *call = server->silent; call; call = call->silent_next)
                if (call->silent_until < now && !atomic_exchange(&call->late, true))
                        stream_wake(&call->call);
        pthread_mutex_unlock(&server->silent_lock);
}

// --- Reading ---

static void got_message(struct core_call *call) {
        const struct stream_handler *handler = call->call.method->stream;
        ProtobufCMessage *message = NULL;
        if (!call->started) {
                call_run(call); // the first message goes through the steps
                return;
        }
        if (call_decode(call, message_arena(call), &message))
                handler->message(&call->call, message);
        else
                stream_finish(&call->call);
}

static void read_done(struct tag *tag, bool ok) {
        struct core_call *call = TAG_OWNER(tag, read_done);
        call->reading = false;
        if (!call->started)
                is_heard(call);
        if (call->finishing || call->is_closed)
                ; // nobody waits for it
        else if (!ok) {
                call_refuse(&call->call, CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                        "a message is larger than %u bytes", call->call.server->config.max_message_bytes);
                stream_finish(&call->call);
        } else if (call->received)
                got_message(call);
        else if (!grpc_call_failed_before_recv_message(call->core)) {
                call->half_closed = true;
                if (!call->started)
                        call_run(call); // refuses: there is no first message
                else
                        call->call.method->stream->half_closed(&call->call);
        }
        call_release(call);
}

static void start_read(struct core_call *call) {
        grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->received};
        if (!start(call, &op, 1, &call->read_done, read_done))
                call->reading = false;
}

static void read_message(struct core_call *call) {
        if (call->reading || call->half_closed || call->finishing || call->is_closed)
                return;
        call->reading = true;
        start_read(call);
}

struct arena *stream_arena(struct call *call) { return message_arena(core_of(call)); }

void stream_forget(struct call *c) {
        struct arena *arena = stream_arena(c);
        size_t cap = arena->cap;
        arena_drop(arena, c->secret);
        arena_init(arena, cap);
}

void stream_read(struct call *c) {
        stream_forget(c);
        read_message(core_of(c));
}

void stream_read_ahead(struct call *c) {
        core_of(c)->message_turn ^= 1;
        stream_read(c);
}

// --- Writing ---

static size_t add_headers(struct core_call *call, grpc_op *ops) {
        if (call->headers_sent)
                return 0;
        call->headers_sent = true;
        ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
        return 1;
}

// The buffer that is being written stays the first of the queue until it is.
static void write_done(struct tag *tag, bool ok) {
        struct core_call *call = TAG_OWNER(tag, write_done);
        (void)ok; // a failed write is followed by the close
        pthread_mutex_lock(&call->lock);
        struct outgoing *done = call->queue_first;
        call->queue_first = done->next;
        call->queue_count--;
        call->queue_bytes -= done->size;
        pthread_mutex_unlock(&call->lock);
        grpc_byte_buffer_destroy(done->buffer);
        free(done);
        call->writing = false;
        if (call->finishing && !call->is_closed)
                expect(call, call->call.method->stream->patience);
        write_next(call);
        bool drained = !call->writing && !call->finishing && !call->is_closed && call->started;
        if (drained && call->call.method->stream->drained)
                call->call.method->stream->drained(&call->call);
        call_release(call);
}

static void write_next(struct core_call *call) {
        if (call->writing || call->is_closed)
                return;
        pthread_mutex_lock(&call->lock);
        grpc_byte_buffer *buffer = call->queue_count ? call->queue_first->buffer : NULL;
        pthread_mutex_unlock(&call->lock);
        if (!buffer) {
                if (call->finishing)
                        end_now(call);
                return;
        }
        grpc_op ops[2];
        memset(ops, 0, sizeof ops);
        size_t count = add_headers(call, ops);
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = buffer;
        call->writing = start(call, ops, count, &call->write_done, write_done);
}

// False where `max` messages or so many bytes wait already, or the memory is out.
static bool enqueue(struct core_call *call, const ProtobufCMessage *message, unsigned max) {
        struct outgoing *outgoing = malloc(sizeof *outgoing);
        if (!outgoing)
                return false;
        *outgoing = (struct outgoing){.buffer = pack_message(message)};
        outgoing->size = grpc_byte_buffer_length(outgoing->buffer);
        pthread_mutex_lock(&call->lock);
        bool room = call->queue_count < max && call->queue_bytes < POST_BYTES;
        if (room) {
                *(call->queue_count ? &call->queue_last->next : &call->queue_first) = outgoing;
                call->queue_last = outgoing;
                call->queue_count++;
                call->queue_bytes += outgoing->size;
        }
        pthread_mutex_unlock(&call->lock);
        if (!room) {
                grpc_byte_buffer_destroy(outgoing->buffer);
                free(outgoing);
        }
        return room;
}

bool stream_send(struct call *c, const ProtobufCMessage *message) {
        struct core_call *call = core_of(c);
        if (call->is_closed || call->finishing)
                return true;
        if (!enqueue(call, message, SEND_QUEUE))
                return call_refuse(
                        c, CODE_RESOURCE_EXHAUSTED, "READER_TOO_SLOW", "%d answers wait to be read", SEND_QUEUE);
        write_next(call);
        return true;
}

bool stream_post(struct call *c, const ProtobufCMessage *message) {
        if (!enqueue(core_of(c), message, POST_QUEUE))
                return false;
        stream_wake(c);
        return true;
}

struct backlog stream_backlog(struct call *c) {
        struct core_call *call = core_of(c);
        pthread_mutex_lock(&call->lock);
        struct backlog backlog = {call->queue_count, call->queue_bytes};
        pthread_mutex_unlock(&call->lock);
        return backlog;
}

// --- The end ---

static void finished(struct tag *tag, bool ok) {
        (void)ok;
        call_release(TAG_OWNER(tag, finished));
}

static void end_now(struct core_call *call) {
        if (call->finish_sent)
                return;
        call->finish_sent = true;
        grpc_op ops[2];
        memset(ops, 0, sizeof ops);
        size_t count = add_headers(call, ops);
        grpc_metadata trailers[2];
        grpc_slice message = grpc_slice_from_copied_string(
                call->call.refusal.message ? call->call.refusal.message : "");
        ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        ops[count].data.send_status_from_server.status = (grpc_status_code)call->call.refusal.code;
        ops[count].data.send_status_from_server.status_details = call->call.refusal.message ? &message : NULL;
        ops[count].data.send_status_from_server.trailing_metadata_count = call_trailers(call, trailers);
        ops[count++].data.send_status_from_server.trailing_metadata = trailers;
        start(call, ops, count, &call->finished, finished);
        grpc_slice_unref(message);
}

void stream_finish(struct call *c) {
        struct core_call *call = core_of(c);
        if (call->finishing)
                return;
        call->finishing = true;
        if (!call->is_closed) {
                call_conclude(call);
                expect(call, call->call.method->stream->patience);
                write_next(call);
        }
}

void stream_abort(struct call *call) {
        grpc_call_cancel_with_status(
                core_of(call)->core, GRPC_STATUS_UNAVAILABLE, "nothing is read of the stream", NULL);
}

// Lets the handler clean up, once, when nothing of the call is under way any more. It may run one more statement.
static void tell_closed(struct core_call *call) {
        if (call->cleaning || !call->started || !call->call.method->stream->closed)
                return;
        call->cleaning = true;
        call->call.method->stream->closed(&call->call);
}

// A statement that is under way keeps the call until its handler has got the result.
static void closed(struct tag *tag, bool ok) {
        struct core_call *call = TAG_OWNER(tag, closed);
        (void)ok;
        call->is_closed = true;
        is_heard(call); // or will never be
        pthread_mutex_lock(&call->lock);
        call->gone = call->close_cancelled;
        bool waits = call->under_way || call->query_finished;
        if (call->gone && call->under_way)
                storage_cancel(call->call.server->config.storage, &call->operation);
        pthread_mutex_unlock(&call->lock);
        if (!call->finishing) {
                if (!waits)
                        call_refuse(&call->call, CODE_CANCELLED, "CANCELLED", "the caller has gone");
                call_conclude(call);
        }
        if (!waits)
                tell_closed(call);
        call_release(call); // the tag's
        call_release(call); // the first one, of the call itself
}

// --- Waking ---

static void woken(struct tag *tag, bool ok) {
        struct core_call *call = TAG_OWNER(tag, wake);
        const struct stream_handler *handler = call->call.method->stream;
        (void)ok;
        atomic_exchange(&call->wake_posted, false);
        bool called = atomic_exchange(&call->wake_called, false); // not by its own statement's result alone
        pthread_mutex_lock(&call->lock);
        bool held = call->query_finished; // by the statement
        bool waits = call->under_way;     // it was another wake
        call->query_finished = false;
        pthread_mutex_unlock(&call->lock);
        if (call->is_closed) {
                if (held && call->started) // what the statement has made is the handler's to undo
                        query_deliver(call);
                if (!waits)
                        tell_closed(call);
        } else if (call->finishing) { // what it has found is for nobody
                if (atomic_load(&call->late))
                        stream_abort(&call->call);
        } else if (!call->started) {
                if (held)
                        query_deliver(call);
                else if (atomic_load(&call->late))
                        call_refuse(&call->call, CODE_DEADLINE_EXCEEDED, "FIRST_MESSAGE_TIMEOUT",
                                "the first message has not come within %d seconds", FIRST_MESSAGE_SECONDS);
                call_run(call);
        } else {
                if (held)
                        query_deliver(call);
                if (call->call.refusal.code != CODE_OK)
                        stream_finish(&call->call);
                else if (called && handler->woken)
                        handler->woken(&call->call);
                write_next(call); // what others have posted
        }
        if (held)
                call_release(call);
        call_release(call);
}

void stream_wake(struct call *c) {
        atomic_store(&core_of(c)->wake_called, true);
        stream_take_result(core_of(c));
}

void stream_take_result(struct core_call *call) {
        if (!atomic_exchange(&call->wake_posted, true))
                start(call, NULL, 0, &call->wake, woken);
}

void stream_accept(struct core_call *call) {
        atomic_fetch_add(&call->call.server->streams, 1);
        grpc_op op = {
                .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->close_cancelled};
        call_hold(call); // this function's own: the call may end before it does
        expect(call, FIRST_MESSAGE_SECONDS);
        call->reading = true;
        // From here on everything of this call arrives on the stream thread, the close included: it is posted first.
        if (start(call, &op, 1, &call->closed, closed))
                start_read(call);
        else {
                is_heard(call);
                call_release(call);
        }
        call_release(call);
}
