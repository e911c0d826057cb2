// Resource names: what is in a good one, and that a malformed one is refused with its form.
#include "server/rpc/name.h"
#include "tests/unit/call_fixture.h"

#include <devopsgenie/v1/cloud_account_service.pb-c.h>
#include <devopsgenie/v1/finding_service.pb-c.h>
#include <devopsgenie/v1/organization_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <stdlib.h>

#define ID "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"

static bool check(struct call *call) { return name_locate(call) && name_check(call); }

// Asks GetFinding with a name of its own memory, so that a look beyond its end is seen.
static bool check_finding(struct call *call, const char *name) {
        Devopsgenie__V1__GetFindingRequest request = DEVOPSGENIE__V1__GET_FINDING_REQUEST__INIT;
        call->request = &request.base;
        request.name = strdup(name);
        bool good = check(call);
        free(request.name);
        call->request = NULL;
        return good;
}

static void test_good_names(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        assert_true(check_finding(call, "organizations/acme-2/findings/" ID));
        assert_string_equal(call->organization, "acme-2");
        assert_string_equal(call->name_values[0], "acme-2");
        assert_string_equal(call->name_values[1], ID);
        assert_null(call->name_values[2]);
        assert_true(check_finding(call, "organizations/abc/findings/00000000-0000-0000-0000-000000000000"));
        assert_true(check_finding(call, "organizations/abc/findings/018F3C1E-7B1A-7C3D-9E2F-5A6B7C8D9E0F"));
        assert_true(check_finding(call, "organizations/a23456789012345678901234567890123456789012345678901234567890123/"
                                        "findings/" ID));
        call_end(&core);
}

static void test_parent_and_nested_names(void **) {
        struct core_call core;
        Devopsgenie__V1__ListFindingsRequest list = DEVOPSGENIE__V1__LIST_FINDINGS_REQUEST__INIT;
        list.parent = (char[]){"organizations/acme"};
        struct call *call = call_begin(&core, "FindingService/ListFindings", &list.base);
        assert_true(check(call));
        assert_string_equal(call->name_values[0], "acme");
        call_end(&core);

        Devopsgenie__V1__CloudAccount account = DEVOPSGENIE__V1__CLOUD_ACCOUNT__INIT;
        Devopsgenie__V1__UpdateCloudAccountRequest update = DEVOPSGENIE__V1__UPDATE_CLOUD_ACCOUNT_REQUEST__INIT;
        call = call_begin(&core, "CloudAccountService/UpdateCloudAccount", &update.base);
        assert_false(name_locate(call)); // no account at all
        assert_string_equal(call->refusal.violations[0].name, "cloud_account.name");
        call_forgive(call);
        update.cloud_account = &account;
        assert_false(name_locate(call)); // an account without a name
        call_forgive(call);
        account.name = (char[]){"organizations/acme/cloudAccounts/" ID};
        assert_true(check(call));
        assert_string_equal(call->name_values[1], ID);
        call_end(&core);
}

// The header shares its place with the other messages of the stream: only the case says whose it is.
static void test_name_in_a_oneof(void **) {
        struct core_call core;
        Devopsgenie__V1__ImportBatch batch = DEVOPSGENIE__V1__IMPORT_BATCH__INIT;
        Devopsgenie__V1__ImportHeader header = DEVOPSGENIE__V1__IMPORT_HEADER__INIT;
        Devopsgenie__V1__ImportResultsRequest request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        struct call *call = call_begin(&core, "ScanService/ImportResults", &request.base);
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH;
        request.batch = &batch;
        assert_false(name_locate(call));
        assert_string_equal(call->refusal.violations[0].name, "header.parent");
        call_forgive(call);
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_HEADER;
        request.header = &header;
        header.parent = (char[]){"organizations/acme/cloudAccounts/" ID};
        assert_true(check(call));
        call_end(&core);
}

static void test_methods_without_a_name(void **) {
        struct core_call core;
        Devopsgenie__V1__ListOrganizationsRequest request = DEVOPSGENIE__V1__LIST_ORGANIZATIONS_REQUEST__INIT;
        struct call *call = call_begin(&core, "OrganizationService/ListOrganizations", &request.base);
        assert_true(check(call));
        assert_null(call->name);
        assert_null(call->organization);
        call_end(&core);
}

static const char *const malformed[] = {
        "",
        "/",
        "organizations",
        "organizations/",
        "organizations//findings/" ID,
        "Organizations/acme/findings/" ID,
        "organization/acme/findings/" ID,
        "organizationsacme/findings/" ID,
        "/organizations/acme/findings/" ID,
        " organizations/acme/findings/" ID,
        "organizations/acme",
        "organizations/acme/",
        "organizations/acme/findings",
        "organizations/acme/findings/",
        "organizations/acme/finding/" ID,
        "organizations/acme/Findings/" ID,
        "organizations/acme/cloudAccounts/" ID,
        "organizations/acme//" ID,
        "organizations/acme/findings/" ID "/",
        "organizations/acme/findings/" ID "/events",
        "organizations/acme/findings/" ID " ",
        "organizations/acme/findings/" ID "0",
        "organizations/acme/findings/018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0",
        "organizations/acme/findings/018f3c1e7b1a-7c3d-9e2f-5a6b7c8d9e0f0",
        "organizations/acme/findings/{018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e}",
        "organizations/acme/findings/018g3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f",
        "organizations/acme/findings/-",
        "organizations/acme/findings/*",
        "organizations/-/findings/" ID,
        "organizations/*/findings/" ID,
        "organizations/ac/findings/" ID,
        "organizations/2acme/findings/" ID,
        "organizations/-acme/findings/" ID,
        "organizations/Acme/findings/" ID,
        "organizations/ac me/findings/" ID,
        "organizations/ac_me/findings/" ID,
        "organizations/ac\xc3\xa4me/findings/" ID,
        "organizations/a234567890123456789012345678901234567890123456789012345678901234/findings/" ID,
        "organizations/acme%2Ffindings/" ID,
        "organizations/../findings/" ID,
};

static void test_malformed_names(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
                if (check_finding(call, malformed[i]))
                        fail_msg("`%s` passed", malformed[i]);
                assert_int_equal(call->refusal.code, CODE_INVALID_ARGUMENT);
                assert_int_equal(call->refusal.violation_count, 1);
                assert_string_equal(call->refusal.violations[0].name, "name");
                assert_non_null(
                        strstr(call->refusal.violations[0].value, "organizations/{organization}/findings/{finding}"));
                call_forgive(call);
        }
        call_end(&core);
}

// What is wrong behind the organization is said only after the access decision, so that comes first.
static void test_the_organization_is_known_before_the_rest_is_checked(void **) {
        struct core_call core;
        Devopsgenie__V1__GetFindingRequest request = DEVOPSGENIE__V1__GET_FINDING_REQUEST__INIT;
        struct call *call = call_begin(&core, "FindingService/GetFinding", &request.base);
        request.name = (char[]){"organizations/acme/nonsense"};
        assert_true(name_locate(call));
        assert_string_equal(call->organization, "acme");
        assert_int_equal(call->refusal.code, CODE_OK);
        assert_false(name_check(call));
        call_end(&core);
}

// A name of any length is refused without being copied.
static void test_long_names(void **) {
        enum { SIZE = 4 << 20 };
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        char *name = malloc(SIZE + 1);
        assert_non_null(name);
        memset(name, 'a', SIZE);
        name[SIZE] = 0;
        assert_false(check_finding(call, name));
        call_forgive(call);
        memcpy(name, "organizations/", 14);
        assert_false(check_finding(call, name));
        assert_true(strlen(call->refusal.message) < 1000);
        free(name);
        call_end(&core);
}

static void test_memory_that_is_spent(void **) {
        struct core_call core;
        struct call *call = call_begin(&core, "FindingService/GetFinding", NULL);
        arena_drop(&call->arena, false);
        arena_init(&call->arena, 0);
        assert_false(check_finding(call, "organizations/acme/findings/" ID));
        assert_int_equal(call->refusal.code, CODE_INTERNAL);
        assert_non_null(call->refusal.message);
        call_end(&core);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good_names),
                cmocka_unit_test(test_parent_and_nested_names),
                cmocka_unit_test(test_name_in_a_oneof),
                cmocka_unit_test(test_methods_without_a_name),
                cmocka_unit_test(test_malformed_names),
                cmocka_unit_test(test_the_organization_is_known_before_the_rest_is_checked),
                cmocka_unit_test(test_long_names),
                cmocka_unit_test(test_memory_that_is_spent),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
