// The field rules of the API's own messages.
#include "tests/unit/validate_fixture.h"

#include <devopsgenie/v1/api_key_service.pb-c.h>
#include <devopsgenie/v1/organization_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
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
        names[2] = repeat("a", 101);
        assert_refused(call, "header.coverage.services", "element 2 is longer than 100 bytes");
        names[2][100] = 0;
        assert_valid(call);
        free(names[2]);
        importing.coverage.n_services = 0;
        importing.coverage.extent = (Devopsgenie__V1__Coverage__Extent)99; // an enum that may be left out
        assert_refused(call, "header.coverage.extent", "99 is not a value of Extent");
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
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
