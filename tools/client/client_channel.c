#include "tools/client/client_channel.h"

#include "tools/client/client_private.h"

#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What a stream can have under way, and the completion tag of each.
enum operation { READ, WRITE, CLOSE, STATUS, OPERATIONS };
struct tag {
        struct client_channel *channel;
        enum operation operation;
};

struct client_loop {
        grpc_completion_queue *queue;
        grpc_channel *nowhere; // for a call that exists to post a completion: core has no public alarm
        grpc_call *waker;
        atomic_bool woken;
        struct client_channel *read_next; // its message was handed out: to be asked for the next one
        grpc_slice handed_out;            // that message
};

struct client_channel {
        struct client_loop *loop;
        void *owner;
        grpc_channel *channel;
        grpc_call *call;
        char *authorization; // the header's value; NULL for none
        grpc_metadata metadata;
        grpc_metadata_array initial;
        struct tag tags[OPERATIONS];
        bool pending[OPERATIONS];
        bool opened;                       // initial metadata was sent
        bool heard;                        // initial metadata was asked for
        grpc_byte_buffer *sent, *received; // of WRITE and READ
        struct client_status status;
};

struct client_loop *client_loop_new(void) {
        struct client_loop *loop = client_core_begin() ? calloc(1, sizeof *loop) : NULL;
        if (!loop)
                return NULL;
        loop->handed_out = grpc_empty_slice();
        loop->queue = grpc_completion_queue_create_for_next(NULL);
        loop->nowhere = grpc_lame_client_channel_create("nowhere", GRPC_STATUS_UNAVAILABLE, "nowhere");
        loop->waker = grpc_channel_create_call(loop->nowhere, NULL, GRPC_PROPAGATE_DEFAULTS, loop->queue,
                grpc_slice_from_static_string("/"), NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        return loop;
}

static void drop_handed_out(struct client_loop *loop) {
        grpc_slice_unref(loop->handed_out);
        loop->handed_out = grpc_empty_slice();
}

void client_loop_free(struct client_loop *loop) {
        if (!loop)
                return;
        assert(!loop->read_next);
        grpc_call_unref(loop->waker);
        grpc_channel_destroy(loop->nowhere);
        grpc_completion_queue_shutdown(loop->queue);
        while (grpc_completion_queue_next(loop->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
                GRPC_QUEUE_SHUTDOWN)
                ;
        grpc_completion_queue_destroy(loop->queue);
        drop_handed_out(loop);
        free(loop);
        grpc_shutdown();
}

void client_loop_wake(struct client_loop *loop) {
        if (!atomic_exchange(&loop->woken, true)) {
                grpc_call_error error = grpc_call_start_batch(loop->waker, NULL, 0, loop, NULL);
                assert(error == GRPC_CALL_OK);
                (void)error;
        }
}

static void start(struct client_channel *channel, enum operation operation, const grpc_op *ops, size_t count) {
        assert(!channel->pending[operation]);
        channel->pending[operation] = true;
        grpc_call_error error = grpc_call_start_batch(channel->call, ops, count, &channel->tags[operation], NULL);
        assert(error == GRPC_CALL_OK);
        (void)error;
}

static void start_read(struct client_channel *channel) {
        const grpc_op ops[] = {
                {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &channel->received},
                {.op = GRPC_OP_RECV_INITIAL_METADATA,
                        .data.recv_initial_metadata.recv_initial_metadata = &channel->initial},
        };
        start(channel, READ, ops, channel->heard ? 1 : 2);
        channel->heard = true;
}

static void start_status(struct client_channel *channel) {
        const grpc_op op = client_status_op(&channel->status);
        start(channel, STATUS, &op, 1);
}

// Takes the message out of what was read; false: there was none, and there will be none.
static bool take_message(struct client_loop *loop, struct client_channel *channel, struct client_event *event) {
        grpc_byte_buffer_reader reader;
        bool good = channel->received && grpc_byte_buffer_reader_init(&reader, channel->received);
        if (good) {
                loop->handed_out = grpc_byte_buffer_reader_readall(&reader);
                grpc_byte_buffer_reader_destroy(&reader);
                event->kind = CLIENT_RECEIVED;
                event->data = GRPC_SLICE_START_PTR(loop->handed_out);
                event->size = GRPC_SLICE_LENGTH(loop->handed_out);
                loop->read_next = channel;
        }
        grpc_byte_buffer_destroy(channel->received);
        channel->received = NULL;
        return good;
}

// Turns a completion into an event; CLIENT_NOTHING where it means nothing to the caller.
static void complete(struct client_loop *loop, const struct tag *tag, bool success, struct client_event *event) {
        struct client_channel *channel = tag->channel;
        channel->pending[tag->operation] = false;
        event->owner = channel->owner;
        if (tag->operation == READ && take_message(loop, channel, event))
                return;
        if (tag->operation == WRITE) {
                grpc_byte_buffer_destroy(channel->sent);
                channel->sent = NULL;
                if (success)
                        event->kind = CLIENT_SENT;
        }
        for (enum operation operation = 0; operation < OPERATIONS; operation++)
                if (channel->pending[operation])
                        return;
        event->kind = CLIENT_ENDED;
        client_status_decode(&channel->status, &event->error);
}

void client_loop_next(struct client_loop *loop, int64_t timeout_ms, struct client_event *ret_event) {
        gpr_timespec deadline = gpr_time_add(
                gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms < 0 ? 0 : timeout_ms, GPR_TIMESPAN));
        drop_handed_out(loop);
        if (loop->read_next)
                start_read(loop->read_next);
        loop->read_next = NULL;
        *ret_event = (struct client_event){.kind = CLIENT_NOTHING};
        while (ret_event->kind == CLIENT_NOTHING) {
                grpc_event event = grpc_completion_queue_next(loop->queue, deadline, NULL);
                if (event.type != GRPC_OP_COMPLETE)
                        return;
                if (event.tag == loop) {
                        atomic_store(&loop->woken, false);
                        ret_event->kind = CLIENT_WOKEN;
                } else {
                        complete(loop, event.tag, event.success, ret_event);
                }
        }
}

static void drop(struct client_channel *channel) {
        if (channel->channel)
                grpc_channel_destroy(channel->channel);
        if (channel->authorization)
                explicit_bzero(channel->authorization, strlen(channel->authorization));
        free(channel->authorization);
        free(channel);
}

struct client_channel *client_channel_open(struct client_loop *loop, const struct client_settings *settings,
        const char *method, void *owner, char **ret_error) {
        struct client_channel *channel = calloc(1, sizeof *channel);
        *ret_error = NULL;
        if (!channel)
                return NULL;
        channel->loop = loop;
        channel->owner = owner;
        channel->channel = client_channel_connect(settings, /* lasting= */ true, ret_error);
        if (!channel->channel ||
                (settings->credential && asprintf(&channel->authorization, "Bearer %s", settings->credential) < 0)) {
                drop(channel);
                return NULL;
        }
        for (enum operation operation = 0; operation < OPERATIONS; operation++)
                channel->tags[operation] = (struct tag){channel, operation};
        grpc_slice path = grpc_slice_from_copied_string(method);
        channel->call = grpc_channel_create_call(channel->channel, NULL, GRPC_PROPAGATE_DEFAULTS, loop->queue, path,
                NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        grpc_slice_unref(path);
        grpc_metadata_array_init(&channel->initial);
        start_status(channel);
        start_read(channel);
        return channel;
}

void client_channel_send(struct client_channel *channel, const void *data, size_t size) {
        channel->sent = client_buffer_make(data, size);
        grpc_op ops[] = {
                {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = channel->sent},
                {.op = GRPC_OP_SEND_INITIAL_METADATA},
        };
        if (channel->authorization) {
                channel->metadata = (grpc_metadata){.key = grpc_slice_from_static_string("authorization"),
                        .value = grpc_slice_from_static_string(channel->authorization)};
                ops[1].data.send_initial_metadata.count = 1;
                ops[1].data.send_initial_metadata.metadata = &channel->metadata;
        }
        start(channel, WRITE, ops, channel->opened ? 1 : 2);
        channel->opened = true;
}

void client_channel_half_close(struct client_channel *channel) {
        const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
        start(channel, CLOSE, &op, 1);
}

void client_channel_cancel(struct client_channel *channel) { grpc_call_cancel(channel->call, NULL); }

void client_channel_free(struct client_channel *channel) {
        if (!channel)
                return;
        for (enum operation operation = 0; operation < OPERATIONS; operation++)
                assert(!channel->pending[operation]);
        client_status_drop(&channel->status);
        grpc_metadata_array_destroy(&channel->initial);
        grpc_call_unref(channel->call);
        drop(channel);
}
