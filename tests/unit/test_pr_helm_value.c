// One value of a YAML file replaced: the rest stays, byte for byte.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/helm_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct edit {
        const char *before, *path, *value, *after;
};

static void check(const struct edit *edits, size_t count) {
        for (size_t i = 0; i < count; i++) {
                char *text;
                size_t size;
                enum helm_status status = helm_value_set(
                        edits[i].before, strlen(edits[i].before), edits[i].path, edits[i].value, &text, &size);
                if (status != HELM_OK)
                        fail_msg("status %d for %s in:\n%s", (int)status, edits[i].path, edits[i].before);
                if (size != strlen(edits[i].after) || memcmp(text, edits[i].after, size) != 0)
                        fail_msg("%s = %s gives:\n%.*s\ninstead of:\n%s", edits[i].path, edits[i].value, (int)size,
                                text, edits[i].after);
                free(text);
        }
}

#define CHECK(edits) check(edits, sizeof(edits) / sizeof(edits)[0])

static void scalars_of_every_style(void **state) {
        (void)state;
        static const struct edit edits[] = {
                {"a: 1", "a", "2", "a: 2"},
                {"a:   1   # why\n", "a", "22", "a:   22   # why\n"},
                {"a: 'x''y' # why\n", "a", "\"z\"", "a: \"z\" # why\n"},
                {"a: \"x\\\"y\"\nb: 1\n", "a", "z", "a: z\nb: 1\n"},
                {"a: one\n  two\n  three # why\nb: 1\n", "a", "x", "a: x # why\nb: 1\n"},
                {"a: \"one\n\n  two\" # why\n", "a", "x", "a: x # why\n"},
                {"a: |\n  one\n  two\n\n\nb: 1\n", "a", "x", "a: x\n\n\nb: 1\n"},
                {"a: >-  # why\n  one\n  # no comment\n# but this is\nb: 1\n", "a", "x", "a: x\n# but this is\nb: 1\n"},
                {"a: |2+\n    one\n\n", "a", "x", "a: x\n\n"},
                {"a: |\n  one", "a", "x", "a: x"},
                {"a:\nb: 1\n", "a", "x", "a: x\nb: 1\n"},
                {"a:    # nothing\nb: 1\n", "a", "x", "a: x    # nothing\nb: 1\n"},
                {"a: ~\n", "a", "null", "a: null\n"},
                {"a: true\n", "a", "'true'", "a: 'true'\n"},
                {"a: 1\n", "a", "''", "a: ''\n"},
                {"a: 1\n", "a", "!!str 1", "a: !!str 1\n"},
                {"a: !!str 1 # why\n", "a", "2", "a: 2 # why\n"},
        };
        CHECK(edits);
}

static void places_of_every_kind(void **state) {
        (void)state;
        static const struct edit edits[] = {
                {"a:\n  b:\n    c: 1\n  d: 2\n", "a.b.c", "9", "a:\n  b:\n    c: 9\n  d: 2\n"},
                {"a: {b: 1, c: [x, \"y\" , z]}\n", "a.c[1]", "9", "a: {b: 1, c: [x, 9 , z]}\n"},
                {"a: {b: , c: 1}\n", "a.b", "9", "a: {b: 9, c: 1}\n"},
                {"{\"a\": {\"b\": 1}}", "a.b", "9", "{\"a\": {\"b\": 9}}"},
                {"a:\n- b: 1\n- b: 2\n  c: 3\n", "a[1].b", "9", "a:\n- b: 1\n- b: 9\n  c: 3\n"},
                {"- - 1\n  - 2\n- 3\n", "[0][1]", "9", "- - 1\n  - 9\n- 3\n"},
                {"a:\n  -\n  - 2\n", "a[0]", "9", "a:\n  - 9\n  - 2\n"},
                {"a.b: 1\na:\n  b: 2\n", "a\\.b", "9", "a.b: 9\na:\n  b: 2\n"},
                {"a.b: 1\na:\n  b: 2\n", "a.b", "9", "a.b: 1\na:\n  b: 9\n"},
                {"\"a[0]\": 1\n'b\\c': 2\n", "a\\[0]", "9", "\"a[0]\": 9\n'b\\c': 2\n"},
                {"\"a[0]\": 1\n'b\\c': 2\n", "b\\\\c", "9", "\"a[0]\": 1\n'b\\c': 9\n"},
                {"nodeSelector:\n  kubernetes.io/os: linux\n", "nodeSelector.kubernetes\\.io/os", "x",
                        "nodeSelector:\n  kubernetes.io/os: x\n"},
                {"8080: 1\n", "8080", "9", "8080: 9\n"},
                {"? a\n: 1\n", "a", "9", "? a\n: 9\n"},
                {"%YAML 1.1\n---\na: 1\n...\n---\na: 2\n", "a", "9", "%YAML 1.1\n---\na: 9\n...\n---\na: 2\n"},
                {"x: &d {b: 1}\na:\n  <<: *d\n  b: 2\n", "a.b", "9", "x: &d {b: 1}\na:\n  <<: *d\n  b: 9\n"},
        };
        CHECK(edits);
}

static void anchors_stay_and_aliases_are_replaced(void **state) {
        (void)state;
        static const struct edit edits[] = {
                {"a: &x 1\nb: *x\n", "a", "9", "a: &x 9\nb: *x\n"},
                {"a: &x 1\nb: *x\n", "b", "9", "a: &x 1\nb: 9\n"},
                {"a: &x\nb: *x\n", "a", "9", "a: &x 9\nb: *x\n"},
                {"a: &x !!str 1\nb: *x\n", "a", "9", "a: &x 9\nb: *x\n"},
                {"a: &x |\n  one\nb: *x\n", "a", "9", "a: &x 9\nb: *x\n"},
        };
        CHECK(edits);
}

static void bytes_and_characters_are_not_the_same(void **state) {
        (void)state;
        static const struct edit edits[] = {
                {"# \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\n\xc3\xa4: \"\xe2\x82\xac\" # \xc3\xa4\nb: 1\n", "b", "9",
                        "# \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\n\xc3\xa4: \"\xe2\x82\xac\" # \xc3\xa4\nb: 9\n"},
                {"\xc3\xa4: \"\xe2\x82\xac\" # x\n", "\xc3\xa4", "\xc3\xb6", "\xc3\xa4: \xc3\xb6 # x\n"},
                {"\xef\xbb\xbf"
                 "a: 1\r\nb: |\r\n  x\r\n  y\r\nc: 2\r\n",
                        "b", "9",
                        "\xef\xbb\xbf"
                        "a: 1\r\nb: 9\r\nc: 2\r\n"},
                {"a: 1 # x\r\nb:\r\n  - 2\r\n", "b[0]", "9", "a: 1 # x\r\nb:\r\n  - 9\r\n"},
                {"a: \xe2\x80\xa8 x\nb: 1", "b", "9", "a: \xe2\x80\xa8 x\nb: 9"},
        };
        CHECK(edits);
}

static void refused(const char *before, size_t size, const char *path, const char *value, enum helm_status expected) {
        char *text = NULL;
        size_t length;
        enum helm_status status = helm_value_set(before, size, path, value, &text, &length);
        if (status != expected)
                fail_msg(
                        "status %d instead of %d for %s = %s in:\n%s", (int)status, (int)expected, path, value, before);
        assert_null(text);
}

static void what_cannot_be_done_is_said(void **state) {
        (void)state;
        static const struct {
                const char *before, *path, *value;
                enum helm_status expected;
        } edits[] = {
                {"a: 1", "b", "2", HELM_MISSING},
                {"a: 1", "a.b", "2", HELM_MISSING},
                {"a: [1]", "a[1]", "2", HELM_MISSING},
                {"a: [1]", "a.0", "2", HELM_MISSING},
                {"a: {b: 1}", "a[0]", "2", HELM_MISSING},
                {"x: &d {b: 1}\na: *d\n", "a.b", "2", HELM_MISSING},
                {"x: &d {b: 1}\na: {<<: *d}\n", "a.b", "2", HELM_MISSING},
                {"", "a", "2", HELM_MISSING},
                {"# nothing\n", "a", "2", HELM_MISSING},
                {"a: {b: 1}", "a", "2", HELM_UNEDITABLE},
                {"a: []", "a", "2", HELM_UNEDITABLE},
                {"a: 1\na: 2\n", "a", "3", HELM_UNEDITABLE},
                {"a: {b}", "a.b", "2", HELM_UNEDITABLE},
                {"a: {b: 1}", "a.b", "x, y", HELM_UNEDITABLE},
                {"a: [1]", "a[0]", "x]", HELM_UNEDITABLE},
                {"a: {b: 1}", "a.b", "2}", HELM_UNEDITABLE},
                {"a: 1", "a", "", HELM_INVALID_VALUE},
                {"a: 1", "a", " 2", HELM_INVALID_VALUE},
                {"a: 1", "a", "2 ", HELM_INVALID_VALUE},
                {"a: 1", "a", "2 # x", HELM_INVALID_VALUE},
                {"a: 1", "a", "# x", HELM_INVALID_VALUE},
                {"a: 1", "a", "2\n", HELM_INVALID_VALUE},
                {"a: 1", "a", "2\nb: 3", HELM_INVALID_VALUE},
                {"a: 1", "a", "b: 3", HELM_INVALID_VALUE},
                {"a: 1", "a", "- 3", HELM_INVALID_VALUE},
                {"a: 1", "a", "[3]", HELM_INVALID_VALUE},
                {"a: 1", "a", "{}", HELM_INVALID_VALUE},
                {"a: 1", "a", "*x", HELM_INVALID_VALUE},
                {"a: 1", "a", "&x 1", HELM_INVALID_VALUE},
                {"a: 1", "a", "|", HELM_INVALID_VALUE},
                {"a: 1", "a", "'x", HELM_INVALID_VALUE},
                {"a: 1", "a", "'x' 'y'", HELM_INVALID_VALUE},
                {"a: 1", "a", "--- x", HELM_INVALID_VALUE},
                {"a: 1", "a", "@x", HELM_INVALID_VALUE},
                {"a: 1", "a", "\xff", HELM_INVALID_VALUE},
                {"a: 1", "", "2", HELM_INVALID_PATH},
                {"a: 1", ".", "2", HELM_INVALID_PATH},
                {"a: 1", "a.", "2", HELM_INVALID_PATH},
                {"a: 1", ".a", "2", HELM_INVALID_PATH},
                {"a: 1", "a..b", "2", HELM_INVALID_PATH},
                {"a: 1", "a[", "2", HELM_INVALID_PATH},
                {"a: 1", "a[]", "2", HELM_INVALID_PATH},
                {"a: 1", "a[-1]", "2", HELM_INVALID_PATH},
                {"a: 1", "a[1]b", "2", HELM_INVALID_PATH},
                {"a: 1", "a.[1]", "2", HELM_INVALID_PATH},
                {"a: 1", "a\\", "2", HELM_INVALID_PATH},
                {"a: 1", "a[99999999999999999999]", "2", HELM_INVALID_PATH},
                {"a: [1", "a", "2", HELM_INVALID_YAML},
                {"a: \t- 1\n\tb", "a", "2", HELM_INVALID_YAML},
                {"a: \xff", "a", "2", HELM_INVALID_YAML},
                {"{{ if .Values.x }}\na: 1\n{{ end }}", "a", "2", HELM_INVALID_YAML},
        };
        for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++)
                refused(edits[i].before, strlen(edits[i].before), edits[i].path, edits[i].value, edits[i].expected);
        refused("\xff\xfe"
                "a\0:\0 \0001\0",
                10, "a", "2", HELM_INVALID_YAML);
}

static void what_is_too_much_is_refused(void **state) {
        (void)state;
        size_t size = HELM_FILE_MAX + 1;
        char *text = malloc(size + 1);
        assert_non_null(text);
        memset(text, '\n', size);
        text[size] = '\0';
        memcpy(text, "a: 1", 4);
        refused(text, size, "a", "2", HELM_INVALID_YAML);
        memset(text, '[', 100000);
        refused(text, 100000, "a", "2", HELM_INVALID_YAML);
        for (size_t i = 0; i + 2 < HELM_FILE_MAX; i += 2)
                memcpy(text + i, "- ", 2);
        refused(text, HELM_FILE_MAX, "a", "2", HELM_INVALID_YAML);
        for (size_t i = 0; i + 2 < HELM_FILE_MAX; i += 2)
                memcpy(text + i, "-\n", 2);
        refused(text, HELM_FILE_MAX - 2, "[0]", "2", HELM_INVALID_YAML);
        free(text);
        char path[600];
        memset(path, 'a', sizeof path);
        path[599] = '\0';
        refused("a: 1", 4, path, "2", HELM_INVALID_PATH);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(scalars_of_every_style),
                cmocka_unit_test(places_of_every_kind),
                cmocka_unit_test(anchors_stay_and_aliases_are_replaced),
                cmocka_unit_test(bytes_and_characters_are_not_the_same),
                cmocka_unit_test(what_cannot_be_done_is_said),
                cmocka_unit_test(what_is_too_much_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
