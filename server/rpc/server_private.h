#pragma once

#include "server/rpc/call_private.h"
#include "server/rpc/outbox.h"
#include "server/rpc/server.h"

enum { CALL_THREADS_MAX = 16, FIRST_MESSAGE_SECONDS = 10 };

// A call thread, and what the storage thread has for it.
struct call_thread {
        pthread_t thread;
        grpc_completion_queue *queue;
        struct outbox outbox;
};

struct server {
        struct server_config config;
        grpc_server *core;
        struct call_thread call_threads[CALL_THREADS_MAX];
        grpc_completion_queue *stream_queue;
        pthread_t stream_thread;
        unsigned call_thread_count;
        atomic_uint in_flight, streams; // calls that are answered at once, and those that stay
        atomic_ulong answered, refused;
        atomic_bool serving, stopping;
        pthread_mutex_t silent_lock;
        struct core_call *silent; // streams whose first message has not come, or that end and are not read
};

grpc_server_credentials *tls_credentials(const char *certificate, const char *key, char **ret_error);
