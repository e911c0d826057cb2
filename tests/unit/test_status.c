// A refusal on the wire: ErrorInfo first, the other details as the case has them, in bounds and in UTF-8 whatever the
// texts are.
#include "server/rpc/prescan.h"
#include "server/rpc/status.h"
#include "tests/unit/call_fixture.h"

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <stdlib.h>

enum { SIZE_MAX_ON_THE_WIRE = 4100, LONG = 20000 };

// Packs the call's refusal and reads it back. Its texts are text by the same look that a request's get.
static Google__Rpc__Status *pack(struct call *call) {
        const unsigned char *data;
        const char *field, *problem;
        size_t size = status_pack(call, &data);
        assert_in_range(size, 1, SIZE_MAX_ON_THE_WIRE);
        if ((problem = prescan(&google__rpc__status__descriptor, data, size, &field)))
                fail_msg("%s %s", field, problem);
        Google__Rpc__Status *status = google__rpc__status__unpack(NULL, size, data);
        assert_non_null(status);
        return status;
}

// The detail of a type; NULL where the status has none. `ret_message` is freed by the caller.
static ProtobufCMessage *detail(const Google__Rpc__Status *status, const ProtobufCMessageDescriptor *type) {
        for (size_t i = 0; i < status->n_details; i++) {
                const Google__Protobuf__Any *any = status->details[i];
                const char *name = strchr(any->type_url, '/');
                assert_int_equal(strncmp(any->type_url, "type.googleapis.com/", 20), 0);
                if (strcmp(name + 1, type->name) != 0)
                        continue;
                const char *field, *problem = prescan(type, any->value.data, any->value.len, &field);
                if (problem)
                        fail_msg("%s: %s %s", type->name, field, problem);
                return protobuf_c_message_unpack(type, NULL, any->value.len, any->value.data);
        }
        return NULL;
}

static Google__Rpc__ErrorInfo *error_info(const Google__Rpc__Status *status) {
        assert_true(status->n_details > 0);
        assert_string_equal(status->details[0]->type_url, "type.googleapis.com/google.rpc.ErrorInfo");
        return (Google__Rpc__ErrorInfo *)detail(status, &google__rpc__error_info__descriptor);
}

static void drop(void *message) { protobuf_c_message_free_unpacked(message, NULL); }

static char *long_text(const char *part) {
        char *text = malloc(LONG + 8);
        assert_non_null(text);
        text[0] = 0;
        for (size_t size = strlen(part), used = 0; used < LONG; used += size)
                memcpy(text + used, part, size + 1);
        return text;
}

static void test_plain_refusal(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        assert_false(call_refuse(call, CODE_NOT_FOUND, "NOT_FOUND", "there is no %s", "finding"));
        Google__Rpc__Status *status = pack(call);
        assert_int_equal(status->code, 5);
        assert_string_equal(status->message, "there is no finding");
        assert_int_equal(status->n_details, 1);
        Google__Rpc__ErrorInfo *info = error_info(status);
        assert_string_equal(info->reason, "NOT_FOUND");
        assert_string_equal(info->domain, "devopsgenie.dev");
        assert_int_equal(info->n_metadata, 1);
        assert_string_equal(info->metadata[0]->key, "request_id");
        assert_string_equal(info->metadata[0]->value, "request-1");
        drop(info);
        drop(status);
        call_end(&core);
}

static void test_first_refusal_stands(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        call_refuse(call, CODE_ABORTED, "FIRST", "first");
        assert_false(call_refuse(call, CODE_INTERNAL, "SECOND", "second"));
        assert_false(call_refuse_field(call, "name", "third"));
        assert_false(call_fail(call, "fourth"));
        assert_int_equal(call->refusal.code, CODE_ABORTED);
        assert_string_equal(call->refusal.reason, "FIRST");
        assert_string_equal(call->refusal.message, "first");
        assert_int_equal(call->refusal.violation_count, 0);
        call_end(&core);
}

static void test_every_detail(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        call->name = "organizations/acme/findings/1";
        call_refuse(call, CODE_FAILED_PRECONDITION, "FINDING_NOT_OPEN", "it is not open");
        call_refusal_metadata(call, "state", "RESOLVED");
        call_refusal_metadata(call, NULL, "ignored");
        call_refusal_metadata(call, "ignored", NULL);
        call->refusal.precondition = "STATE";
        call->refusal.about_resource = true;
        call->refusal.retry_ms = 1500;
        Google__Rpc__Status *status = pack(call);
        assert_int_equal(status->n_details, 4);

        Google__Rpc__ErrorInfo *info = error_info(status);
        assert_int_equal(info->n_metadata, 2);
        assert_string_equal(info->metadata[0]->key, "state");
        assert_string_equal(info->metadata[0]->value, "RESOLVED");
        drop(info);
        Google__Rpc__PreconditionFailure *failure = (void *)detail(
                status, &google__rpc__precondition_failure__descriptor);
        assert_int_equal(failure->n_violations, 1);
        assert_string_equal(failure->violations[0]->type, "STATE");
        assert_string_equal(failure->violations[0]->subject, call->name);
        assert_string_equal(failure->violations[0]->description, "it is not open");
        drop(failure);
        Google__Rpc__ResourceInfo *resource = (void *)detail(status, &google__rpc__resource_info__descriptor);
        assert_string_equal(resource->resource_type, "devopsgenie.dev/Finding");
        assert_string_equal(resource->resource_name, call->name);
        drop(resource);
        Google__Rpc__RetryInfo *retry = (void *)detail(status, &google__rpc__retry_info__descriptor);
        assert_int_equal(retry->retry_delay->seconds, 1);
        assert_int_equal(retry->retry_delay->nanos, 500000000);
        drop(retry);
        drop(status);
        call_end(&core);
}

static void test_fields(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        char field[] = "name"; // may be gone before the status is packed
        call_refuse_field(call, field, "is %d too long", 3);
        memset(field, 'x', 4);
        call_refuse_field(call, NULL, "is cut short");
        for (unsigned i = 0; i < 2 * VIOLATIONS_MAX; i++)
                call_refuse_field(call, "etag", "is wrong");
        Google__Rpc__Status *status = pack(call);
        assert_int_equal(status->code, 3);
        assert_string_equal(status->message, "name: is 3 too long");
        Google__Rpc__ErrorInfo *info = error_info(status);
        assert_string_equal(info->reason, "FIELD_INVALID");
        drop(info);
        Google__Rpc__BadRequest *bad = (void *)detail(status, &google__rpc__bad_request__descriptor);
        assert_int_equal(bad->n_field_violations, VIOLATIONS_MAX);
        assert_string_equal(bad->field_violations[0]->field, "name");
        assert_string_equal(bad->field_violations[0]->description, "is 3 too long");
        assert_string_equal(bad->field_violations[1]->field, "");
        assert_string_equal(bad->field_violations[1]->description, "is cut short");
        drop(bad);
        drop(status);
        call_end(&core);
}

// Before the method is known there is nothing to say of a resource.
static void test_without_a_method(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        call->method = NULL;
        call_refuse(call, CODE_UNIMPLEMENTED, "METHOD_UNKNOWN", "there is no method %s", "/x");
        call->refusal.about_resource = true;
        Google__Rpc__Status *status = pack(call);
        assert_int_equal(status->n_details, 1);
        drop(status);
        call_end(&core);
}

// Each part makes a cut fall at another place of its sequences.
static const char *const parts[] = {"a", "\xc3\xa4", "x\xc3\xa4", "\xe2\x82\xac", "x\xe2\x82\xac", "xy\xe2\x82\xac",
        "\xf0\x9f\x98\x80", "x\xf0\x9f\x98\x80", "xy\xf0\x9f\x98\x80", "xyz\xf0\x9f\x98\x80", "\"\n\x1b", "\xff\xfe"};

static void test_long_messages(void **) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
                for (unsigned shift = 0; shift < 4; shift++) {
                        struct core_call core;
                        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
                        char *text = long_text(parts[i]);
                        call->name = "organizations/acme/findings/1";
                        call_refuse(call, CODE_ABORTED, "LONG", "%.*s%s", (int)shift, "....", text);
                        call->refusal.about_resource = true;
                        call->refusal.precondition = "STATE";
                        Google__Rpc__Status *status = pack(call);
                        assert_in_range(strlen(status->message), 900, 1000);
                        drop(error_info(status));
                        drop(status);
                        free(text);
                        call_end(&core);
                }
}

static void test_long_fields(void **) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
                struct core_call core;
                struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
                char *text = long_text(parts[i]);
                for (unsigned k = 0; k < 20; k++)
                        call_refuse_field(
                                call, "resource.with.a.long.path", "`%.*s` %.100s", (int)(k % 5), "....", text);
                for (unsigned k = 0; k < 20; k++)
                        call_refuse_field(call, "resource.with.a.long.path", "%s", text);
                Google__Rpc__Status *status = pack(call);
                drop(error_info(status));
                Google__Rpc__BadRequest *bad = (void *)detail(status, &google__rpc__bad_request__descriptor);
                assert_non_null(bad); // with as many as fit
                assert_in_range(bad->n_field_violations, 4, VIOLATIONS_MAX);
                drop(bad);
                drop(status);
                free(text);
                call_end(&core);
        }
}

// What a statement says of a refusal is data: it must not push the ErrorInfo out.
static void test_long_metadata(void **) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
                struct core_call core;
                struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
                char *text = long_text(parts[i]);
                call_refuse(call, CODE_FAILED_PRECONDITION,
                        "A_REASON_OF_SIXTY_THREE_CHARACTERS_AS_POSTGRESQL_HAS_THEM_XXXXX", "%s", text);
                for (unsigned k = 0; k < 2 * METADATA_MAX; k++)
                        call_refusal_metadata(
                                call, "a_column_of_sixty_three_characters_as_postgresql_has_them_xxxxx", text);
                call->refusal.precondition = "STATE";
                Google__Rpc__Status *status = pack(call);
                Google__Rpc__ErrorInfo *info = error_info(status);
                assert_int_equal(info->n_metadata, METADATA_MAX + 1);
                for (size_t k = 0; k < METADATA_MAX; k++)
                        assert_in_range(strlen(info->metadata[k]->value), 190, 200);
                drop(info);
                drop(status);
                free(text);
                call_end(&core);
        }
}

static void test_long_names(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        char *text = long_text("name");
        call->name = text;
        call_refuse(call, CODE_NOT_FOUND, "NOT_FOUND", "%s is not there", text);
        call->refusal.about_resource = true;
        call->refusal.precondition = "STATE";
        call->refusal.retry_ms = 100;
        Google__Rpc__Status *status = pack(call);
        assert_int_equal(status->n_details, 2); // without those that have the name
        drop(error_info(status));
        drop(status);
        free(text);
        call_end(&core);
}

static void test_memory_that_is_spent(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        const unsigned char *data;
        arena_drop(&call->arena, false);
        arena_init(&call->arena, 0);
        call_refuse(call, CODE_NOT_FOUND, "NOT_FOUND", "text");
        call_refusal_metadata(call, "key", "value");
        assert_int_equal(call->refusal.code, CODE_NOT_FOUND);
        assert_non_null(call->refusal.message);
        assert_int_equal(status_pack(call, &data), 0);
        call_forgive(call);
        call_refuse_field(call, "name", "text");
        assert_int_equal(call->refusal.code, CODE_INVALID_ARGUMENT);
        assert_int_equal(status_pack(call, &data), 0);
        call_end(&core);
}

static void test_code_texts(void **) {
        assert_string_equal(code_text(CODE_OK), "OK");
        assert_string_equal(code_text(CODE_UNAUTHENTICATED), "UNAUTHENTICATED");
        for (unsigned code = 0; code < CODE_COUNT; code++)
                assert_non_null(code_text(code));
        assert_string_equal(code_text(CODE_COUNT), "UNKNOWN");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain_refusal),
                cmocka_unit_test(test_first_refusal_stands),
                cmocka_unit_test(test_every_detail),
                cmocka_unit_test(test_fields),
                cmocka_unit_test(test_without_a_method),
                cmocka_unit_test(test_long_messages),
                cmocka_unit_test(test_long_fields),
                cmocka_unit_test(test_long_metadata),
                cmocka_unit_test(test_long_names),
                cmocka_unit_test(test_memory_that_is_spent),
                cmocka_unit_test(test_code_texts),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
