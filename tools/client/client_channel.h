// The client's asynchronous half: streams in both directions that last, for a program with one loop.
//
// One thread owns a loop and its streams and calls everything here, but for client_loop_wake, which is for any thread.
// A stream has one message on its way out at a time, so what is to be said next is decided when it can be said, and a
// caller's bounds are its own: nothing is queued here. Messages come one at a time too: the next is asked of the
// network when the loop is asked again.
#pragma once

#include "tools/client/client.h"

#include <stdint.h>

struct client_loop;
struct client_channel;

struct client_event {
        enum {
                CLIENT_NOTHING,  // the time is over
                CLIENT_WOKEN,    // client_loop_wake was called, once or more often
                CLIENT_RECEIVED, // a message
                CLIENT_SENT,     // the message is on its way (not: has arrived); the next one can be sent
                CLIENT_ENDED,    // the last event of a stream; client_channel_free is to follow
        } kind;
        void *owner;               // of the stream
        const void *data;          // RECEIVED: as it came; until the loop is asked again
        size_t size;               // of that
        struct client_error error; // ENDED: the status; the caller's, see client_error_clear
};

// NULL: no memory.
struct client_loop *client_loop_new(void);

// All streams must have ended and been freed.
void client_loop_free(struct client_loop *loop);

// Waits for what happens next, at most so long (of the time that passes while the machine is awake).
void client_loop_next(struct client_loop *loop, int64_t timeout_ms, struct client_event *ret_event);

// Makes client_loop_next return, now or when it is next called.
void client_loop_wake(struct client_loop *loop);

// Opens a stream on a connection of its own; `owner` comes back with its events. NULL with *ret_error (malloc'ed; NULL:
// no memory) on bad settings; anything else that goes wrong comes as ENDED.
struct client_channel *client_channel_open(struct client_loop *loop, const struct client_settings *settings,
        const char *method, void *owner, char **ret_error) __attribute__((warn_unused_result));

// Sends a message: a copy of the data. Not before SENT came for the one before it.
void client_channel_send(struct client_channel *channel, const void *data, size_t size);

// Says that no more messages come. After the last SENT.
void client_channel_half_close(struct client_channel *channel);

// Ends the stream from this side; ENDED comes soon.
void client_channel_cancel(struct client_channel *channel);

// Only after ENDED. Takes NULL.
void client_channel_free(struct client_channel *channel);
