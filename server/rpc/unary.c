// Unary calls: receive, run the steps, answer. Two batches: the message; then headers, reply, status and close
// together.
#include "server/rpc/call_private.h"
#include "server/rpc/outbox.h"
#include "server/rpc/server_private.h"

#include <string.h>

static void received(struct tag *tag, bool ok) {
        struct core_call *call = TAG_OWNER(tag, read_done);
        if (!ok)
                call_refuse(&call->call, CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                        "the request message is larger than %u bytes", call->call.server->config.max_message_bytes);
        call_run(call);
}

// Only BULK calls hear of a cancel while they run: the others are shorter than the news.
static void closed(struct tag *tag, bool ok) {
        struct core_call *call = TAG_OWNER(tag, closed);
        pthread_mutex_lock(&call->lock);
        call->gone = ok && call->close_cancelled;
        if (call->gone && call->under_way)
                storage_cancel(call->call.server->config.storage, &call->operation);
        pthread_mutex_unlock(&call->lock);
        call_release(call);
}

static void watch_close(struct core_call *call) {
        tag_arm(&call->closed, closed);
        call_hold(call);
        grpc_op op = {
                .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->close_cancelled};
        if (grpc_call_start_batch(call->core, &op, 1, &call->closed, NULL) != GRPC_CALL_OK)
                call_release(call);
}

static bool hears_of_close(const struct core_call *call) {
        return call->call.method && call->call.method->lane == LANE_BULK;
}

void unary_accept(struct core_call *call) {
        atomic_fetch_add(&call->call.server->in_flight, 1);
        if (hears_of_close(call))
                watch_close(call);
        tag_arm(&call->read_done, received);
        grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->received};
        if (grpc_call_start_batch(call->core, &op, 1, &call->read_done, NULL) != GRPC_CALL_OK)
                call_release(call);
}

static void finished(struct tag *tag, bool ok) {
        (void)ok; // the caller may be gone: nothing to do about it
        call_release(TAG_OWNER(tag, finished));
}

void unary_answer(struct core_call *call) {
        if (call->call.refusal.code == CODE_OK && call->call.response)
                call->reply = pack_message(call->call.response);
        else if (call->call.refusal.code == CODE_OK)
                call_fail(&call->call, "no response");
        if (outbox_is_here(call->outbox))
                unary_send(call);
        else
                outbox_put(call->outbox, call);
}

void unary_send(struct core_call *call) {
        bool good = call->reply;
        grpc_metadata trailers[2];
        size_t trailer_count = call_trailers(call, trailers);
        grpc_slice message = grpc_slice_from_copied_string(good ? "" : call->call.refusal.message);
        grpc_op ops[4];
        memset(ops, 0, sizeof ops);
        size_t count = 0;
        ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
        if (good) {
                ops[count].op = GRPC_OP_SEND_MESSAGE;
                ops[count++].data.send_message.send_message = call->reply;
        }
        ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        ops[count].data.send_status_from_server.status = (grpc_status_code)call->call.refusal.code;
        ops[count].data.send_status_from_server.status_details = good ? NULL : &message;
        ops[count].data.send_status_from_server.trailing_metadata_count = trailer_count;
        ops[count++].data.send_status_from_server.trailing_metadata = trailers;
        if (!hears_of_close(call)) {
                ops[count].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
                ops[count++].data.recv_close_on_server.cancelled = &call->close_cancelled;
        }
        call_conclude(call);
        tag_arm(&call->finished, finished);
        if (grpc_call_start_batch(call->core, ops, count, &call->finished, NULL) != GRPC_CALL_OK)
                call_release(call);
        grpc_slice_unref(message);
}
