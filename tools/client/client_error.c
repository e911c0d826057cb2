#include "tools/client/client_error.h"

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const code_names[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
        "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};

const char *client_code_name(int code) {
        if (code < 0 || (size_t)code >= sizeof code_names / sizeof *code_names)
                return "UNKNOWN";
        return code_names[code];
}

static void __attribute__((format(printf, 2, 3))) add_line(struct client_error *error, const char *format, ...) {
        va_list arguments;

        if (error->n_details == CLIENT_DETAILS_MAX)
                return;
        va_start(arguments, format);
        if (vasprintf(&error->details[error->n_details], format, arguments) >= 0)
                error->n_details++;
        va_end(arguments);
}

static void add_error_info(struct client_error *error, const ProtobufCMessage *message) {
        const Google__Rpc__ErrorInfo *info = (const void *)message;

        free(error->reason);
        error->reason = strdup(info->reason);
        for (size_t i = 0; i < info->n_metadata; i++)
                add_line(error, "%s: %s", info->metadata[i]->key, info->metadata[i]->value);
}

static void add_bad_request(struct client_error *error, const ProtobufCMessage *message) {
        const Google__Rpc__BadRequest *bad = (const void *)message;

        for (size_t i = 0; i < bad->n_field_violations; i++)
                add_line(error, "%s: %s", bad->field_violations[i]->field, bad->field_violations[i]->description);
}

static void add_precondition_failure(struct client_error *error, const ProtobufCMessage *message) {
        const Google__Rpc__PreconditionFailure *failure = (const void *)message;

        for (size_t i = 0; i < failure->n_violations; i++)
                add_line(error, "%s %s: %s", failure->violations[i]->type, failure->violations[i]->subject,
                        failure->violations[i]->description);
}

static void add_quota_failure(struct client_error *error, const ProtobufCMessage *message) {
        const Google__Rpc__QuotaFailure *failure = (const void *)message;

        for (size_t i = 0; i < failure->n_violations; i++)
                add_line(error, "%s: %s", failure->violations[i]->subject, failure->violations[i]->description);
}

static void add_resource_info(struct client_error *error, const ProtobufCMessage *message) {
        const Google__Rpc__ResourceInfo *info = (const void *)message;

        add_line(error, "%s %s%s%s", info->resource_type, info->resource_name, *info->description ? ": " : "",
                info->description);
}

static void add_retry_info(struct client_error *error, const ProtobufCMessage *message) {
        const Google__Rpc__RetryInfo *info = (const void *)message;
        const int64_t day = INT64_C(24) * 60 * 60;

        if (!info->retry_delay || info->retry_delay->seconds < 0 || info->retry_delay->nanos < 0)
                return;
        error->retry_delay_ms = info->retry_delay->seconds >= day
                                        ? day * 1000
                                        : info->retry_delay->seconds * 1000 + info->retry_delay->nanos / 1000000;
}

static const struct {
        const ProtobufCMessageDescriptor *type;
        void (*add)(struct client_error *error, const ProtobufCMessage *message);
} detail_types[] = {
        {&google__rpc__error_info__descriptor, add_error_info},
        {&google__rpc__bad_request__descriptor, add_bad_request},
        {&google__rpc__precondition_failure__descriptor, add_precondition_failure},
        {&google__rpc__quota_failure__descriptor, add_quota_failure},
        {&google__rpc__resource_info__descriptor, add_resource_info},
        {&google__rpc__retry_info__descriptor, add_retry_info},
};

static void add_detail(struct client_error *error, const Google__Protobuf__Any *any) {
        const char *type = strrchr(any->type_url, '/');

        for (size_t i = 0; type && i < sizeof detail_types / sizeof *detail_types; i++) {
                if (strcmp(type + 1, detail_types[i].type->name) != 0)
                        continue;
                ProtobufCMessage *message = protobuf_c_message_unpack(
                        detail_types[i].type, NULL, any->value.len, any->value.data);
                if (message)
                        detail_types[i].add(error, message);
                protobuf_c_message_free_unpacked(message, NULL);
                return;
        }
}

void client_error_decode(
        struct client_error *ret_error, int code, const char *message, const void *details, size_t size) {
        *ret_error = (struct client_error){.code = code, .message = strdup(message), .reason = strdup("")};
        if (size == 0)
                return;
        Google__Rpc__Status *status = google__rpc__status__unpack(NULL, size, details);
        for (size_t i = 0; status && i < status->n_details; i++)
                add_detail(ret_error, status->details[i]);
        google__rpc__status__free_unpacked(status, NULL);
}

void client_error_clear(struct client_error *error) {
        free(error->message);
        free(error->reason);
        for (size_t i = 0; i < error->n_details; i++)
                free(error->details[i]);
        *error = (struct client_error){0};
}
