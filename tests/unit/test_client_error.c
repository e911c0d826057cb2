// What the client makes of a status and its details.
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "tools/client/client_error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PACKED_MAX = 4096, DETAILS = 4 };

struct packed {
        uint8_t data[PACKED_MAX];
        size_t size;
};

static char *same(const char *text) { return (char *)(uintptr_t)text; }

// A google.rpc.Status with these details, as a server packs it.
static void pack(struct packed *ret_packed, const ProtobufCMessage *const *details, size_t count) {
        static uint8_t values[DETAILS][PACKED_MAX];
        static char types[DETAILS][100];
        Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
        Google__Protobuf__Any any[DETAILS], *list[DETAILS];

        assert_true(count <= DETAILS);
        for (size_t i = 0; i < count; i++) {
                google__protobuf__any__init(&any[i]);
                assert_true(protobuf_c_message_get_packed_size(details[i]) <= PACKED_MAX);
                any[i].value.len = protobuf_c_message_pack(details[i], values[i]);
                any[i].value.data = values[i];
                snprintf(types[i], sizeof types[i], "type.googleapis.com/%s", details[i]->descriptor->name);
                any[i].type_url = types[i];
                list[i] = &any[i];
        }
        status.n_details = count;
        status.details = list;
        assert_true(google__rpc__status__get_packed_size(&status) <= PACKED_MAX);
        ret_packed->size = google__rpc__status__pack(&status, ret_packed->data);
}

static void test_details(void **state) {
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
        Google__Rpc__BadRequest__FieldViolation violation = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
        Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
        Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
        Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
        Google__Rpc__ResourceInfo resource = GOOGLE__RPC__RESOURCE_INFO__INIT;
        const ProtobufCMessage *const details[] = {&info.base, &bad.base, &retry.base, &resource.base};
        struct packed packed;
        struct client_error error;

        (void)state;
        info.reason = same("SCAN_RUNNING");
        violation.field = same("finding.note");
        violation.description = same("too long");
        bad.n_field_violations = 1;
        bad.field_violations = violations;
        delay.seconds = 2;
        delay.nanos = 500000000;
        retry.retry_delay = &delay;
        resource.resource_type = same("devopsgenie.dev/Scan");
        resource.resource_name = same("organizations/demo/scans/x");
        pack(&packed, details, 4);
        client_error_decode(&error, 9, "a scan runs", packed.data, packed.size);
        assert_int_equal(error.code, 9);
        assert_string_equal(client_code_name(error.code), "FAILED_PRECONDITION");
        assert_string_equal(error.message, "a scan runs");
        assert_string_equal(error.reason, "SCAN_RUNNING");
        assert_int_equal(error.retry_delay_ms, 2500);
        assert_int_equal(error.n_details, 2);
        assert_string_equal(error.details[0], "finding.note: too long");
        assert_string_equal(error.details[1], "devopsgenie.dev/Scan organizations/demo/scans/x");
        client_error_clear(&error);
        assert_int_equal(error.code, CLIENT_OK);
}

static void test_retry_delay_is_bounded(void **state) {
        Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
        Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
        const ProtobufCMessage *const details[] = {&retry.base};
        struct packed packed;
        struct client_error error;

        (void)state;
        retry.retry_delay = &delay;
        delay.seconds = INT64_MAX;
        pack(&packed, details, 1);
        client_error_decode(&error, CLIENT_UNAVAILABLE, "", packed.data, packed.size);
        assert_int_equal(error.retry_delay_ms, 24 * 60 * 60 * 1000);
        client_error_clear(&error);
        delay.seconds = -1;
        pack(&packed, details, 1);
        client_error_decode(&error, CLIENT_UNAVAILABLE, "", packed.data, packed.size);
        assert_int_equal(error.retry_delay_ms, 0);
        client_error_clear(&error);
}

static void test_many_details(void **state) {
        Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
        Google__Rpc__BadRequest__FieldViolation violation = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
        Google__Rpc__BadRequest__FieldViolation *violations[100];
        const ProtobufCMessage *const details[] = {&bad.base};
        struct packed packed;
        struct client_error error;

        (void)state;
        for (size_t i = 0; i < 100; i++)
                violations[i] = &violation;
        bad.n_field_violations = 100;
        bad.field_violations = violations;
        pack(&packed, details, 1);
        client_error_decode(&error, 3, "", packed.data, packed.size);
        assert_int_equal(error.n_details, CLIENT_DETAILS_MAX);
        client_error_clear(&error);
}

// Details that cannot be read leave code and message standing, cut anywhere.
static void test_broken_details(void **state) {
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        const ProtobufCMessage *const details[] = {&info.base};
        struct packed packed;
        struct client_error error;

        (void)state;
        info.reason = same("REASON");
        pack(&packed, details, 1);
        for (size_t size = 0; size < packed.size; size++) {
                client_error_decode(&error, 5, "not there", packed.data, size);
                assert_int_equal(error.code, 5);
                assert_string_equal(error.message, "not there");
                assert_string_equal(error.reason, "");
                client_error_clear(&error);
        }
        assert_string_equal(client_code_name(-1), "UNKNOWN");
        assert_string_equal(client_code_name(17), "UNKNOWN");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_details),
                cmocka_unit_test(test_retry_delay_is_bounded),
                cmocka_unit_test(test_many_details),
                cmocka_unit_test(test_broken_details),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
