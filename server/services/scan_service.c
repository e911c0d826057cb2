// ImportResults: a header, batches, the end, each of them one statement. A connection that breaks in between leaves the
// scan RUNNING with a lapsed lease: the next import of the same results continues it, any other takes its place.
#include "server/rpc/call.h"
#include "server/rpc/validate.h"
#include "server/utf8.h"
#include "storage/row.h"

#include <devopsgenie/v1/scan_service.pb-c.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef Devopsgenie__V1__ImportResultsRequest Request;
typedef Devopsgenie__V1__ImportResultsResponse Response;
typedef Devopsgenie__V1__ImportBatch Batch;
typedef Devopsgenie__V1__Evaluation Evaluation;
typedef Devopsgenie__V1__RecordError RecordError;

enum {
        CHECK_MAX = 255,
        SERVICE_MAX = 100,
        UID_MAX = 4000,
        REGION_MAX = 255,
        DETAIL_MAX = 16000,
        ACCOUNT_UID_MAX = 255
};

// A batch or the end, and which results of a batch were refused here.
struct part {
        const Request *request; // NULL: none
        RecordError *refused;
        size_t refused_count;
};

struct import {
        char scan[128], scan_id[UUID_SIZE], account_uid[ACCOUNT_UID_MAX + 1];
        bool started, ended;       // ended: the scan is completed or released
        struct part writing, next; // one is written while the one behind it is read and looked through
};

static void send(struct call *call, Response *response) {
        if (stream_send(call, &response->base))
                stream_read(call);
        else
                stream_finish(call);
}

static void give_scan(struct call *call) {
        const struct import *import = call->state;
        call->given[0] = (struct storage_value){import->scan_id, UUID_TEXT};
}

static bool run(
        struct call *call, enum internal_statement statement, const ProtobufCMessage *request, call_query_done *done) {
        bool under_way = call_query(call, statement, request, done);
        if (!under_way)
                stream_finish(call);
        return under_way;
}

static void released(struct call *call, PGresult *result) {
        (void)call;
        (void)result;
}

// The scan need not wait for its lease to lapse. Where this fails, it does.
static bool release(struct call *call) {
        struct import *import = call->state;
        if (!import || !import->started || import->ended)
                return false;
        import->ended = true;
        give_scan(call);
        return call_query(call, INTERNAL_RELEASE_IMPORT, NULL, released);
}

// Ends the call for a message that is refused, behind which none is read: after the release, since who hears of it may
// begin anew at once.
static void leave(struct call *call) {
        const struct import *import = call->state;
        bool writes = import && import->writing.request;
        if (writes || !release(call))
                stream_finish(call);
}

// --- The header ---

static void started(struct call *call, PGresult *result) {
        struct import *import = call->state;
        if (!PQntuples(result)) {
                call_refuse(call, CODE_NOT_FOUND, "NOT_FOUND", "there is no %s", call->name);
                call->refusal.about_resource = true;
                return;
        }
        row_text(result, 0, "scan", import->scan, sizeof import->scan);
        row_uuid(result, 0, "scan_id", import->scan_id);
        row_text(result, 0, "account_uid", import->account_uid, sizeof import->account_uid);
        import->started = true;
        Response response = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__INIT;
        Devopsgenie__V1__ImportStarted part = DEVOPSGENIE__V1__IMPORT_STARTED__INIT;
        part.scan = import->scan;
        part.next_record = row_int(result, 0, "next_record");
        response.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_STARTED;
        response.started = &part;
        send(call, &response);
}

static void begin(struct call *call, const Request *request) {
        struct import *import = arena_alloc(&call->arena, sizeof *import);
        call->state = import;
        if (!import) {
                call_fail(call, "arena");
                stream_finish(call);
                return;
        }
        run(call, INTERNAL_START_IMPORT, &request->header->base, started);
}

// --- A batch ---

static bool too_long(const char *text, size_t max) { return strlen(text) > max && utf8_length(text) > max; }

// Why a result is refused; NULL where it is good.
static const char *problem(const struct import *import, const Evaluation *evaluation, const char **ret_reason) {
        *ret_reason = "FIELD_INVALID";
        if (strcasecmp(evaluation->account_uid, import->account_uid)) // a UUID or a login is the same in capitals
                return *ret_reason = "ACCOUNT_MISMATCH", "the result is of another account";
        if (evaluation->status < DEVOPSGENIE__V1__EVALUATION__STATUS__PASS ||
                evaluation->status > DEVOPSGENIE__V1__EVALUATION__STATUS__MANUAL)
                return *ret_reason = "STATUS_UNKNOWN", "the status is none of PASS, FAIL and MANUAL";
        if (!*evaluation->check || too_long(evaluation->check, CHECK_MAX))
                return "check is empty or longer than 255 characters";
        if (too_long(evaluation->service, SERVICE_MAX))
                return "service is longer than 100 characters";
        if (too_long(evaluation->resource_uid, UID_MAX) || too_long(evaluation->resource_display_name, UID_MAX))
                return "the resource's uid or name is longer than 4,000 characters";
        if (too_long(evaluation->region, REGION_MAX))
                return "region is longer than 255 characters";
        if (too_long(evaluation->status_detail, DETAIL_MAX))
                return "status_detail is longer than 16,000 characters";
        return NULL;
}

static int known_severity(int severity) {
        bool known = severity >= DEVOPSGENIE__V1__FINDING__SEVERITY__UNKNOWN &&
                     severity <= DEVOPSGENIE__V1__FINDING__SEVERITY__FATAL;
        return known ? severity : DEVOPSGENIE__V1__FINDING__SEVERITY__UNKNOWN;
}

// Takes the results that are refused out of the batch and notes them in part->refused and batch->refused.
static bool sift(struct call *call, const struct import *import, Batch *batch, struct part *part) {
        part->refused = arena_alloc(stream_arena(call), (batch->n_evaluations + 1) * sizeof *part->refused);
        RecordError **all = arena_alloc(
                stream_arena(call), (batch->n_refused + batch->n_evaluations + 1) * sizeof(RecordError *));
        if (!part->refused || !all)
                return call_refuse(
                        call, CODE_RESOURCE_EXHAUSTED, "IMPORT_TOO_MANY_REFUSED", "too many results were refused");
        if (batch->n_refused)
                memcpy(all, batch->refused, batch->n_refused * sizeof(RecordError *));
        size_t kept = 0;
        part->refused_count = 0;
        for (size_t i = 0; i < batch->n_evaluations; i++) {
                const char *reason, *message = problem(import, batch->evaluations[i], &reason);
                batch->evaluations[i]->severity = known_severity((int)batch->evaluations[i]->severity);
                if (!message) {
                        batch->evaluations[kept++] = batch->evaluations[i];
                        continue;
                }
                RecordError *error = &part->refused[part->refused_count++];
                devopsgenie__v1__record_error__init(error);
                error->record = batch->evaluations[i]->record;
                error->reason = (char *)(uintptr_t)reason;
                error->message = (char *)(uintptr_t)message;
                all[batch->n_refused++] = error;
        }
        batch->n_evaluations = kept;
        batch->refused = all;
        return true;
}

static void write_next(struct call *call);

static void stored(struct call *call, PGresult *result) {
        struct import *import = call->state;
        const struct part *writing = &import->writing;
        Response response = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__INIT;
        Devopsgenie__V1__ImportAck ack = DEVOPSGENIE__V1__IMPORT_ACK__INIT;
        RecordError *list[1000];
        ack.next_record = row_int(result, 0, "next_record");
        for (size_t i = 0; i < writing->refused_count && i < sizeof list / sizeof *list; i++)
                list[ack.n_refused++] = &writing->refused[i];
        ack.refused = list;
        response.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_ACK;
        response.ack = &ack;
        import->writing.request = NULL;
        if (!stream_send(call, &response.base))
                stream_finish(call);
        else if (import->next.request)
                write_next(call);
}

static bool is_json(const char *text) {
        json_error_t error;
        json_t *value = json_loads(text, JSON_DECODE_ANY, &error);
        json_decref(value);
        return value != NULL;
}

// PostgreSQL 15 keeps what it is given as text: that it is JSON is seen to here.
static bool check_json(struct call *call, const Batch *batch) {
        for (size_t i = 0; i < batch->n_checks; i++)
                if (*batch->checks[i]->compliance_json && !is_json(batch->checks[i]->compliance_json))
                        return call_refuse_field(call, "batch.checks.compliance_json", "of element %zu is not JSON", i);
        for (size_t i = 0; i < batch->n_resources; i++)
                if (*batch->resources[i]->metadata_json && !is_json(batch->resources[i]->metadata_json))
                        return call_refuse_field(
                                call, "batch.resources.metadata_json", "of element %zu is not JSON", i);
        return true;
}

// --- The end ---

static void completed(struct call *call, PGresult *result) {
        struct import *import = call->state;
        Response response = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__INIT;
        Devopsgenie__V1__Scan scan = DEVOPSGENIE__V1__SCAN__INIT;
        if (!PQntuples(result) || binding_response(server_binding(call->server, INTERNAL_COMPLETE_IMPORT), result, 1,
                                          stream_arena(call), &scan.base) != BINDING_OK) {
                call_fail(call, "complete_import");
                return;
        }
        import->ended = true;
        response.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_SUMMARY;
        response.summary = &scan;
        stream_send(call, &response.base);
        stream_finish(call);
}

// --- The stream ---

// The next part becomes the one that is written; behind a batch, another one may be read.
static void write_next(struct call *call) {
        struct import *import = call->state;
        import->writing = import->next;
        import->next = (struct part){0};
        const Request *request = import->writing.request;
        give_scan(call);
        if (request->part_case == DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_END)
                run(call, INTERNAL_COMPLETE_IMPORT, &request->end->base, completed);
        else if (run(call, INTERNAL_IMPORT_BATCH, &request->batch->base, stored))
                stream_read_ahead(call);
}

static void take(struct call *call, const Request *request) {
        struct import *import = call->state;
        bool is_batch = request->part_case == DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH;
        if (is_batch && (!check_json(call, request->batch) || !sift(call, import, request->batch, &import->next))) {
                leave(call);
                return;
        }
        import->next.request = request;
        if (!import->writing.request)
                write_next(call);
}

static void refuse_order(struct call *call, const char *expected) {
        call_refuse(call, CODE_INVALID_ARGUMENT, "IMPORT_OUT_OF_ORDER", "%s", expected);
        leave(call);
}

static void message(struct call *call, ProtobufCMessage *message) {
        const Request *request = (const Request *)(const void *)message;
        const struct import *import = call->state;
        // The first message has been checked before; the others are here.
        if (import && !validate_message(call, call->method->rules, message)) {
                leave(call);
                return;
        }
        switch (request->part_case) {
        case DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_HEADER:
                if (import)
                        refuse_order(call, "a second header");
                else
                        begin(call, request);
                break;
        case DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH:
        case DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_END:
                if (import)
                        take(call, request);
                else
                        refuse_order(call, "the first message must be a header");
                break;
        case DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART__NOT_SET:
        default:
                refuse_order(call, "a message without header, batch and end");
        }
}

static void half_closed(struct call *call) {
        call_refuse(call, CODE_INVALID_ARGUMENT, "IMPORT_OUT_OF_ORDER",
                "the import was closed without an end; it can be continued");
        leave(call);
}

// The caller has gone before the end.
static void closed(struct call *call) { release(call); }

extern const struct stream_handler scan_service_import_results;
const struct stream_handler scan_service_import_results = {
        .message = message, .half_closed = half_closed, .closed = closed};
