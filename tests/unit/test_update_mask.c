// What becomes of an Update's mask: taken from what is set, spread out, or refused.
#include "tests/unit/validate_fixture.h"

#include <devopsgenie/v1/cloud_account_service.pb-c.h>
#include <google/protobuf/field_mask.pb-c.h>

struct change {
        struct core_call core;
        Google__Protobuf__FieldMask mask;
        Devopsgenie__V1__CloudAccount account;
        Devopsgenie__V1__UpdateCloudAccountRequest request;
};

static struct call *change_begin(struct change *change) {
        google__protobuf__field_mask__init(&change->mask);
        devopsgenie__v1__cloud_account__init(&change->account);
        devopsgenie__v1__update_cloud_account_request__init(&change->request);
        change->account.name = (char *)(uintptr_t) "organizations/acme/cloudAccounts/" ID;
        change->account.display_name = (char *)(uintptr_t) "New name";
        change->request.cloud_account = &change->account;
        return call_begin(&change->core, "CloudAccountService/UpdateCloudAccount", &change->request.base);
}

static void assert_mask(const Google__Protobuf__FieldMask *mask, const char *only) {
        assert_non_null(mask);
        assert_int_equal(mask->n_paths, 1);
        assert_string_equal(mask->paths[0], only);
}

static void test_no_mask_takes_what_is_set(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        assert_valid(call);
        assert_mask(change.request.update_mask, "display_name");
        change.request.update_mask = &change.mask; // one without paths is the same
        assert_valid(call);
        assert_mask(change.request.update_mask, "display_name");
        call_end(&change.core);
}

static void test_no_mask_and_nothing_set(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        change.account.display_name = TEXT("");
        change.account.etag = TEXT("e");                   // says what is changed, is not changed
        change.account.account_uid = TEXT("123456789012"); // immutable
        assert_refused(call, "update_mask", "is empty, and the resource sets nothing that can be changed");
        call_end(&change.core);
}

static void test_star_is_all_that_can_change(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        change.request.update_mask = &change.mask;
        change.mask.paths = (char *[]){TEXT("*")};
        change.mask.n_paths = 1;
        assert_valid(call);
        assert_mask(change.request.update_mask, "display_name");
        change.mask.paths = (char *[]){TEXT("*")};
        change.account.display_name = TEXT(""); // it would be emptied, and is required
        assert_refused(call, "cloud_account.display_name", "is required");
        call_end(&change.core);
}

static void test_required_only_where_the_mask_says(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        change.request.update_mask = &change.mask;
        change.mask.paths = (char *[]){TEXT("display_name")};
        change.mask.n_paths = 1;
        assert_valid(call); // provider and account_uid are required in a Create, and not named here
        change.account.display_name = TEXT("");
        assert_refused(call, "cloud_account.display_name", "is required");
        call_end(&change.core);
}

static void test_paths_that_cannot_be_changed(void **) {
        static const char *const paths[] = {"name", "uid", "provider", "account_uid", "external_id", "etag",
                "create_time", "nonsense", "", " ", "**", "display_name.x", "displayName", "DISPLAY_NAME",
                "cloud_account.display_name", "display_name ", "display_name,uid"};
        struct change change;
        struct call *call = change_begin(&change);
        change.request.update_mask = &change.mask;
        change.mask.n_paths = 1;
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
                change.mask.paths = (char *[]){(char *)(uintptr_t)paths[i]};
                assert_refused(call, "update_mask", "is not a field that can be changed");
        }
        change.mask.paths = (char *[]){TEXT("display_name"), TEXT("*")};
        change.mask.n_paths = 2;
        assert_refused(call, "update_mask", "`*` is not a field that can be changed");
        call_end(&change.core);
}

static void test_long_masks(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        char *paths[101];
        for (unsigned i = 0; i < 101; i++)
                paths[i] = (char *)(uintptr_t) "display_name";
        change.request.update_mask = &change.mask;
        change.mask.paths = paths;
        change.mask.n_paths = 100;
        assert_valid(call);
        change.mask.n_paths = 101;
        assert_refused(call, "update_mask", "has more than 100 paths");
        for (unsigned i = 0; i < 100; i++)
                paths[i] = (char *)(uintptr_t) "nonsense";
        change.mask.n_paths = 100;
        assert_false(validate(call)); // as many as a refusal holds
        assert_int_equal(call->refusal.violation_count, VIOLATIONS_MAX);
        call_forgive(call);
        change.mask.n_paths = 1;
        paths[0] = repeat("\xe2\x82\xac", 3000); // quoted in part, and still text
        assert_refused(call, "update_mask", "is not a field that can be changed");
        free(paths[0]);
        call_end(&change.core);
}

static void test_update_without_a_resource(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        change.request.cloud_account = NULL;
        change.request.update_mask = &change.mask;
        change.mask.paths = (char *[]){TEXT("display_name")};
        change.mask.n_paths = 1;
        assert_refused(call, "cloud_account", "is required");
        call_end(&change.core);
}

static void test_memory_that_is_spent(void **) {
        struct change change;
        struct call *call = change_begin(&change);
        arena_drop(&call->arena, false);
        arena_init(&call->arena, 0);
        assert_false(validate(call));
        assert_int_equal(call->refusal.code, CODE_INTERNAL);
        call_end(&change.core);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_no_mask_takes_what_is_set),
                cmocka_unit_test(test_no_mask_and_nothing_set),
                cmocka_unit_test(test_star_is_all_that_can_change),
                cmocka_unit_test(test_required_only_where_the_mask_says),
                cmocka_unit_test(test_paths_that_cannot_be_changed),
                cmocka_unit_test(test_long_masks),
                cmocka_unit_test(test_update_without_a_resource),
                cmocka_unit_test(test_memory_that_is_spent),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
