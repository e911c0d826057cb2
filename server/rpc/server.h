// The gRPC server: listeners, completion queues, threads.
//
// Call threads (one per two cores) own a completion queue each and take new calls and unary work. One stream thread
// owns a queue that does not poll: core scans the outstanding tags of a queue at each completion, and thousands of idle
// streams would slow the unary calls down. Start, stop and health may be called from the main thread only.
#pragma once

#include "auth/token.h"
#include "auth/vault.h"
#include "storage/storage.h"

#include <stdbool.h>
#include <stdint.h>

struct server;
struct identity;
struct channel;
struct binding;

struct server_config {
        const char *const *listen;       // `HOST:PORT` with TLS, NULL-terminated
        const char *const *listen_plain; // `unix:PATH`, or `HOST:PORT` without TLS
        const char *tls_certificate, *tls_key;
        unsigned call_threads, max_calls, max_open_streams, max_message_bytes, max_streams;
        unsigned default_timeout_ms;
        bool reflection;
        struct storage *storage;
        struct identity *identity;
        const struct vault *vault;
        struct channel *channel;
        struct binding *const *method_bindings;   // beside methods[]; NULL where a method has no SQL
        struct binding *const *internal_bindings; // beside enum internal_statement
};

// Starts listening and the threads. NULL with *ret_error (malloc'ed): a port in use, an unreadable certificate.
struct server *server_start(const struct server_config *config, char **ret_error);

// Whether the server says SERVING; watchers are told of a change.
void server_set_serving(struct server *server, bool serving);

// What time does: ends streams whose first message does not come within 10 seconds, and cuts those that have ended and
// are not read to their end (stream_handler.patience). A few times a second.
void server_tick(struct server *server);

// Sends what the storage thread has answered since the last time; on that thread, at the end of its turns.
void server_flush(struct server *server);

// Stops accepting, lets calls in flight finish for at most timeout_ms, cancels the rest, ends the threads.
void server_stop(struct server *server, unsigned timeout_ms);

// After server_stop, when nobody asks for its stats any more.
void server_free(struct server *server);

// Calls by outcome and what is in flight, for the log.
struct server_stats {
        unsigned long answered, refused;
        unsigned in_flight, streams; // calls that are answered at once, and those that stay
};
struct server_stats server_stats(const struct server *server);

// CLOCK_MONOTONIC.
int64_t now_ns(void);

// Set-up of gRPC core before anything else of it: allocation, logging to our log.
void rpc_init(void);
