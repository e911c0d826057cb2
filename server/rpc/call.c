#include "server/identity.h"
#include "server/log.h"
#include "server/rpc/call_private.h"
#include "server/rpc/name.h"
#include "server/rpc/prescan.h"
#include "server/rpc/query.h"
#include "server/rpc/server_private.h"
#include "server/rpc/status.h"
#include "server/rpc/validate.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARENA_BASE = 1 << 20, ARENA_PER_BYTE = 8, RETRY_MS = 1000 };

// 64 bits that differ from call to call; nobody needs to be unable to guess them. splitmix64, seeded once a thread.
static uint64_t next_id(void) {
        static _Thread_local uint64_t state;
        if (!state && getentropy(&state, sizeof state))
                state = (uint64_t)now_ns();
        uint64_t id = state += 0x9e3779b97f4a7c15;
        id = (id ^ id >> 30) * 0xbf58476d1ce4e5b9;
        id = (id ^ id >> 27) * 0x94d049bb133111eb;
        return id ^ id >> 31;
}

// x-request-id where the caller sent a sane one, else 16 hexadecimal digits.
static void choose_request_id(struct core_call *call, const char *sent, size_t size) {
        char *id = call->call.request_id;
        bool sane = size > 0 && size <= REQUEST_ID_MAX;
        for (size_t i = 0; sane && i < size; i++)
                sane = isalnum((unsigned char)sent[i]) || (sent[i] && strchr("-_.:/+=", sent[i]));
        if (sane) {
                memcpy(id, sent, size);
                id[size] = 0;
                return;
        }
        uint64_t bits = next_id();
        for (unsigned i = 0; i < 16; i++, bits >>= 4)
                id[i] = "0123456789abcdef"[bits & 15];
        id[16] = 0;
}

// The last metadata entry of that key; NULL where there is none.
static const grpc_slice *header(const struct core_call *call, const char *key) {
        size_t size = strlen(key);
        for (size_t i = call->metadata.count; i > 0; i--) {
                const grpc_slice *have = &call->metadata.metadata[i - 1].key;
                if (GRPC_SLICE_LENGTH(*have) == size && !memcmp(GRPC_SLICE_START_PTR(*have), key, size))
                        return &call->metadata.metadata[i - 1].value;
        }
        return NULL;
}

static const char *slice_text(const grpc_slice *slice, size_t *ret_size) {
        *ret_size = slice ? GRPC_SLICE_LENGTH(*slice) : 0;
        return slice ? (const char *)GRPC_SLICE_START_PTR(*slice) : NULL;
}

struct core_call *call_new(struct server *server, grpc_call *core, const struct method *method) {
        struct core_call *call = calloc(1, sizeof *call);
        if (!call)
                return NULL;
        call->call.server = server;
        call->call.method = method;
        call->call.start = now_ns();
        call->core = core;
        call->request_id = grpc_empty_slice();
        call->details = grpc_empty_slice();
        atomic_init(&call->references, 1);
        pthread_mutex_init(&call->lock, NULL);
        arena_init(&call->call.arena, ARENA_BASE + (size_t)ARENA_PER_BYTE * server->config.max_message_bytes);
        for (unsigned i = 0; i < 2; i++)
                arena_init(&call->message_arenas[i],
                        ARENA_BASE + (size_t)ARENA_PER_BYTE * server->config.max_message_bytes);
        return call;
}

static bool is_stream(const struct core_call *call) { return call->call.method && call->call.method->stream; }

void call_hold(struct core_call *call) { atomic_fetch_add(&call->references, 1); }

void call_release(struct core_call *call) {
        if (atomic_fetch_sub(&call->references, 1) != 1)
                return;
        if (call->received)
                grpc_byte_buffer_destroy(call->received);
        if (call->reply)
                grpc_byte_buffer_destroy(call->reply);
        for (struct outgoing *next; call->queue_first; call->queue_first = next) {
                next = call->queue_first->next;
                grpc_byte_buffer_destroy(call->queue_first->buffer);
                free(call->queue_first);
        }
        PQclear(call->query_result);
        grpc_slice_unref(call->request_id);
        grpc_slice_unref(call->details);
        grpc_metadata_array_destroy(&call->metadata);
        grpc_call_unref(call->core);
        atomic_fetch_sub(is_stream(call) ? &call->call.server->streams : &call->call.server->in_flight, 1);
        for (unsigned i = 0; i < 2; i++)
                arena_drop(&call->message_arenas[i], call->call.secret);
        arena_drop(&call->call.arena, call->call.secret);
        pthread_mutex_destroy(&call->lock);
        free(call);
}

bool call_fail(struct call *call, const char *what) {
        core_of(call)->failure = what;
        return call_refuse(
                call, CODE_INTERNAL, "INTERNAL", "an internal error; its request id is %s", call->request_id);
}

void call_note(struct call *call, const char *note) { core_of(call)->failure = note; }

struct identity *server_identity(const struct server *server) { return server->config.identity; }

const struct vault *server_vault(const struct server *server) { return server->config.vault; }

struct channel *server_channel(const struct server *server) { return server->config.channel; }

// --- The steps, in their order; the table is at the end ---

// Limits, and what every later answer needs: request id, deadline.
static enum step_result step_admit(struct core_call *call) {
        struct server *server = call->call.server;
        size_t size;
        const char *sent = slice_text(header(call, "x-request-id"), &size);
        choose_request_id(call, sent, size);
        // Without a deadline of the caller's, one of ours; what takes long has its lane's timeout.
        const struct method *method = call->call.method;
        bool long_lived = method && (method->stream || method->lane == LANE_BULK);
        if (call->call.deadline == INT64_MAX)
                call->call.deadline = long_lived
                                              ? 0
                                              : call->call.start + server->config.default_timeout_ms * INT64_C(1000000);
        if (call->call.refusal.code != CODE_OK)
                return STEP_END;
        bool stream = is_stream(call);
        unsigned limit = stream ? server->config.max_open_streams : server->config.max_calls;
        if (atomic_load(stream ? &server->streams : &server->in_flight) > limit) {
                call_refuse(&call->call, CODE_RESOURCE_EXHAUSTED, stream ? "TOO_MANY_STREAMS" : "TOO_MANY_CALLS",
                        "this server has %u %s, its limit", limit, stream ? "open streams" : "calls in flight");
                call->call.refusal.retry_ms = RETRY_MS;
                return STEP_END;
        }
        return STEP_NEXT;
}

static enum step_result of_identity(enum identity_status status) {
        return status == IDENTITY_KNOWN ? STEP_NEXT : status == IDENTITY_WAIT ? STEP_WAIT : STEP_END;
}

// Who calls. Not asked where nobody needs to say it.
static enum step_result step_authenticate(struct core_call *call) {
        if (call->call.method->access.no_caller)
                return STEP_NEXT;
        size_t authorization_size, key_size;
        const char *authorization = slice_text(header(call, "authorization"), &authorization_size);
        const char *key = slice_text(header(call, "x-api-key"), &key_size);
        enum step_result result = of_identity(identity_authenticate(
                call->call.server->config.identity, &call->call, authorization, authorization_size, key, key_size));
        if (result == STEP_NEXT && call->call.principal.kind == PRINCIPAL_NONE) {
                call_refuse(&call->call, CODE_UNAUTHENTICATED, "CREDENTIALS_MISSING",
                        "no credentials: send `authorization: Bearer` with a JWT or an API key, or `x-api-key`");
                return STEP_END;
        }
        return result;
}

bool call_decode(struct core_call *call, struct arena *arena, ProtobufCMessage **ret_message) {
        const ProtobufCMessageDescriptor *descriptor = call->call.method->request;
        grpc_byte_buffer_reader reader;
        if (!call->received || !grpc_byte_buffer_reader_init(&reader, call->received))
                return call_refuse(
                        &call->call, CODE_INVALID_ARGUMENT, "MESSAGE_MALFORMED", "the request message is missing");
        if (grpc_byte_buffer_length(call->received) > call->call.server->config.max_message_bytes) {
                grpc_byte_buffer_reader_destroy(&reader);
                return call_refuse(&call->call, CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                        "the message is larger than %u bytes", call->call.server->config.max_message_bytes);
        }
        grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
        const char *field,
                *problem = prescan(descriptor, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes), &field);
        if (problem)
                call_refuse_field(&call->call, field, "%s", problem);
        else if (!(*ret_message = protobuf_c_message_unpack(descriptor, arena_protobuf_allocator(arena),
                           GRPC_SLICE_LENGTH(bytes), GRPC_SLICE_START_PTR(bytes))))
                call_refuse(&call->call, CODE_INVALID_ARGUMENT, "MESSAGE_MALFORMED",
                        "the request message cannot be read as %s, or holds too many elements", descriptor->name);
        grpc_slice_unref(bytes);
        grpc_byte_buffer_destroy(call->received);
        call->received = NULL;
        return !problem && *ret_message;
}

static enum step_result step_decode(struct core_call *call) {
        return call_decode(call, &call->call.arena, &call->call.request) && name_locate(&call->call) ? STEP_NEXT
                                                                                                     : STEP_END;
}

// What the caller is in the organization that the request names.
static enum step_result step_locate(struct core_call *call) {
        if (!call->call.organization || call->call.principal.kind == PRINCIPAL_NONE)
                return STEP_NEXT;
        return of_identity(identity_locate(call->call.server->config.identity, &call->call));
}

// May the caller do this? Before validation and before existence (AIP-211).
static enum step_result step_authorize(struct core_call *call) {
        const struct principal *principal = &call->call.principal;
        switch (access_decide(principal, &call->call.method->access, call->call.organization)) {
        case ACCESS_GRANTED:
                if (!call->call.organization || *principal->organization_id)
                        return STEP_NEXT;
                call_refuse(&call->call, CODE_NOT_FOUND, "NOT_FOUND", "there is no organizations/%s",
                        call->call.organization);
                call->call.refusal.about_resource = true;
                return STEP_END;
        case ACCESS_ORGANIZATION_DELETED:
                call_refuse(&call->call, CODE_FAILED_PRECONDITION, "ORGANIZATION_DELETED",
                        "organizations/%s is deleted; an owner can undelete it", principal->organization_slug);
                call->call.refusal.precondition = "STATE";
                return STEP_END;
        case ACCESS_UNAUTHENTICATED: // step_authenticate has turned these away
        case ACCESS_DENIED:
        default:
                call_refuse(&call->call, CODE_PERMISSION_DENIED, "PERMISSION_DENIED", "%s may not call %s%s%s",
                        principal->caller, call->call.method->full_name,
                        call->call.organization ? " in organizations/" : "",
                        call->call.organization ? call->call.organization : "");
                return STEP_END;
        }
}

static enum step_result step_validate(struct core_call *call) {
        return name_check(&call->call) && validate(&call->call) ? STEP_NEXT : STEP_END;
}

// The statement, or the handler in its place.
static enum step_result step_execute(struct core_call *call) {
        const struct method *method = call->call.method;
        if (method->stream) {
                call->started = true;
                method->stream->message(&call->call, call->call.request);
                return STEP_WAIT; // its handler ends it
        }
        if (method->handler) {
                method->handler(&call->call);
                return STEP_END;
        }
        return query_method(call) ? STEP_WAIT : STEP_END;
}

static enum step_result (*const steps[])(struct core_call *call) = {
        step_admit,
        step_authenticate,
        step_decode,
        step_locate,
        step_authorize,
        step_validate,
        step_execute,
};

void call_run(struct core_call *call) {
        enum step_result result = STEP_NEXT;
        if (call->call.refusal.code != CODE_OK && call->step > 0)
                result = STEP_END; // refused while it waited
        while (result == STEP_NEXT)
                if ((result = steps[call->step](call)) == STEP_NEXT)
                        call->step++;
        if (result != STEP_END)
                return;
        if (call->call.method && call->call.method->stream)
                stream_finish(&call->call);
        else
                unary_answer(call);
}

void call_conclude(struct core_call *call) {
        struct call *c = &call->call;
        bool refused = c->refusal.code != CODE_OK;
        atomic_fetch_add(refused ? &c->server->refused : &c->server->answered, 1);
        log_call(&(struct log_call){
                .method = c->method ? c->method->full_name : "",
                .code = code_text(c->refusal.code),
                .reason = c->refusal.reason,
                .caller = c->principal.caller,
                .organization = c->organization,
                .request_id = c->request_id,
                .failure = call->failure,
                .milliseconds = (double)(now_ns() - c->start) / 1e6,
        });
}

size_t call_trailers(struct core_call *call, grpc_metadata ret_metadata[2]) {
        size_t count = 0;
        call->request_id = grpc_slice_from_copied_string(call->call.request_id);
        ret_metadata[count++] = (grpc_metadata){
                .key = grpc_slice_from_static_string("x-request-id"), .value = call->request_id};
        const unsigned char *data;
        size_t size = call->call.refusal.code == CODE_OK ? 0 : status_pack(&call->call, &data);
        if (size) {
                call->details = grpc_slice_from_copied_buffer((const char *)data, size);
                ret_metadata[count++] = (grpc_metadata){
                        .key = grpc_slice_from_static_string("grpc-status-details-bin"), .value = call->details};
        }
        return count;
}

grpc_byte_buffer *pack_message(const ProtobufCMessage *message) {
        size_t size = protobuf_c_message_get_packed_size(message);
        grpc_slice slice = grpc_slice_malloc(size);
        protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
        grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_slice_unref(slice);
        return buffer;
}
