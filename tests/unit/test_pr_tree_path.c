// Paths that a task may write to. What stands in a tree's way is tested on real repositories, in tests/forge.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/tree_path.h"

#include <string.h>

static void good_ones(void **state) {
        (void)state;
        static const char *const paths[] = {"a", "a/b/c.txt", ".github/workflows/x.yml", ".gitignore", ".gitattributes",
                "a/.gitlab-ci.yml", "...", "a/..b", "x.git", "git", "sp ace/\xc3\xa4", "a:b", "gitx~1", ".gitx"};
        for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
                if (tree_path_problem(paths[i]))
                        fail_msg("%s: %s", paths[i], tree_path_problem(paths[i]));
}

static void bad_ones(void **state) {
        (void)state;
        static const char *const paths[] = {"", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/..", "a/./b",
                ".git", ".git/config", "a/.git/b", ".GIT", ".gIt/x", ".git./x", ".git  /x", ".git . ./x",
                ".git::$INDEX_ALLOCATION/x", "git~1", "GIT~1/x", ".g\xe2\x80\x8cit/x", "\xef\xbb\xbf.git/x", "a\\b",
                "a\nb", "a\x7f", "\x01", "\xff", "a/\xc0\xaf"};
        for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
                if (!tree_path_problem(paths[i]))
                        fail_msg("taken: %s", paths[i]);
        char longer[1002];
        memset(longer, 'a', sizeof longer);
        longer[1001] = '\0';
        assert_non_null(tree_path_problem(longer));
        longer[1000] = '\0';
        assert_null(tree_path_problem(longer));
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(good_ones), cmocka_unit_test(bad_ones)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
