// What the APIs say and want to hear.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/forge_json.h"

#include <stdio.h>
#include <string.h>

#define SHA "0123456789abcdef0123456789abcdef01234567"

static json_t *read_json(const char *text) {
        json_error_t error;
        json_t *json = json_loads(text, 0, &error);
        if (!json)
                fail_msg("%s: %s", error.text, text);
        return json;
}

static void pull_requests_are_read(void **state) {
        (void)state;
        static const struct {
                enum forge_kind kind;
                const char *text, *url, *commit;
                int64_t number;
                enum forge_state state;
        } rows[] = {
                {FORGE_GITHUB,
                        "{\"number\":7,\"html_url\":\"https://h/"
                        "7\",\"state\":\"open\",\"merged_at\":null,\"head\":{\"sha\":\"" SHA "\"}}",
                        "https://h/7", SHA, 7, FORGE_OPEN},
                {FORGE_GITHUB,
                        "{\"number\":7,\"html_url\":\"https://h/"
                        "7\",\"state\":\"closed\",\"merged_at\":\"2025-01-01T00:00:00Z\","
                        "\"head\":{\"sha\":\"" SHA "\"}}",
                        "https://h/7", SHA, 7, FORGE_MERGED},
                {FORGE_GITHUB, "{\"number\":7,\"html_url\":\"https://h/7\",\"state\":\"closed\"}", "https://h/7", "", 7,
                        FORGE_CLOSED},
                {FORGE_GITLAB,
                        "{\"id\":900,\"iid\":3,\"web_url\":\"https://h/3\",\"state\":\"opened\",\"sha\":\"" SHA
                        "\",\"source_project_id\":5,\"target_project_id\":5}",
                        "https://h/3", SHA, 3, FORGE_OPEN},
                {FORGE_GITLAB,
                        "{\"iid\":3,\"web_url\":\"https://h/"
                        "3\",\"state\":\"locked\",\"source_project_id\":5,\"target_project_id\":5}",
                        "https://h/3", "", 3, FORGE_OPEN},
                {FORGE_GITLAB,
                        "{\"iid\":3,\"web_url\":\"https://h/"
                        "3\",\"state\":\"merged\",\"source_project_id\":5,\"target_project_id\":5}",
                        "https://h/3", "", 3, FORGE_MERGED},
                {FORGE_GITEA,
                        "{\"number\":2,\"html_url\":\"http://h/"
                        "2\",\"state\":\"closed\",\"merged\":true,\"head\":{\"sha\":\"" SHA "\"}}",
                        "http://h/2", SHA, 2, FORGE_MERGED},
                {FORGE_GITEA,
                        "{\"number\":2,\"html_url\":\"http://h/"
                        "2\",\"state\":\"closed\",\"merged\":false,\"head\":{\"sha\":\"x\"}}",
                        "http://h/2", "", 2, FORGE_CLOSED},
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct forge_pull_request found;
                json_t *json = read_json(rows[i].text);
                assert_true(forge_json_pull_request(rows[i].kind, json, &found));
                assert_true(found.found);
                assert_int_equal(found.number, rows[i].number);
                assert_int_equal(found.state, rows[i].state);
                assert_string_equal(found.url, rows[i].url);
                assert_string_equal(found.commit, rows[i].commit);
                json_decref(json);
        }
}

static void what_is_none_is_none(void **state) {
        (void)state;
        static const struct {
                enum forge_kind kind;
                const char *text;
        } rows[] = {
                {FORGE_GITHUB, "{}"},
                {FORGE_GITHUB, "[]"},
                {FORGE_GITHUB, "{\"number\":0,\"html_url\":\"https://h/7\"}"},
                {FORGE_GITHUB, "{\"number\":\"7\",\"html_url\":\"https://h/7\"}"},
                {FORGE_GITHUB, "{\"number\":7,\"html_url\":\"javascript:x\"}"},
                {FORGE_GITHUB, "{\"number\":7,\"html_url\":\"https://u:p@h/7\"}"},
                {FORGE_GITHUB, "{\"number\":7,\"html_url\":\"https://h/\\n7\"}"},
                {FORGE_GITLAB,
                        "{\"iid\":3,\"web_url\":\"https://h/3\",\"source_project_id\":6,\"target_project_id\":5}"},
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct forge_pull_request found;
                json_t *json = read_json(rows[i].text);
                if (forge_json_pull_request(rows[i].kind, json, &found))
                        fail_msg("taken: %s", rows[i].text);
                json_decref(json);
        }
}

static void the_one_that_counts_is_chosen(void **state) {
        (void)state;
        static const struct {
                const char *states; // by number from 1: o, m, c
                int64_t number;
        } rows[] = {{"", 0}, {"c", 1}, {"cc", 2}, {"mcc", 1}, {"mcm", 3}, {"cocm", 2}, {"oo", 2}};
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                json_t *list = json_array();
                for (int number = (int)strlen(rows[i].states); number > 0; number--) {
                        char what = rows[i].states[number - 1];
                        json_array_append_new(
                                list, json_pack("{si ss ss sb}", "number", number, "html_url", "https://h/1", "state",
                                              what == 'o' ? "open" : "closed", "merged", what == 'm'));
                }
                struct forge_pull_request found;
                forge_json_choose(FORGE_GITEA, list, &found);
                assert_int_equal(found.found, rows[i].number != 0);
                if (found.found)
                        assert_int_equal(found.number, rows[i].number);
                json_decref(list);
        }
}

static void requests_are_as_documented(void **state) {
        (void)state;
        static const struct {
                enum forge_kind kind;
                bool draft;
                const char *text;
        } rows[] = {
                {FORGE_GITHUB, true,
                        "{\"title\":\"A title\",\"body\":\"B\\n\",\"head\":\"x/k\",\"base\":\"main\",\"draft\":true}"},
                {FORGE_GITLAB, true,
                        "{\"title\":\"Draft: A "
                        "title\",\"description\":\"B\\n\",\"source_branch\":\"x/k\",\"target_branch\":\"main\"}"},
                {FORGE_GITLAB, false,
                        "{\"title\":\"A "
                        "title\",\"description\":\"B\\n\",\"source_branch\":\"x/k\",\"target_branch\":\"main\"}"},
                {FORGE_GITEA, true,
                        "{\"title\":\"WIP: A title\",\"body\":\"B\\n\",\"head\":\"x/k\",\"base\":\"main\"}"},
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct forge_wish wish = {
                        .title = "A\ntitle", .body = "B\n", .base = "main", .branch = "x/k", .draft = rows[i].draft};
                json_t *made = forge_json_create(rows[i].kind, &wish), *expected = read_json(rows[i].text);
                assert_true(json_equal(made, expected));
                json_decref(made);
                json_decref(expected);
        }
}

static void repositories_are_read(void **state) {
        (void)state;
        struct forge_repository repository;
        json_t *json = read_json("{\"default_branch\":\"trunk\",\"archived\":true,\"owner\":{\"login\":\"Acme\"}}");
        assert_true(forge_json_repository(json, &repository));
        assert_string_equal(repository.default_branch, "trunk");
        assert_string_equal(repository.owner, "Acme");
        assert_true(repository.archived);
        json_decref(json);
        json = read_json("{\"default_branch\":null}"); // GitLab's, of an empty one
        assert_true(forge_json_repository(json, &repository));
        assert_string_equal(repository.default_branch, "");
        assert_false(repository.archived);
        json_decref(json);
        json = read_json("[]");
        assert_false(forge_json_repository(json, &repository));
        json_decref(json);
        assert_false(forge_json_repository(NULL, &repository));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(pull_requests_are_read),
                cmocka_unit_test(what_is_none_is_none),
                cmocka_unit_test(the_one_that_counts_is_chosen),
                cmocka_unit_test(requests_are_as_documented),
                cmocka_unit_test(repositories_are_read),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
