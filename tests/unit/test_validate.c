// The field rules of the API's own messages.
#include "tests/unit/validate_fixture.h"

#include <devopsgenie/v1/api_key_service.pb-c.h>
#include <devopsgenie/v1/organization_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <devopsgenie/v1/task_service.pb-c.h>
#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/timestamp.pb-c.h>
#include <time.h>

// --- CreateOrganization: required fields, forms, lengths ---

struct creation {
        struct core_call core;
        Devopsgenie__V1__Organization organization;
        Devopsgenie__V1__CreateOrganizationRequest request;
};

static struct call *creation_begin(struct creation *creation) {
        devopsgenie__v1__organization__init(&creation->organization);
        devopsgenie__v1__create_organization_request__init(&creation->request);
        creation->organization.display_name = (char *)(uintptr_t) "Acme";
        creation->request.organization = &creation->organization;
        creation->request.organization_id = (char *)(uintptr_t) "acme";
        creation->request.owner_email = (char *)(uintptr_t) "owner@example.com";
        struct call *call = call_begin(
                &creation->core, "OrganizationService/CreateOrganization", &creation->request.base);
        assert_valid(call);
        return call;
}

static void test_required(void **) {
        struct creation creation;
        struct call *call = creation_begin(&creation);
        creation.request.owner_email = TEXT("");
        assert_refused(call, "owner_email", "is required");
        creation.request.owner_email = TEXT("owner@example.com");
        creation.organization.display_name = TEXT("");
        assert_refused(call, "organization.display_name", "is required");
        creation.request.organization = NULL;
        assert_refused(call, "organization", "is required");

        devopsgenie__v1__create_organization_request__init(&creation.request);
        assert_false(validate(call)); // all that is wrong is said at once
        assert_int_equal(call->refusal.violation_count, 3);
        assert_string_equal(call->refusal.violations[0].name, "organization_id");
        assert_string_equal(call->refusal.violations[1].name, "organization");
        assert_string_equal(call->refusal.violations[2].name, "owner_email");
        call_end(&creation.core);
}

static void test_lengths_are_in_code_points(void **) {
        static const char *const parts[] = {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
        struct creation creation;
        struct call *call = creation_begin(&creation);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
                creation.organization.display_name = repeat(parts[i], 100);
                assert_valid(call);
                free(creation.organization.display_name);
                creation.organization.display_name = repeat(parts[i], 101);
                assert_refused(call, "organization.display_name", "has 101 characters; at most 100 are allowed");
                free(creation.organization.display_name);
        }
        call_end(&creation.core);
}

// A string whose field says nothing has a limit too, and so has one that is only carried along.
static void test_default_length(void **) {
        struct creation creation;
        struct call *call = creation_begin(&creation);
        creation.organization.etag = repeat("a", 1000);
        assert_valid(call);
        free(creation.organization.etag);
        creation.organization.etag = repeat("a", 1001);
        assert_refused(call, "organization.etag", "at most 1000 are allowed");
        free(creation.organization.etag);
        call_end(&creation.core);
}

static void test_output_only_fields_are_not_looked_at(void **) {
        struct creation creation;
        struct call *call = creation_begin(&creation);
        creation.organization.uid = repeat("x", 5000);
        creation.organization.state = 99;
        assert_valid(call);
        free(creation.organization.uid);
        call_end(&creation.core);
}

static void test_slugs(void **) {
        static const char *const good[] = {
                "abc", "a-b", "a--", "a00", "a23456789012345678901234567890123456789012345678901234567890123"};
        static const char *const bad[] = {"a", "ab", "Abc", "1bc", "-bc", "a_c", "a.c", "a c", "ab\n", "ab\xc3\xa4",
                "a234567890123456789012345678901234567890123456789012345678901234"};
        struct creation creation;
        struct call *call = creation_begin(&creation);
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
                creation.request.organization_id = (char *)(uintptr_t)good[i];
                assert_valid(call);
        }
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                creation.request.organization_id = (char *)(uintptr_t)bad[i];
                assert_refused(call, "organization_id", "[a-z][a-z0-9-]{2,62}");
        }
        call_end(&creation.core);
}

static void test_email_addresses(void **) {
        static const char *const good[] = {"a@b", "first.last+tag@example.com", "\xc3\xa4@example.com"};
        static const char *const bad[] = {"a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a@b\n", "a@\x7f", "\ta@b"};
        struct creation creation;
        struct call *call = creation_begin(&creation);
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
                creation.request.owner_email = (char *)(uintptr_t)good[i];
                assert_valid(call);
        }
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                creation.request.owner_email = (char *)(uintptr_t)bad[i];
                assert_refused(call, "owner_email", "is not an e-mail address");
        }
        creation.request.owner_email = repeat("a", 255);
        creation.request.owner_email[1] = '@';
        assert_refused(call, "owner_email", "is not an e-mail address");
        creation.request.owner_email[254] = 0;
        assert_valid(call);
        free(creation.request.owner_email);
        call_end(&creation.core);
}

static void test_uuids(void **) {
        static const char *const bad[] = {"1", "018f3c1e7b1a7c3d9e2f5a6b7c8d9e0f", "{" ID "}", ID "0",
                "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0", "g18f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f",
                "018f3c1e_7b1a-7c3d-9e2f-5a6b7c8d9e0f", "urn:uuid:" ID};
        struct creation creation;
        struct call *call = creation_begin(&creation);
        creation.request.request_id = TEXT(ID);
        assert_valid(call);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                creation.request.request_id = (char *)(uintptr_t)bad[i];
                assert_refused(call, "request_id", "is not a UUID");
        }
        call_end(&creation.core);
}

// --- Enums, times, numbers, lists ---

static void test_enums_and_times(void **) {
        struct core_call core;
        Google__Protobuf__Timestamp expiry = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Devopsgenie__V1__ApiKey key = DEVOPSGENIE__V1__API_KEY__INIT;
        Devopsgenie__V1__CreateApiKeyRequest request = DEVOPSGENIE__V1__CREATE_API_KEY_REQUEST__INIT;
        request.parent = TEXT("organizations/acme");
        request.api_key = &key;
        key.display_name = TEXT("ci");
        struct call *call = call_begin(&core, "ApiKeyService/CreateApiKey", &request.base);
        assert_refused(call, "api_key.role", "is required");
        key.role = DEVOPSGENIE__OPTIONS__ROLE__OWNER;
        assert_valid(call);
        static const int unknown[] = {6, -1, 99, INT32_MAX, INT32_MIN};
        for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
                key.role = (Devopsgenie__Options__Role)unknown[i];
                assert_refused(call, "api_key.role", "is not a value of Role");
        }
        key.role = DEVOPSGENIE__OPTIONS__ROLE__VIEWER;
        key.expire_time = &expiry;
        static const int64_t past[] = {0, 1, INT64_MIN};
        for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
                expiry.seconds = past[i];
                assert_refused(call, "api_key.expire_time", "must be in the future");
        }
        expiry.seconds = time(NULL) + 60;
        assert_valid(call);
        call_end(&core);
}

struct importing {
        struct core_call core;
        Devopsgenie__V1__Coverage coverage;
        Google__Protobuf__Timestamp time;
        Devopsgenie__V1__ImportHeader header;
        Devopsgenie__V1__ImportBatch batch;
        Devopsgenie__V1__ImportResultsRequest request;
};

static struct call *importing_begin(struct importing *importing) {
        devopsgenie__v1__coverage__init(&importing->coverage);
        google__protobuf__timestamp__init(&importing->time);
        devopsgenie__v1__import_header__init(&importing->header);
        devopsgenie__v1__import_batch__init(&importing->batch);
        devopsgenie__v1__import_results_request__init(&importing->request);
        importing->header.parent = (char *)(uintptr_t) "organizations/acme/cloudAccounts/" ID;
        importing->header.scanner = (char *)(uintptr_t) "Prowler";
        importing->header.scan_time = &importing->time;
        importing->header.request_id = (char *)(uintptr_t)ID;
        importing->header.coverage = &importing->coverage;
        importing->request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_HEADER;
        importing->request.header = &importing->header;
        return call_begin(&importing->core, "ScanService/ImportResults", &importing->request.base);
}

static void test_numbers(void **) {
        static const struct {
                int64_t first;
                int32_t count;
                const char *field, *why;
        } rows[] = {
                {0, 1, "batch.first_record", "is required"},
                {-1, 1, "batch.first_record", "is -1; it must be from 1 to 1000000000"},
                {INT64_MIN, 1, "batch.first_record", "must be from 1"},
                {1000000001, 1, "batch.first_record", "must be from 1"},
                {INT64_MAX, 1, "batch.first_record", "must be from 1"},
                {1, 0, "batch.record_count", "is required"},
                {1, -1, "batch.record_count", "must be from 1 to 1000"},
                {1, 1001, "batch.record_count", "must be from 1 to 1000"},
        };
        struct importing importing;
        struct call *call = importing_begin(&importing);
        assert_valid(call);
        importing.request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH;
        importing.request.batch = &importing.batch;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                importing.batch.first_record = rows[i].first;
                importing.batch.record_count = rows[i].count;
                assert_refused(call, rows[i].field, rows[i].why);
        }
        importing.batch.first_record = 1000000000;
        importing.batch.record_count = 1000;
        assert_valid(call);
        assert_true(validate_message(call, call->method->rules, call->request));
        importing.batch.record_count = 1001;
        assert_false(validate_message(call, call->method->rules, call->request));
        call_end(&importing.core);
}

static void test_lists(void **) {
        struct importing importing;
        struct call *call = importing_begin(&importing);
        char *names[1001];
        for (unsigned i = 0; i < 1001; i++)
                names[i] = (char *)(uintptr_t) "s3";
        importing.coverage.extent = DEVOPSGENIE__V1__COVERAGE__EXTENT__LISTED;
        importing.coverage.services = names;
        importing.coverage.n_services = 1000;
        assert_valid(call);
        importing.coverage.n_services = 1001;
        assert_refused(call, "header.coverage.services", "has 1001 elements; at most 1000 are allowed");
        importing.coverage.n_services = 3;
        names[2] = repeat("é", 101);
        assert_refused(call, "header.coverage.services", "element 2 is longer than 100 characters");
        names[2][200] = 0;
        assert_valid(call);
        free(names[2]);
        importing.coverage.n_services = 0;
        importing.coverage.extent = (Devopsgenie__V1__Coverage__Extent)99; // an enum that may be left out
        assert_refused(call, "header.coverage.extent", "99 is not a value of Extent");
        call_end(&importing.core);
}

// --- CreateTask: durations, bytes, elements of repeated messages ---

struct tasking {
        struct core_call core;
        Devopsgenie__V1__FileChange changes[2], *change_pointers[2];
        Devopsgenie__V1__FileChanges files;
        Devopsgenie__V1__PullRequest pull_request;
        Devopsgenie__V1__TaskPayload payload;
        Google__Protobuf__Duration time_to_live;
        Devopsgenie__V1__Task task;
        Devopsgenie__V1__CreateTaskRequest request;
};

static struct call *tasking_begin(struct tasking *tasking) {
        for (unsigned i = 0; i < 2; i++) {
                devopsgenie__v1__file_change__init(&tasking->changes[i]);
                tasking->changes[i].path = (char *)(uintptr_t) "a";
                tasking->change_pointers[i] = &tasking->changes[i];
        }
        devopsgenie__v1__file_changes__init(&tasking->files);
        devopsgenie__v1__pull_request__init(&tasking->pull_request);
        devopsgenie__v1__task_payload__init(&tasking->payload);
        google__protobuf__duration__init(&tasking->time_to_live);
        devopsgenie__v1__task__init(&tasking->task);
        devopsgenie__v1__create_task_request__init(&tasking->request);
        tasking->files.changes = tasking->change_pointers;
        tasking->files.n_changes = 2;
        tasking->pull_request.repository_url = (char *)(uintptr_t) "https://git.example/a";
        tasking->pull_request.title = (char *)(uintptr_t) "A title";
        tasking->pull_request.change_case = DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_FILES;
        tasking->pull_request.files = &tasking->files;
        tasking->payload.kind_case = DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_PULL_REQUEST;
        tasking->payload.pull_request = &tasking->pull_request;
        tasking->task.payload = &tasking->payload;
        tasking->request.task = &tasking->task;
        tasking->request.parent = (char *)(uintptr_t) "organizations/acme";
        struct call *call = call_begin(&tasking->core, "TaskService/CreateTask", &tasking->request.base);
        assert_valid(call);
        return call;
}

static void test_durations(void **) {
        static const struct {
                int64_t seconds;
                int32_t nanos;
                bool good;
        } rows[] = {{1, 0, true}, {1, 1, true}, {2592000, 0, true}, {2592000, 1, false}, {2592001, 0, false},
                {0, 999999999, false}, {0, 0, false}, {-1, 0, false}, {0, -1, false}, {INT64_MAX, 0, false},
                {INT64_MIN, 0, false}};
        struct tasking tasking;
        struct call *call = tasking_begin(&tasking);
        tasking.task.time_to_live = &tasking.time_to_live;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                tasking.time_to_live.seconds = rows[i].seconds;
                tasking.time_to_live.nanos = rows[i].nanos;
                if (rows[i].good)
                        assert_valid(call);
                else
                        assert_refused(call, "task.time_to_live", "must be from 1 to 2592000 seconds");
        }
        call_end(&tasking.core);
}

// A bound below 0 is not meant: no length of time is negative.
static void test_durations_are_not_negative(void **) {
        struct core_call core;
        Google__Protobuf__Duration grace = GOOGLE__PROTOBUF__DURATION__INIT;
        Devopsgenie__V1__CancelTaskRequest request = DEVOPSGENIE__V1__CANCEL_TASK_REQUEST__INIT;
        request.name = TEXT("organizations/acme/tasks/" ID);
        request.grace = &grace;
        struct call *call = call_begin(&core, "TaskService/CancelTask", &request.base);
        assert_valid(call);
        grace.nanos = -1;
        assert_refused(call, "grace", "must be from 0 to 600 seconds");
        call_end(&core);
}

// Where there is an upper bound alone, the lower one is 0.
static void test_numbers_with_an_upper_bound(void **) {
        struct tasking tasking;
        struct call *call = tasking_begin(&tasking);
        tasking.task.max_attempts = 10;
        assert_valid(call);
        tasking.task.max_attempts = -1;
        assert_refused(call, "task.max_attempts", "is -1; it must be from 0 to 10");
        tasking.task.max_attempts = 0;
        tasking.task.priority = -100;
        assert_valid(call);
        tasking.task.priority = -101;
        assert_refused(call, "task.priority", "must be from -100 to 100");
        call_end(&tasking.core);
}

static void test_elements_of_repeated_messages(void **) {
        struct tasking tasking;
        struct call *call = tasking_begin(&tasking);
        tasking.changes[1].path = TEXT("");
        assert_refused(call, "task.payload.pull_request.files.changes[1].path", "is required");
        tasking.changes[1].path = TEXT("b");
        uint8_t *content = calloc(1, 1000001);
        tasking.changes[0].content = (ProtobufCBinaryData){.data = content, .len = 1000000};
        assert_valid(call);
        tasking.changes[0].content.len++;
        assert_refused(call, "task.payload.pull_request.files.changes[0].content", "has 1000001 bytes");
        tasking.changes[0].content.len = 0;
        free(content);
        tasking.files.n_changes = 0;
        assert_refused(call, "task.payload.pull_request.files.changes", "is required");
        call_end(&tasking.core);
}

// A batch's records are looked at one by one where they are read: its messages have no rules of their own.
static void test_elements_without_rules_are_left_alone(void **) {
        struct importing importing;
        struct call *call = importing_begin(&importing);
        Devopsgenie__V1__Evaluation evaluation = DEVOPSGENIE__V1__EVALUATION__INIT, *pointer = &evaluation;
        evaluation.resource_uid = repeat("x", 4000);
        importing.request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH;
        importing.request.batch = &importing.batch;
        importing.batch.first_record = importing.batch.record_count = 1;
        importing.batch.evaluations = &pointer;
        importing.batch.n_evaluations = 1;
        assert_valid(call);
        free(evaluation.resource_uid);
        call_end(&importing.core);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_required),
                cmocka_unit_test(test_lengths_are_in_code_points),
                cmocka_unit_test(test_default_length),
                cmocka_unit_test(test_output_only_fields_are_not_looked_at),
                cmocka_unit_test(test_slugs),
                cmocka_unit_test(test_email_addresses),
                cmocka_unit_test(test_uuids),
                cmocka_unit_test(test_enums_and_times),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_lists),
                cmocka_unit_test(test_durations),
                cmocka_unit_test(test_durations_are_not_negative),
                cmocka_unit_test(test_numbers_with_an_upper_bound),
                cmocka_unit_test(test_elements_of_repeated_messages),
                cmocka_unit_test(test_elements_without_rules_are_left_alone),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
