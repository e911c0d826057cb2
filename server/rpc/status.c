#include "server/rpc/status.h"

#include "server/utf8.h"

#include <google/protobuf/any.pb-c.h>
#include <google/protobuf/duration.pb-c.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// A message and the longest ErrorInfo fit together.
enum { DETAILS_MAX = 5, STATUS_SIZE_MAX = 4000, MESSAGE_MAX = 1000, METADATA_VALUE_MAX = 200 };

const char *code_text(enum code code) {
        static const char *const texts[CODE_COUNT] = {
                [CODE_OK] = "OK",
                [CODE_CANCELLED] = "CANCELLED",
                [CODE_UNKNOWN] = "UNKNOWN",
                [CODE_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
                [CODE_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
                [CODE_NOT_FOUND] = "NOT_FOUND",
                [CODE_ALREADY_EXISTS] = "ALREADY_EXISTS",
                [CODE_PERMISSION_DENIED] = "PERMISSION_DENIED",
                [CODE_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
                [CODE_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
                [CODE_ABORTED] = "ABORTED",
                [CODE_OUT_OF_RANGE] = "OUT_OF_RANGE",
                [CODE_UNIMPLEMENTED] = "UNIMPLEMENTED",
                [CODE_INTERNAL] = "INTERNAL",
                [CODE_UNAVAILABLE] = "UNAVAILABLE",
                [CODE_DATA_LOSS] = "DATA_LOSS",
                [CODE_UNAUTHENTICATED] = "UNAUTHENTICATED",
        };
        return code < CODE_COUNT ? texts[code] : "UNKNOWN";
}

static void refuse(struct call *call, enum code code, const char *reason, const char *format, va_list args) {
        char text[MESSAGE_MAX];
        vsnprintf(text, sizeof text, format, args);
        utf8_mend(text); // it may be cut, and so may what it quotes
        char *message = arena_copy(&call->arena, text, strlen(text));
        call->refusal.code = code;
        call->refusal.reason = reason;
        call->refusal.message = message ? message : "out of memory for this call";
}

bool call_refuse(struct call *call, enum code code, const char *reason, const char *format, ...) {
        if (call->refusal.code != CODE_OK)
                return false;
        va_list args;
        va_start(args, format);
        refuse(call, code, reason, format, args);
        va_end(args);
        return false;
}

bool call_refuse_field(struct call *call, const char *field, const char *format, ...) {
        if (call->refusal.code != CODE_OK && call->refusal.code != CODE_INVALID_ARGUMENT)
                return false;
        char why[MESSAGE_MAX / 2];
        va_list args;
        va_start(args, format);
        vsnprintf(why, sizeof why, format, args);
        va_end(args);
        utf8_mend(why);
        struct refusal *refusal = &call->refusal;
        if (refusal->code == CODE_OK)
                call_refuse(call, CODE_INVALID_ARGUMENT, "FIELD_INVALID", "%s: %s", field ? field : "request", why);
        const char *name = arena_copy(&call->arena, field ? field : "", field ? strlen(field) : 0);
        const char *text = arena_copy(&call->arena, why, strlen(why));
        if (name && text && refusal->violation_count < VIOLATIONS_MAX) {
                refusal->violations[refusal->violation_count].name = name;
                refusal->violations[refusal->violation_count++].value = text;
        }
        return false;
}

void call_refusal_metadata(struct call *call, const char *name, const char *value) {
        if (call->refusal.metadata_count < METADATA_MAX && name && value) {
                call->refusal.metadata[call->refusal.metadata_count].name = name;
                call->refusal.metadata[call->refusal.metadata_count++].value = value;
        }
}

static char *unconst(const char *text) { return (char *)(uintptr_t)(text ? text : ""); }

// The text, or as much of it as metadata may have.
static char *shortened(struct arena *arena, const char *text) {
        if (strlen(text) <= METADATA_VALUE_MAX)
                return unconst(text);
        char *copy = arena_copy(arena, text, METADATA_VALUE_MAX);
        if (copy)
                utf8_mend(copy);
        return unconst(copy);
}

// Adds a packed detail. What does not fit is left out: the code and the message say the essential.
static bool add(struct arena *arena, Google__Rpc__Status *status, const ProtobufCMessage *detail) {
        size_t size = protobuf_c_message_get_packed_size(detail);
        Google__Protobuf__Any *any = arena_alloc(arena, sizeof *any);
        char *url = arena_printf(arena, "type.googleapis.com/%s", detail->descriptor->name);
        unsigned char *data = arena_alloc(arena, size + 1);
        if (!any || !url || !data)
                return false;
        google__protobuf__any__init(any);
        any->type_url = url;
        any->value = (ProtobufCBinaryData){size, data};
        protobuf_c_message_pack(detail, data);
        status->details[status->n_details++] = any;
        if (google__rpc__status__get_packed_size(status) <= STATUS_SIZE_MAX)
                return true;
        status->n_details--;
        return false;
}

static void add_error_info(struct call *call, Google__Rpc__Status *status) {
        const struct refusal *refusal = &call->refusal;
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        Google__Rpc__ErrorInfo__MetadataEntry entries[METADATA_MAX + 1], *list[METADATA_MAX + 1];
        for (unsigned i = 0; i < refusal->metadata_count; i++) {
                google__rpc__error_info__metadata_entry__init(&entries[i]);
                entries[i].key = unconst(refusal->metadata[i].name);
                entries[i].value = shortened(&call->arena, refusal->metadata[i].value);
                list[i] = &entries[i];
        }
        google__rpc__error_info__metadata_entry__init(&entries[refusal->metadata_count]);
        entries[refusal->metadata_count].key = unconst("request_id");
        entries[refusal->metadata_count].value = call->request_id;
        list[refusal->metadata_count] = &entries[refusal->metadata_count];
        info.reason = unconst(refusal->reason);
        info.domain = unconst("devopsgenie.dev");
        info.n_metadata = refusal->metadata_count + 1;
        info.metadata = list;
        add(&call->arena, status, &info.base);
}

static void add_bad_request(struct call *call, Google__Rpc__Status *status) {
        Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
        Google__Rpc__BadRequest__FieldViolation fields[VIOLATIONS_MAX], *list[VIOLATIONS_MAX];
        for (unsigned i = 0; i < call->refusal.violation_count; i++) {
                google__rpc__bad_request__field_violation__init(&fields[i]);
                fields[i].field = unconst(call->refusal.violations[i].name);
                fields[i].description = unconst(call->refusal.violations[i].value);
                list[i] = &fields[i];
        }
        bad.n_field_violations = call->refusal.violation_count;
        bad.field_violations = list;
        while (bad.n_field_violations && !add(&call->arena, status, &bad.base))
                bad.n_field_violations--; // as many as fit
}

static void add_precondition(struct call *call, Google__Rpc__Status *status) {
        Google__Rpc__PreconditionFailure failure = GOOGLE__RPC__PRECONDITION_FAILURE__INIT;
        Google__Rpc__PreconditionFailure__Violation violation, *list = &violation;
        google__rpc__precondition_failure__violation__init(&violation);
        violation.type = unconst(call->refusal.precondition);
        violation.subject = unconst(call->name);
        violation.description = unconst(call->refusal.message);
        failure.n_violations = 1;
        failure.violations = &list;
        if (call->refusal.precondition)
                add(&call->arena, status, &failure.base);
}

static void add_resource(struct call *call, Google__Rpc__Status *status) {
        Google__Rpc__ResourceInfo info = GOOGLE__RPC__RESOURCE_INFO__INIT;
        info.resource_type = unconst(call->method ? call->method->name.type : NULL);
        info.resource_name = unconst(call->name);
        info.description = unconst(call->refusal.message);
        if (call->refusal.about_resource && call->name)
                add(&call->arena, status, &info.base);
}

static void add_retry(struct call *call, Google__Rpc__Status *status) {
        Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
        Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
        delay.seconds = call->refusal.retry_ms / 1000;
        delay.nanos = (int)(call->refusal.retry_ms % 1000) * 1000000;
        info.retry_delay = &delay;
        if (call->refusal.retry_ms)
                add(&call->arena, status, &info.base);
}

size_t status_pack(struct call *call, const unsigned char **ret_data) {
        Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
        Google__Protobuf__Any *details[DETAILS_MAX + 1];
        status.code = (int)call->refusal.code;
        status.message = unconst(call->refusal.message);
        status.details = details;
        add_error_info(call, &status);
        add_bad_request(call, &status);
        add_precondition(call, &status);
        add_resource(call, &status);
        add_retry(call, &status);
        size_t size = google__rpc__status__get_packed_size(&status);
        unsigned char *data = arena_alloc(&call->arena, size);
        if (!data || size > STATUS_SIZE_MAX + 100)
                return 0;
        google__rpc__status__pack(&status, data);
        *ret_data = data;
        return size;
}
