// Names of branches from idempotency keys.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/branch_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void a_branch_is_of_one_key_of_one_organization(void **state) {
        (void)state;
        static const char *const cases[][3] = {
                {"", "acme/nightly-7", "devopsgenie/nightly-7-f8a4c892de981da8"},
                {"", "other/nightly-7", "devopsgenie/nightly-7-04a022b8c99e529f"},
                {"a-", "acme/v1.2_3", "a-v1.2_3-e30835445e1f6e7a"},
                {"x/y/", "acme/A", "x/y/A-4e5e7dd30580c0c2"},
        };
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                char name[BRANCH_NAME_MAX + 1];
                assert_true(branch_name_make(cases[i][0], cases[i][1], name));
                assert_string_equal(name, cases[i][2]);
        }
}

static void any_key_makes_a_name(void **state) {
        (void)state;
        static const char *const keys[][2] = {
                {"acme/a b", "devopsgenie/a-b-"},
                {"acme/a/b", "devopsgenie/a-b-"},
                {"acme/.a", "devopsgenie/-a-"},
                {"acme/a.", "devopsgenie/a.-"},
                {"acme/a..b", "devopsgenie/a.-b-"},
                {"acme/a.lock", "devopsgenie/a.lock-"},
                {"acme/a@{1}", "devopsgenie/a--1--"},
                {"acme/~^:?*[\\", "devopsgenie/--------"},
                {"acme/\xc3\xa4", "devopsgenie/---"},
                {"acme/a\nb", "devopsgenie/a-b-"},
        };
        char names[sizeof keys / sizeof keys[0]][BRANCH_NAME_MAX + 1];
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
                assert_true(branch_name_make(NULL, keys[i][0], names[i]));
                if (strncmp(names[i], keys[i][1], strlen(keys[i][1])) != 0 ||
                        strlen(names[i]) != strlen(keys[i][1]) + 16)
                        fail_msg("%s for \"%s\"", names[i], keys[i][0]);
                assert_true(branch_name_good(names[i]));
                for (size_t k = 0; k < i; k++)
                        assert_string_not_equal(names[i], names[k]);
        }
}

// The longest key that the platform takes, behind the longest prefix: 100 characters each.
static void a_long_key_is_cut(void **state) {
        (void)state;
        char prefix[101] = "", keys[2][500] = {"acme/", "acme/"}, names[2][BRANCH_NAME_MAX + 1];
        memset(prefix, 'p', 100);
        for (size_t i = 0; i < 2; i++) {
                for (size_t k = 0; k < 99; k++)
                        strcat(keys[i], "\xf0\x9f\x92\xa9");
                strcat(keys[i], i ? "b" : "a");
                assert_true(branch_name_make(prefix, keys[i], names[i]));
                assert_int_equal(strlen(names[i]), BRANCH_NAME_MAX);
        }
        assert_string_not_equal(names[0], names[1]);
}

static void bad_prefixes_are_refused(void **state) {
        (void)state;
        static const char *const prefixes[] = {
                "-", "/", "a//", "a b/", ".a/", "a/.", "a.lock/", "a..", "a~", "a@{", "a\x7f", "\\", "refs/heads/../"};
        for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
                char name[BRANCH_NAME_MAX + 1] = "as it was";
                if (branch_name_make(prefixes[i], "acme/key", name))
                        fail_msg("%s for prefix \"%s\"", name, prefixes[i]);
                assert_string_equal(name, "as it was");
        }
        char prefix[BRANCH_NAME_MAX + 1], name[BRANCH_NAME_MAX + 1];
        memset(prefix, 'a', sizeof prefix);
        prefix[sizeof prefix - 1] = '\0';
        assert_false(branch_name_make(prefix, "acme/key", name));
        assert_false(branch_name_make("", "acme/", name));
        assert_false(branch_name_make("", "key", name));
}

// git itself is asked, where it is there.
static void names_are_good_for_git(void **state) {
        (void)state;
        static const char *const names[] = {"main", "release/1.0", "a.b", "a@b", "HEAD", "-a", "a b", "a..b", "a.",
                "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b",
                "a\\b", "a@{b", "a\x01", "\xc3\xa4"};
        if (system("git --version >/dev/null 2>&1") != 0)
                skip();
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
                char command[300];
                snprintf(command, sizeof command, "git check-ref-format --branch '%s' >/dev/null 2>&1", names[i]);
                bool good = system(command) == 0;
                if (branch_name_good(names[i]) != good)
                        fail_msg("%s: git %s it", names[i], good ? "takes" : "refuses");
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_branch_is_of_one_key_of_one_organization),
                cmocka_unit_test(any_key_makes_a_name),
                cmocka_unit_test(a_long_key_is_cut),
                cmocka_unit_test(bad_prefixes_are_refused),
                cmocka_unit_test(names_are_good_for_git),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
