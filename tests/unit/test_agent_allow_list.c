// The allow-list: what it permits, and nothing else; what is wrong in it is said.
#include "tests/unit/cmocka_all.h"
#include "tools/genie-agent/allow_list.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS_MAX = 8 };

static struct {
        json_t *json;
        struct allow_list list;
        char *error;
} read;

static bool read_list(const char *text) {
        allow_list_drop(&read.list);
        json_decref(read.json);
        free(read.error);
        read.json = json_loads(text, 0, NULL);
        assert_non_null(read.json);
        return allow_list_read(&read.list, read.json, &read.error);
}

static int tear_down(void **) {
        read_list("{}");
        free(read.error);
        json_decref(read.json);
        allow_list_drop(&read.list);
        read.json = NULL;
        read.error = NULL;
        return 0;
}

// Whether the command `x` may have these arguments; else which is wrong.
static int match(const char *const *words) {
        char *arguments[WORDS_MAX];
        size_t count = 0;
        for (; words[count]; count++)
                arguments[count] = strdup(words[count]);
        int wrong = allow_list_match(allow_list_find(&read.list, "x"), arguments, count);
        for (size_t i = 0; i < count; i++)
                free(arguments[i]);
        return wrong;
}
#define MATCH(...) match((const char *const[]){NULL, ##__VA_ARGS__, NULL} + 1)

static void test_arguments(void **) {
        assert_true(
                read_list("{\"x\": {\"argv\": [\"/bin/x\"], \"arguments\": [\"deployment/[a-z0-9-]+\", \"a|b\"]}}"));
        assert_int_equal(MATCH("deployment/web-1", "a"), -1);
        assert_int_equal(MATCH("deployment/web-1", "b"), -1);
        assert_int_equal(MATCH(), 0);
        assert_int_equal(MATCH("deployment/web-1"), 1);
        assert_int_equal(MATCH("deployment/web-1", "a", "c"), 2);
        assert_int_equal(MATCH("deployment/", "a"), 0);
        // The whole argument, from its first byte to its last.
        assert_int_equal(MATCH("xdeployment/web-1", "a"), 0);
        assert_int_equal(MATCH("deployment/web-1 ", "a"), 0);
        assert_int_equal(MATCH("deployment/web-1\nx", "a"), 0);
        assert_int_equal(MATCH("x\ndeployment/web-1", "a"), 0);
        assert_int_equal(MATCH("deployment/web", "ab"), 1); // an alternative is not the rest of the pattern
        assert_int_equal(MATCH("deployment/web", "ax"), 1);
        assert_int_equal(MATCH("deployment/web", ""), 1);
}

static void test_more_arguments(void **) {
        assert_true(read_list("{\"x\": {\"argv\": [\"/bin/x\"], \"more-arguments\": \"--[a-z]+\"}}"));
        assert_int_equal(MATCH(), -1);
        assert_int_equal(MATCH("--a", "--b", "--c"), -1);
        assert_int_equal(MATCH("--a", "-b"), 1);
        assert_true(read_list("{\"x\": {\"argv\": [\"/bin/x\"]}}"));
        assert_int_equal(MATCH(), -1);
        assert_int_equal(MATCH(""), 0);
}

static void test_options(void **) {
        assert_true(read_list(
                "{\"x\": {\"argv\": [\"/bin/x\"], \"arguments\": [\"[a-z-]+\"], \"more-arguments\": \".*\"}}"));
        assert_int_equal(MATCH("a-b", "c"), -1);
        assert_int_equal(MATCH("--all", "c"), 0);
        assert_int_equal(MATCH("-", "c"), 0);
        assert_int_equal(MATCH("a", "-c"), 1);
        assert_true(read_list("{\"x\": {\"argv\": [\"/bin/x\"], \"arguments\": [\"--all|--none|[a-z]+\"]}}"));
        assert_int_equal(MATCH("--all"), -1);
        assert_int_equal(MATCH("--none"), -1);
        assert_int_equal(MATCH("some"), -1);
        assert_int_equal(MATCH("--other"), 0);
}

static void test_names(void **) {
        assert_true(read_list("{\"x\": {\"argv\": [\"/bin/x\", \"-a\"], \"environment\": [\"HOME\"]}}"));
        assert_null(allow_list_find(&read.list, "X"));
        assert_null(allow_list_find(&read.list, ""));
        assert_null(allow_list_find(&read.list, "/bin/x"));
        const struct allowed_command *command = allow_list_find(&read.list, "x");
        assert_non_null(command);
        assert_string_equal(command->argv[1], "-a");
        assert_string_equal(command->environment[0], "HOME");
        assert_string_equal(command->directory, "/");
}

static void test_mistakes(void **) {
        static const struct {
                const char *text, *error;
        } rows[] = {
                {"[]", "commands is an object"},
                {"{\"x\": 1}", "command x is not an object"},
                {"{\"x\": {}}", "argv begins with the program's path"},
                {"{\"x\": {\"argv\": []}}", "argv begins with the program's path"},
                {"{\"x\": {\"argv\": [\"kubectl\"]}}", "argv begins with the program's path"},
                {"{\"x\": {\"argv\": \"/bin/x\"}}", "argv is an array"},
                {"{\"x\": {\"argv\": [\"/bin/x\", 1]}}", "argv has something else than a string"},
                {"{\"x\": {\"argv\": [\"/bin/x\"], \"arguments\": [\"(\"]}}", "the pattern `(` is wrong"},
                {"{\"x\": {\"argv\": [\"/bin/x\"], \"arguments\": [\"a\", \"[\"]}}", "the pattern `[` is wrong"},
                {"{\"x\": {\"argv\": [\"/bin/x\"], \"more-arguments\": \"(\"}}", "the pattern `(` is wrong"},
                {"{\"x\": {\"argv\": [\"/bin/x\"], \"more-arguments\": [\"a\"]}}", "more-arguments is a pattern"},
                {"{\"x\": {\"argv\": [\"/bin/x\"], \"directory\": \"tmp\"}}", "directory is a path from / on"},
                {"{\"x\": {\"argv\": [\"/bin/x\"], \"argument\": []}}", "has no member `argument`"},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                if (read_list(rows[i].text))
                        fail_msg("%s was taken", rows[i].text);
                if (!read.error || !strstr(read.error, rows[i].error))
                        fail_msg("%s: %s", rows[i].text, read.error);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_arguments, tear_down),
                cmocka_unit_test_teardown(test_more_arguments, tear_down),
                cmocka_unit_test_teardown(test_options, tear_down),
                cmocka_unit_test_teardown(test_names, tear_down),
                cmocka_unit_test_teardown(test_mistakes, tear_down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
