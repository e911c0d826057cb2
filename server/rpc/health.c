#include "server/rpc/health.h"

#include "server/rpc/server_private.h"

#include <grpc/health/v1/health.pb-c.h>
#include <string.h>

enum { WATCHERS_MAX = 1000 };

typedef Grpc__Health__V1__HealthCheckResponse Response;

// The streams that watch. A watcher leaves before its call ends, so every call in here lives.
static struct {
        pthread_mutex_t lock;
        struct call *calls[WATCHERS_MAX];
        unsigned count;
} watchers = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_known(const char *service) {
        for (unsigned i = 0; i < method_count; i++)
                if (!strcmp(methods[i].service, service))
                        return true;
        return !*service;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus status_of(const struct call *call) {
        const Grpc__Health__V1__HealthCheckRequest *request = (const void *)call->request;
        if (!is_known(request->service))
                return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
        return atomic_load(&call->server->serving)
                       ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                       : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

void health_check(struct call *call);
void health_check(struct call *call) {
        Response *response = arena_alloc(&call->arena, sizeof *response);
        if (!response) {
                call_fail(call, "arena");
                return;
        }
        grpc__health__v1__health_check_response__init(response);
        response->status = status_of(call);
        if (response->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN)
                call_refuse(call, CODE_NOT_FOUND, "SERVICE_UNKNOWN", "this server has no service of that name");
        else
                call->response = &response->base;
}

// Sends the state where it differs from the last one sent. The state sent last stands in call->state, plus one. A
// server that stops ends the stream, or it would wait for its watchers in vain.
static void tell(struct call *call) {
        Response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
        response.status = status_of(call);
        bool news = call->state != (void *)(uintptr_t)(response.status + 1U);
        call->state = (void *)(uintptr_t)(response.status + 1U);
        if (news)
                stream_send(call, &response.base);
        if (atomic_load(&call->server->stopping))
                call_refuse(call, CODE_UNAVAILABLE, "SERVER_STOPPING", "this server stops");
        if (call->refusal.code != CODE_OK)
                stream_finish(call);
}

static bool join(struct call *call) {
        pthread_mutex_lock(&watchers.lock);
        bool room = watchers.count < WATCHERS_MAX;
        if (room)
                watchers.calls[watchers.count++] = call;
        pthread_mutex_unlock(&watchers.lock);
        return room;
}

static void leave(struct call *call) {
        pthread_mutex_lock(&watchers.lock);
        for (unsigned i = 0; i < watchers.count; i++)
                if (watchers.calls[i] == call)
                        watchers.calls[i] = watchers.calls[--watchers.count];
        pthread_mutex_unlock(&watchers.lock);
}

static void watch(struct call *call, ProtobufCMessage *message) {
        (void)message;
        if (!join(call)) {
                call_refuse(
                        call, CODE_RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "%d callers watch already", WATCHERS_MAX);
                stream_finish(call);
                return;
        }
        tell(call);
        stream_read(call);
}

static void ignore_half_close(struct call *call) { (void)call; }

extern const struct stream_handler health_watch;
const struct stream_handler health_watch = {
        .message = watch, .half_closed = ignore_half_close, .woken = tell, .closed = leave};

void health_changed(struct server *server) {
        pthread_mutex_lock(&watchers.lock);
        for (unsigned i = 0; i < watchers.count; i++)
                if (watchers.calls[i]->server == server)
                        stream_wake(watchers.calls[i]);
        pthread_mutex_unlock(&watchers.lock);
}
