// Named parameters become numbered ones, and nothing else changes.
#include "storage/sql_text.h"
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <string.h>

// Joins names with commas.
static void join(char *const *names, unsigned count, char *ret_text, size_t size) {
        ret_text[0] = '\0';
        for (unsigned i = 0; i < count; i++) {
                size_t used = strlen(ret_text);
                snprintf(ret_text + used, size - used, "%s%s", i ? "," : "", names[i]);
        }
}

static const struct {
        const char *sql, *text, *parameters;
} readable[] = {
        {"", "", ""},
        {"SELECT 1", "SELECT 1", ""},
        {"SELECT :a, :b, :a", "SELECT $1, $2, $1", "a,b"},
        {"SELECT :a_1,:aa,:a", "SELECT $1,$2,$3", "a_1,aa,a"},
        {":a", "$1", "a"},
        // Casts and other colons.
        {"SELECT :a::text, x::int, 'x'::text", "SELECT $1::text, x::int, 'x'::text", "a"},
        {"SELECT f(a := :a, b => :b)", "SELECT f(a := $1, b => $2)", "a,b"},
        {"SELECT a : b, :1, x:", "SELECT a : b, :1, x:", ""},
        // Strings.
        {"SELECT ':a', ':b''s :c', :d", "SELECT ':a', ':b''s :c', $1", "d"},
        {"SELECT 'a\\', :a", "SELECT 'a\\', $1", "a"},
        {"SELECT E'a\\':a', e'\\\\', :b", "SELECT E'a\\':a', e'\\\\', $1", "b"},
        {"SELECT name'a\\', :a", "SELECT name'a\\', $1", "a"},
        {"SELECT U&'\\0061:a', B'1', :a", "SELECT U&'\\0061:a', B'1', $1", "a"},
        {"SELECT \":a\"\":b\", :c", "SELECT \":a\"\":b\", $1", "c"},
        {"SELECT $$:a$$, $x$:a $$ $y$ $x$, :b", "SELECT $$:a$$, $x$:a $$ $y$ $x$, $1", "b"},
        {"SELECT a$b$, :a, c$b$", "SELECT a$b$, $1, c$b$", "a"},
        // Comments.
        {"-- :a it's\nSELECT :b -- :c", "-- :a it's\nSELECT $1 -- :c", "b"},
        {"/* :a /* ' */ :b */ SELECT :c", "/* :a /* ' */ :b */ SELECT $1", "c"},
        {"SELECT 1 - -:a, 2*/**/:b", "SELECT 1 - -$1, 2*/**/$2", "a,b"},
        // Subscripts, slices and arrays.
        {"SELECT x[1:2], x[a:b], x[:a], x[:a:b]", "SELECT x[1:2], x[a:b], x[$1], x[$1:b]", "a"},
        {"SELECT x[f(1):b], x[i]:c, (x)[1 : n]", "SELECT x[f(1):b], x[i]$1, (x)[1 : n]", "c"},
        {"SELECT x[(:a):b], x[a:(:b)], x[y[:c]:d]", "SELECT x[($1):b], x[a:($2)], x[y[$3]:d]", "a,b,c"},
        {"SELECT ARRAY[:a, NOT :b, [:c]], array [CASE WHEN :d THEN 1 END]",
                "SELECT ARRAY[$1, NOT $2, [$3]], array [CASE WHEN $4 THEN 1 END]", "a,b,c,d"},
        {"SELECT ARRAY[[x :a], [1]], :b::int[]", "SELECT ARRAY[[x $1], [1]], $2::int[]", "a,b"},
        {"SELECT x[CASE /* ' */ :a]", "SELECT x[CASE /* ' */ :a]", ""},
        {")]:a", ")]$1", "a"},
        // Numbers and letters of other scripts.
        {"SELECT 1.5e3, \xc3\xa4:a, 1:b", "SELECT 1.5e3, \xc3\xa4$1, 1$2", "a,b"},
};

static void test_readable(void **) {
        for (size_t i = 0; i < sizeof readable / sizeof *readable; i++) {
                struct sql_text text;
                unsigned line;
                const char *problem = NULL;
                char names[200];
                if (!sql_text_read(readable[i].sql, &text, &line, &problem))
                        fail_msg("%s: %s", readable[i].sql, problem);
                assert_string_equal(text.text, readable[i].text);
                join(text.parameters, text.parameter_count, names, sizeof names);
                assert_string_equal(names, readable[i].parameters);
                sql_text_drop(&text);
        }
}

static const struct {
        const char *sql, *problem;
        unsigned line;
} unreadable[] = {
        {"SELECT\n 'a", "the string has no end", 2},
        {"SELECT 'a''", "the string has no end", 1},
        {"SELECT E'a\\'", "the string has no end", 1},
        {"\n\nSELECT \"a\n\n", "the quoted identifier has no end", 3},
        {"SELECT $x$ $$ $y$", "the dollar-quoted string has no end", 1},
        {"/* /* */\n", "the comment has no end", 1},
        {"SELECT :a,\n$1", "parameters have names, not numbers", 2},
        {"-- unset: a\n-- unset: a, b!", "`-- unset:` takes field names, with commas between them", 2},
};

static void test_unreadable(void **) {
        for (size_t i = 0; i < sizeof unreadable / sizeof *unreadable; i++) {
                struct sql_text text;
                unsigned line = 0;
                const char *problem = NULL;
                assert_false(sql_text_read(unreadable[i].sql, &text, &line, &problem));
                assert_string_equal(problem, unreadable[i].problem);
                assert_int_equal(line, unreadable[i].line);
                assert_null(text.text);
        }
}

static void test_depth(void **) {
        struct sql_text text;
        unsigned line;
        const char *problem;
        char sql[200];
        memset(sql, '(', sizeof sql - 1);
        sql[sizeof sql - 1] = '\0';
        assert_false(sql_text_read(sql, &text, &line, &problem));
        assert_string_equal(problem, "the brackets nest too deep");
}

static const struct {
        const char *sql, *unset;
} unset[] = {
        {"SELECT 1", ""},
        {"-- unset: a, b_1\nSELECT 1 -- unset: c.d ,a\n", "a,b_1,c.d"},
        {"--unset:a\r\n-- unset:", "a"},
        {"-- this unset: a\n/* -- unset: a */ SELECT '-- unset: a'", ""},
};

static void test_unset(void **) {
        for (size_t i = 0; i < sizeof unset / sizeof *unset; i++) {
                struct sql_text text;
                unsigned line;
                const char *problem;
                char names[200];
                assert_true(sql_text_read(unset[i].sql, &text, &line, &problem));
                assert_string_equal(text.text, unset[i].sql);
                join(text.unset, text.unset_count, names, sizeof names);
                assert_string_equal(names, unset[i].unset);
                sql_text_drop(&text);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_readable),
                cmocka_unit_test(test_unreadable),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_unset),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
