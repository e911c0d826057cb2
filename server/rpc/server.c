#include "server/log.h"
#include "server/rpc/health.h"
#include "server/rpc/server_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grpc/grpc_security.h>
#if __has_include(<grpc/credentials.h>)
#include <grpc/credentials.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
        ACCEPTORS = 32,
        STREAM_ACCEPTORS = 4,
        METADATA_BYTES = 65536,
        KEEPALIVE_MS = 60000,
        KEEPALIVE_TIMEOUT_MS = 20000,
        AWAIT_CALLS_MS = 10000
};

// A request for the next call, posted with core: generic ones for unary calls, registered ones for streams, since the
// queue of a call must be named before its method is known. Armed again as soon as it fires.
struct acceptor {
        struct tag tag; // first
        struct server *server;
        const struct method *method; // NULL: any unary one
        void *registered;
        struct call_thread *thread; // where calls arrive, and where unary ones live
        grpc_call *call;
        grpc_call_details details;
        grpc_metadata_array metadata;
        gpr_timespec deadline;
};

int64_t now_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void accepted(struct tag *tag, bool ok);

static bool arm(struct acceptor *acceptor) {
        tag_arm(&acceptor->tag, accepted);
        grpc_metadata_array_init(&acceptor->metadata);
        grpc_call_error error;
        if (acceptor->registered)
                error = grpc_server_request_registered_call(acceptor->server->core, acceptor->registered,
                        &acceptor->call, &acceptor->deadline, &acceptor->metadata, NULL, acceptor->server->stream_queue,
                        acceptor->thread->queue, acceptor);
        else {
                grpc_call_details_init(&acceptor->details);
                error = grpc_server_request_call(acceptor->server->core, &acceptor->call, &acceptor->details,
                        &acceptor->metadata, acceptor->thread->queue, acceptor->thread->queue, acceptor);
        }
        return error == GRPC_CALL_OK;
}

static int64_t monotonic(gpr_timespec deadline) {
        gpr_timespec left = gpr_time_sub(
                gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC), gpr_now(GPR_CLOCK_MONOTONIC));
        if (left.tv_sec > 1000000000)
                return INT64_MAX;
        return now_ns() + left.tv_sec * INT64_C(1000000000) + left.tv_nsec;
}

// Hands a new call over. The method of a generic call is looked up here; an unknown one is answered by the steps.
static void take(struct acceptor *acceptor) {
        const struct method *method = acceptor->method;
        gpr_timespec deadline = acceptor->deadline;
        char path[128] = "";
        if (!method) {
                size_t size = GRPC_SLICE_LENGTH(acceptor->details.method);
                const char *text = (const char *)GRPC_SLICE_START_PTR(acceptor->details.method);
                method = method_find(text, size);
                if (method && method->stream) // not registered: reflection that is turned off
                        method = NULL;
                snprintf(path, sizeof path, "%.*s", (int)(size < sizeof path ? size : sizeof path - 1), text);
                deadline = acceptor->details.deadline;
        }
        struct core_call *call = call_new(acceptor->server, acceptor->call, method);
        if (!call) {
                grpc_call_cancel_with_status(acceptor->call, GRPC_STATUS_RESOURCE_EXHAUSTED, "out of memory", NULL);
                grpc_call_unref(acceptor->call);
                grpc_metadata_array_destroy(&acceptor->metadata);
        } else {
                call->metadata = acceptor->metadata;
                call->outbox = &acceptor->thread->outbox;
                call->call.deadline = monotonic(deadline);
                if (!method)
                        call_refuse(&call->call, CODE_UNIMPLEMENTED, "METHOD_UNKNOWN", "there is no method %s", path);
                if (method && method->stream)
                        stream_accept(call);
                else
                        unary_accept(call);
        }
        if (!acceptor->registered)
                grpc_call_details_destroy(&acceptor->details);
}

static void accepted(struct tag *tag, bool ok) {
        struct acceptor *acceptor = (struct acceptor *)(void *)tag;
        if (ok)
                take(acceptor);
        else if (!acceptor->registered)
                grpc_call_details_destroy(&acceptor->details);
        if (!ok)
                grpc_metadata_array_destroy(&acceptor->metadata);
        if (!ok || atomic_load(&acceptor->server->stopping) || !arm(acceptor))
                free(acceptor);
}

static void *drive(void *queue) {
        for (;;) {
                grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
                if (event.type == GRPC_QUEUE_SHUTDOWN)
                        return NULL;
                struct tag *tag = event.tag;
                atomic_load_explicit(&tag->fire, memory_order_acquire)(tag, event.success != 0);
        }
}

static void *drive_calls(void *argument) {
        struct call_thread *thread = argument;
        outbox_open(&thread->outbox);
        return drive(thread->queue);
}

static bool post(struct server *server, struct call_thread *thread, const struct method *method, void *registered,
        unsigned count) {
        for (unsigned i = 0; i < count; i++) {
                struct acceptor *acceptor = calloc(1, sizeof *acceptor);
                if (!acceptor)
                        return false;
                *acceptor = (struct acceptor){
                        .server = server, .thread = thread, .method = method, .registered = registered};
                if (!arm(acceptor)) {
                        free(acceptor);
                        return false;
                }
        }
        return true;
}

static grpc_arg integer(const char *key, int value) {
        return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};
}

static grpc_server *new_core(const struct server_config *config) {
        grpc_arg args[] = {
                // Core refuses without details: what is not far over the limit, call_decode refuses with them.
                integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, 2 * (int)config->max_message_bytes),
                integer(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)config->max_streams),
                integer(GRPC_ARG_MAX_METADATA_SIZE, METADATA_BYTES),
                integer(GRPC_ARG_HTTP2_BDP_PROBE, 0),                           // 10 % of the rate of small calls
                integer(GRPC_ARG_ALLOW_REUSEPORT, 0),                           // a port in use is an error
                integer(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1), // no decompression bombs
                integer(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),            // nor the filters for it
                integer(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
                integer(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
                integer(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
                integer(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
                integer(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 20000),
                integer(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2),
        };
        return grpc_server_create(&(grpc_channel_args){sizeof args / sizeof *args, args}, NULL);
}

// Whether somebody listens there already: core reports nothing but a failed bind, so the reason is found beforehand.
static const char *bind_problem(int port) { return port > 0 ? NULL : strerror(errno ? errno : EADDRINUSE); }

static bool listen_on(
        struct server *server, const char *address, grpc_server_credentials *credentials, char **ret_error) {
        errno = 0;
        const char *problem = bind_problem(grpc_server_add_http2_port(server->core, address, credentials));
        if (problem && asprintf(ret_error, "cannot listen on %s: is the port in use? (%s)", address, problem) < 0)
                *ret_error = NULL;
        return !problem;
}

static bool listen_all(struct server *server, char **ret_error) {
        const struct server_config *config = &server->config;
        bool good = true;
        if (config->listen[0]) {
                grpc_server_credentials *tls = tls_credentials(config->tls_certificate, config->tls_key, ret_error);
                good = tls != NULL;
                for (unsigned i = 0; good && config->listen[i]; i++)
                        good = listen_on(server, config->listen[i], tls, ret_error);
                if (tls)
                        grpc_server_credentials_release(tls);
        }
        grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
        for (unsigned i = 0; good && config->listen_plain[i]; i++)
                good = listen_on(server, config->listen_plain[i], plain, ret_error);
        grpc_server_credentials_release(plain);
        return good;
}

static void make_queues(struct server *server) {
        for (unsigned i = 0; i < server->call_thread_count; i++) {
                server->call_threads[i].queue = grpc_completion_queue_create_for_next(NULL);
                grpc_server_register_completion_queue(server->core, server->call_threads[i].queue, NULL);
        }
        grpc_completion_queue_attributes attributes = {1, GRPC_CQ_NEXT, GRPC_CQ_NON_POLLING, NULL};
        server->stream_queue = grpc_completion_queue_create(
                grpc_completion_queue_factory_lookup(&attributes), &attributes, NULL);
}

static bool is_served(const struct server *server, const struct method *method) {
        return server->config.reflection || strncmp(method->service, "grpc.reflection.", 16) != 0;
}

// Streams are registered by path before the start, and asked for after it.
static bool start_accepting(struct server *server) {
        void **registered = calloc(method_count, sizeof *registered);
        if (!registered)
                return false;
        for (unsigned i = 0; i < method_count; i++)
                registered[i] = methods[i].stream && is_served(server, &methods[i])
                                        ? grpc_server_register_method(
                                                  server->core, methods[i].path, NULL, GRPC_SRM_PAYLOAD_NONE, 0)
                                        : NULL;
        grpc_server_start(server->core);
        bool good = true;
        for (unsigned i = 0; i < server->call_thread_count; i++)
                good = good && post(server, &server->call_threads[i], NULL, NULL, ACCEPTORS);
        for (unsigned i = 0; i < method_count; i++)
                if (registered[i])
                        good = good &&
                               post(server, &server->call_threads[0], &methods[i], registered[i], STREAM_ACCEPTORS);
        free(registered);
        return good;
}

static bool start_thread(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *argument) {
        if (pthread_create(ret_thread, NULL, run, argument))
                return false;
        pthread_setname_np(*ret_thread, name);
        return true;
}

struct server *server_start(const struct server_config *config, char **ret_error) {
        *ret_error = NULL;
        struct server *server = calloc(1, sizeof *server);
        if (!server)
                return NULL;
        server->config = *config;
        pthread_mutex_init(&server->silent_lock, NULL);
        server->call_thread_count = config->call_threads < CALL_THREADS_MAX ? config->call_threads : CALL_THREADS_MAX;
        server->core = new_core(config);
        make_queues(server);
        if (!listen_all(server, ret_error)) {
                free(server); // the process ends: core has no way to take back a server that was never started
                return NULL;
        }
        bool good = start_accepting(server) &&
                    start_thread(&server->stream_thread, "stream", drive, server->stream_queue);
        for (unsigned i = 0; good && i < server->call_thread_count; i++)
                good = start_thread(&server->call_threads[i].thread, "call", drive_calls, &server->call_threads[i]);
        if (!good) {
                // Threads that did start use it: the process ends with it.
                *ret_error = strdup("no memory or threads to start with");
                return NULL;
        }
        return server;
}

void server_set_serving(struct server *server, bool serving) {
        if (atomic_exchange(&server->serving, serving) != serving)
                health_changed(server);
}

// Calls that wait for a statement outlive their connections: their queues must too. Bounded by the statement timeouts.
static void await_calls(const struct server *server) {
        for (unsigned i = 0; i < AWAIT_CALLS_MS && (atomic_load(&server->in_flight) || atomic_load(&server->streams));
                i++)
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void server_stop(struct server *server, unsigned timeout_ms) {
        atomic_store(&server->serving, false);
        atomic_store(&server->stopping, true);
        health_changed(server);
        grpc_completion_queue *done = grpc_completion_queue_create_for_pluck(NULL);
        grpc_server_shutdown_and_notify(server->core, done, server);
        gpr_timespec wait = gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
        grpc_event event = grpc_completion_queue_pluck(done, server, wait, NULL);
        if (event.type == GRPC_QUEUE_TIMEOUT) {
                grpc_server_cancel_all_calls(server->core);
                grpc_completion_queue_pluck(done, server, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        }
        grpc_completion_queue_shutdown(done);
        grpc_completion_queue_destroy(done);
        await_calls(server);
        grpc_completion_queue_shutdown(server->stream_queue);
        pthread_join(server->stream_thread, NULL);
        for (unsigned i = 0; i < server->call_thread_count; i++) {
                struct call_thread *thread = &server->call_threads[i];
                grpc_completion_queue_shutdown(thread->queue);
                pthread_join(thread->thread, NULL);
                grpc_completion_queue_destroy(thread->queue);
        }
        grpc_completion_queue_destroy(server->stream_queue);
        grpc_server_destroy(server->core);
}

void server_flush(struct server *server) {
        for (unsigned i = 0; i < server->call_thread_count; i++)
                outbox_flush(&server->call_threads[i].outbox);
}

void server_free(struct server *server) { free(server); }

struct server_stats server_stats(const struct server *server) {
        return (struct server_stats){atomic_load(&server->answered), atomic_load(&server->refused),
                atomic_load(&server->in_flight), atomic_load(&server->streams)};
}
