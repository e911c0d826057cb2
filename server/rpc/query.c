#include "server/rpc/query.h"

#include "server/identity.h"
#include "server/rpc/refuse.h"
#include "server/rpc/server_private.h"
#include "storage/uuid.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PAGE_DEFAULT = 50, PAGE_MAX = 1000, RETRY_MS = 1000, CONTEXT_MAX = 512 };

static bool is_stream(const struct core_call *call) { return call->call.method->stream != NULL; }

// --- Sending ---

// What statements call the caller: a service by its role.
static const char *caller_kind(const struct principal *principal) {
        static const char *const kinds[] = {"", "user", "", "api_key", "agent"};
        static const char *const services[] = {"", "platform-admin", "scanner", "assistant"};
        return principal->kind == PRINCIPAL_SERVICE ? services[principal->service_role] : kinds[principal->kind];
}

// Its number; 0 for a caller that is no member.
static const char *caller_role(const struct principal *principal) {
        static const char *const roles[] = {"0", "1", "2", "3", "4", "5"};
        return roles[principal->role];
}

static void *member(const ProtobufCMessage *message, const char *name) {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
                message->descriptor, name);
        return field ? (void *)((uintptr_t)message + field->offset) : NULL;
}

// CreateOrganization: its tenant is the organization that it makes, with the slug that the request chooses (AIP-133).
static bool makes_tenant(const struct core_call *call) {
        return call->call.method->kind == METHOD_CREATE && !call->call.method->name.field;
}

// The tenant is the organization that the request names; for an API key or an agent without one, its own; for a
// new organization, itself.
static const char *tenant(const struct core_call *call) {
        return makes_tenant(call) ? call->call.new_id : call->call.principal.organization_id;
}

static const char *slug(const struct core_call *call) {
        char *const *chosen = makes_tenant(call) ? member(call->call.request, "organization_id") : NULL;
        return chosen                    ? *chosen
               : call->call.organization ? call->call.organization
                                         : call->call.principal.organization_slug;
}

static struct binding_values values_of(const struct core_call *call) {
        const struct principal *principal = &call->call.principal;
        return (struct binding_values){
                .organization_id = tenant(call),
                .organization_slug = slug(call),
                .name_values = call->call.name_values,
                .caller_id = principal->caller,
                .caller_subject = principal->subject,
                .caller_email = principal->email,
                .caller_kind = caller_kind(principal),
                .caller_role = caller_role(principal),
                .new_id = call->call.new_id,
                .given = call->call.given,
        };
}

static struct arena *query_arena(struct core_call *call) {
        return is_stream(call) && call->started ? message_arena(call) : &call->call.arena;
}

static bool bind_parameters(
        struct core_call *call, const ProtobufCMessage *request, const struct binding_values *values) {
        const char *field, *reason;
        struct storage_operation *operation = &call->operation;
        switch (binding_parameters(
                call->binding, request, values, query_arena(call), &operation->parameters, &field, &reason)) {
        case BINDING_OK:
                return true;
        case BINDING_INVALID:
                return call_refuse_field(&call->call, field, "%s", reason);
        case BINDING_TOO_MUCH:
                return call_refuse(&call->call, CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                        "the request needs more memory than a call may have");
        case BINDING_BROKEN:
        default:
                return call_fail(&call->call, "parameters do not bind");
        }
}

static bool submit(struct core_call *call, void (*done)(struct storage_operation *, enum storage_outcome, PGresult *)) {
        struct storage_operation *operation = &call->operation;
        operation->statement = binding_statement(call->binding);
        operation->organization_id = tenant(call);
        operation->caller = *call->call.principal.caller ? call->call.principal.caller : "system";
        operation->method = call->call.method->full_name;
        operation->request_id = call->call.request_id;
        operation->deadline = call->call.deadline;
        operation->cancelled = false;
        operation->done = done;
        operation->keeps_result = is_stream(call);
        pthread_mutex_lock(&call->lock);
        bool gone = (call->gone || (is_stream(call) && call->is_closed)) && !call->cleaning;
        call->under_way = !gone;
        bool taken = !gone && storage_submit(call->call.server->config.storage, operation);
        if (!taken)
                call->under_way = false;
        pthread_mutex_unlock(&call->lock);
        if (gone)
                return call_refuse(&call->call, CODE_CANCELLED, "CANCELLED", "the caller has gone");
        if (!taken) {
                call_refuse(
                        &call->call, CODE_UNAVAILABLE, "DATABASE_BUSY", "too many statements wait for the database");
                call->call.refusal.retry_ms = RETRY_MS;
        }
        return taken;
}

static void ended(struct core_call *call) {
        pthread_mutex_lock(&call->lock);
        call->under_way = false;
        call->query_finished = is_stream(call); // at once: a stream that closes waits for the one or the other
        pthread_mutex_unlock(&call->lock);
}

// --- A method's own statement ---

// What a page token is bound to: tenant, caller, method and all arguments but the page's own (AIP-158).
static size_t page_context(struct core_call *call, unsigned char ret_context[CONTEXT_MAX]) {
        ProtobufCMessage *request = call->call.request;
        int32_t *size = member(request, "page_size"), kept_size = size ? *size : 0;
        char **token = member(request, "page_token"), *kept_token = token ? *token : NULL;
        if (!size || !token)
                return 0;
        *size = 0;
        *token = (char *)(uintptr_t)protobuf_c_empty_string;
        size_t packed = protobuf_c_message_get_packed_size(request);
        unsigned char *bytes = arena_alloc(&call->call.arena, packed + 1);
        if (bytes)
                protobuf_c_message_pack(request, bytes);
        *size = kept_size;
        *token = kept_token;
        if (!bytes)
                return 0;
        SHA256(bytes, packed, ret_context);
        int written = snprintf((char *)ret_context + SHA256_DIGEST_LENGTH, CONTEXT_MAX - SHA256_DIGEST_LENGTH, "%s|%s",
                tenant(call), call->call.method->full_name);
        return SHA256_DIGEST_LENGTH + (size_t)(written > 0 ? written : 0);
}

static long page_size(const struct core_call *call) {
        const int32_t *size = member(call->call.request, "page_size");
        return !size || !*size ? PAGE_DEFAULT : *size > PAGE_MAX ? PAGE_MAX : *size;
}

static bool open_page(struct core_call *call, struct binding_values *values) {
        const int32_t *size = member(call->call.request, "page_size");
        char *const *token = member(call->call.request, "page_token");
        values->page_size = page_size(call);
        if (size && *size < 0)
                return call_refuse_field(&call->call, "page_size", "is negative");
        if (!token || !**token)
                return true;
        unsigned char context[CONTEXT_MAX];
        size_t context_size = page_context(call, context);
        char *cursor = arena_alloc(&call->call.arena, strlen(*token) + 1);
        if (!context_size || !cursor)
                return call_fail(&call->call, "arena");
        if (!page_token_open(call->call.server->config.vault, context, context_size, *token, time(NULL), cursor,
                    &values->cursor_size))
                return call_refuse_field(&call->call, "page_token",
                        "is not the next_page_token of this very list with the same arguments, or is older than %d "
                        "days",
                        PAGE_TOKEN_DAYS);
        values->cursor = cursor;
        return true;
}

static bool seal_page(struct core_call *call, const PGresult *result, ProtobufCMessage *response) {
        const char *cursor;
        size_t size;
        if (binding_cursor(call->binding, result, page_size(call), &call->call.arena, &cursor, &size) != BINDING_OK)
                return call_fail(&call->call, "no cursor");
        if (!size)
                return true;
        unsigned char context[CONTEXT_MAX];
        size_t context_size = page_context(call, context);
        char *token = arena_alloc(&call->call.arena, page_token_size(size));
        if (!context_size || !token ||
                !page_token_seal(
                        call->call.server->config.vault, context, context_size, cursor, size, time(NULL), token))
                return call_fail(&call->call, "no page token");
        char **place = member(response, "next_page_token");
        if (place)
                *place = token;
        return true;
}

static bool refuse_missing(struct core_call *call) {
        call_refuse(&call->call, CODE_NOT_FOUND, "NOT_FOUND", "there is no %s",
                call->call.name ? call->call.name : "such thing");
        call->call.refusal.about_resource = true;
        return false;
}

static bool respond(struct core_call *call, const PGresult *result) {
        const struct method *method = call->call.method;
        if (refuse_by_row(call, result))
                return false;
        // A List of an organization may be empty; one below a resource gives no row only where there is no such
        // resource.
        bool is_list = binding_is_list(call->binding);
        if (!PQntuples(result) && (!is_list || call->call.name_values[1]))
                return refuse_missing(call);
        ProtobufCMessage *response = arena_alloc(&call->call.arena, method->response->sizeof_message);
        if (!response)
                return call_fail(&call->call, "arena");
        protobuf_c_message_init(method->response, response);
        switch (binding_response(call->binding, result, is_list ? page_size(call) : 1, &call->call.arena, response)) {
        case BINDING_OK:
                break;
        case BINDING_TOO_MUCH:
                return call_refuse(&call->call, CODE_RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE",
                        "the answer is too large; ask for a smaller page");
        case BINDING_INVALID:
        case BINDING_BROKEN:
        default:
                return call_fail(&call->call, "a row does not fit its message");
        }
        call->call.response = response;
        return (!is_list || seal_page(call, result, response)) &&
               (!method->after || method->after(&call->call, response));
}

static void method_done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result);

// A Create without a row has lost a race for its request_id: the winner's row is there by now.
static bool run_again(struct core_call *call, enum storage_outcome outcome, const PGresult *result) {
        if (call->call.method->kind != METHOD_CREATE || outcome != STORAGE_OK || PQntuples(result) || call->again)
                return false;
        call->again = true;
        return submit(call, method_done);
}

static void method_done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct core_call *call = TAG_OWNER(operation, operation);
        ended(call);
        if (run_again(call, outcome, result))
                return;
        if (call->call.refusal.code == CODE_OK && call_check_outcome(call, outcome, result) && respond(call, result) &&
                call->call.method->access_changes)
                identity_forget(call->call.server->config.identity);
        unary_answer(call);
}

bool query_method(struct core_call *call) {
        const struct method *method = call->call.method;
        call->binding = call->call.server->config.method_bindings[method - methods];
        if (method->lane != LANE_READ)
                uuid_v7_text(call->call.new_id);
        if (method->before && !method->before(&call->call))
                return false;
        struct binding_values values = values_of(call);
        if (binding_is_list(call->binding) && !open_page(call, &values))
                return false;
        return bind_parameters(call, call->call.request, &values) && submit(call, method_done);
}

// --- Statements that C asks for ---

const struct binding *server_binding(const struct server *server, enum internal_statement statement) {
        return server->config.internal_bindings[statement];
}

// A stream's result waits for the stream thread; a unary call goes on here, on the storage thread.
static void query_ended(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct core_call *call = TAG_OWNER(operation, operation);
        if (is_stream(call)) {
                call->query_result = result;
                call->query_outcome = outcome;
                call_hold(call); // another wake may take the result, and let go of the call, before this one is sent
                ended(call);
                stream_take_result(call);
                call_release(call);
                return;
        }
        ended(call);
        if (call_check_outcome(call, outcome, result))
                call->query_done(&call->call, result);
        call_run(call);
}

void query_deliver(struct core_call *call) {
        PGresult *result = call->query_result;
        call->query_result = NULL;
        if (call->call.refusal.code == CODE_OK && call_check_outcome(call, call->query_outcome, result) &&
                !refuse_by_row(call, result))
                call->query_done(&call->call, result);
        PQclear(result);
}

bool call_query(
        struct call *c, enum internal_statement statement, const ProtobufCMessage *request, call_query_done *done) {
        struct core_call *call = core_of(c);
        call->binding = server_binding(c->server, statement);
        call->query_done = done;
        uuid_v7_text(c->new_id);
        struct binding_values values = values_of(call);
        if (!bind_parameters(call, request, &values))
                return false;
        if (is_stream(call))
                call_hold(call); // until the stream thread has taken the result
        if (submit(call, query_ended))
                return true;
        if (is_stream(call))
                call_release(call);
        return false;
}
