// Names of branches from idempotency keys.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/branch_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void keys_that_are_good_stay_as_they_are(void **state) {
        (void)state;
        static const char *const keys[][3] = {
                {"", "nightly-7", "devopsgenie/nightly-7"},
                {"genie/", "2f1c8f2e-7a0b-4d57-9f0e-4466554400ab", "genie/2f1c8f2e-7a0b-4d57-9f0e-4466554400ab"},
                {"a-", "v1.2_3", "a-v1.2_3"},
                {"x/y/", "A", "x/y/A"},
        };
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
                char name[BRANCH_NAME_MAX + 1];
                assert_true(branch_name_make(keys[i][0], keys[i][1], name));
                assert_string_equal(name, keys[i][2]);
        }
}

static void other_keys_get_a_hash(void **state) {
        (void)state;
        static const char *const keys[][2] = {
                {"a b", "devopsgenie/a-b-"},
                {"a/b", "devopsgenie/a-b-"},
                {".a", "devopsgenie/-a-"},
                {"a.", "devopsgenie/a--"},
                {"a..b", "devopsgenie/a.-b-"},
                {"a.lock", "devopsgenie/a.lock-"},
                {"a@{1}", "devopsgenie/a--1--"},
                {"~^:?*[\\", "devopsgenie/--------"},
                {"\xc3\xa4", "devopsgenie/---"},
                {"a\nb", "devopsgenie/a-b-"},
                {"a-0123456789abcdef", "devopsgenie/a-0123456789abcdef-"},
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

// What one key is made into is no other key's name: not even that of a key which was written to be it.
static void a_name_cannot_be_forged(void **state) {
        (void)state;
        char name[BRANCH_NAME_MAX + 1], forged[BRANCH_NAME_MAX + 1];
        assert_true(branch_name_make("", "a b", name));
        assert_true(branch_name_make("", name + strlen("devopsgenie/"), forged));
        assert_string_not_equal(forged, name);
}

static void bad_prefixes_are_refused(void **state) {
        (void)state;
        static const char *const prefixes[] = {
                "-", "/", "a//", "a b/", ".a/", "a/.", "a.lock/", "a..", "a~", "a@{", "a\x7f", "\\", "refs/heads/../"};
        for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
                char name[BRANCH_NAME_MAX + 1] = "as it was";
                if (branch_name_make(prefixes[i], "key", name))
                        fail_msg("%s for prefix \"%s\"", name, prefixes[i]);
                assert_string_equal(name, "as it was");
        }
        char key[300], name[BRANCH_NAME_MAX + 1];
        memset(key, 'a', sizeof key);
        key[sizeof key - 1] = '\0';
        assert_false(branch_name_make("", key, name));
        assert_false(branch_name_make("", "", name));
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
                cmocka_unit_test(keys_that_are_good_stay_as_they_are),
                cmocka_unit_test(other_keys_get_a_hash),
                cmocka_unit_test(a_name_cannot_be_forged),
                cmocka_unit_test(bad_prefixes_are_refused),
                cmocka_unit_test(names_are_good_for_git),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
