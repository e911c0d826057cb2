// What becomes of rows: those that do not fit, refusals, pages and cursors.
#include "storage/convert.h"
#include "tests/integration/binding_suite.h"

#include <devopsgenie/v1/finding_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <google/rpc/error_details.pb-c.h>

// --- Values ---

static enum binding_status read_one(
        const char *sql, const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret_response) {
        struct binding *binding = make_binding(&(struct binding_source){.sql = sql, .response = descriptor});
        PGresult *result = run_binding(binding, NULL, &(struct binding_values){0});
        *ret_response = new_message(descriptor);
        enum binding_status status = binding_response(binding, result, 1, &arena, *ret_response);
        PQclear(result);
        binding_free(binding);
        return status;
}

static void rows_that_do_not_fit_are_broken(void **) {
        static const char retry[] = "SELECT '%s'::interval AS retry_delay";
        static const char event[] =
                "-- unset: event_time, actor, scan, reason, to_state\nSELECT %s AS from_state, %s AS expire_time";
        static const char option[] = "-- unset: name, identifier_value, negative_int_value, double_value, "
                                     "string_value, aggregate_value\nSELECT -1 AS positive_int_value";
        static const char info[] = "-- unset: reason, domain\nSELECT '%s'::jsonb AS metadata";
        const struct {
                const char *sql;
                const ProtobufCMessageDescriptor *descriptor;
                enum binding_status status;
        } rows[] = {
                {arena_printf(&arena, retry, "1 month"), &google__rpc__retry_info__descriptor, BINDING_BROKEN},
                {arena_printf(&arena, retry, "1 day -1 us"), &google__rpc__retry_info__descriptor, BINDING_OK},
                {arena_printf(&arena, retry, "2000000000 days"), &google__rpc__retry_info__descriptor, BINDING_BROKEN},
                {arena_printf(&arena, event, "'OPEN'", "now()"), &devopsgenie__v1__finding_event__descriptor,
                        BINDING_OK},
                {arena_printf(&arena, event, "NULL", "NULL::timestamptz"), &devopsgenie__v1__finding_event__descriptor,
                        BINDING_OK},
                {arena_printf(&arena, event, "''", "now()"), &devopsgenie__v1__finding_event__descriptor, BINDING_OK},
                {arena_printf(&arena, event, "'open'", "now()"), &devopsgenie__v1__finding_event__descriptor,
                        BINDING_BROKEN},
                {arena_printf(&arena, event, "5", "now()"), &devopsgenie__v1__finding_event__descriptor,
                        BINDING_BROKEN},
                {arena_printf(&arena, event, "-1", "now()"), &devopsgenie__v1__finding_event__descriptor,
                        BINDING_BROKEN},
                {arena_printf(&arena, event, "1", "'infinity'::timestamptz"),
                        &devopsgenie__v1__finding_event__descriptor, BINDING_BROKEN},
                {arena_printf(&arena, event, "1", "'-infinity'::timestamptz"),
                        &devopsgenie__v1__finding_event__descriptor, BINDING_BROKEN},
                {arena_printf(&arena, event, "1", "'10000-01-01Z'::timestamptz"),
                        &devopsgenie__v1__finding_event__descriptor, BINDING_BROKEN},
                {option, &google__protobuf__uninterpreted_option__descriptor, BINDING_BROKEN},
                {arena_printf(&arena, info, "{\"a\": 1}"), &google__rpc__error_info__descriptor, BINDING_BROKEN},
                {arena_printf(&arena, info, "[\"a\"]"), &google__rpc__error_info__descriptor, BINDING_BROKEN},
                {"-- unset: extent, regions\nSELECT ARRAY['a', NULL] AS services",
                        &devopsgenie__v1__coverage__descriptor, BINDING_BROKEN},
                {"-- unset: extent, regions\nSELECT ARRAY[['a'], ['b']] AS services",
                        &devopsgenie__v1__coverage__descriptor, BINDING_BROKEN},
                {"-- unset: extent, regions\nSELECT '{}'::text[] AS services", &devopsgenie__v1__coverage__descriptor,
                        BINDING_OK},
                {"-- unset: extent, regions\nSELECT '[5:6]={a,b}'::text[] AS services",
                        &devopsgenie__v1__coverage__descriptor, BINDING_OK},
                {"-- unset: extent, regions\nSELECT '{}'::text[] AS services WHERE false",
                        &devopsgenie__v1__coverage__descriptor, BINDING_BROKEN},
        };
        for (size_t i = 0; i < COUNT(rows); i++) {
                ProtobufCMessage *response;
                enum binding_status status = read_one(rows[i].sql, rows[i].descriptor, &response);
                if (status != rows[i].status)
                        fail_msg("%s: %d", rows[i].sql, status);
        }
}

static void refusal_has_reason_and_metadata(void **) {
        const char *names[3], *values[3];
        struct binding *binding = make_binding(&(struct binding_source){
                .sql = "-- unset: retry_delay\nSELECT :caller_id::text AS refusal, 'OPEN' AS refusal_state, NULL AS "
                       "refusal_nothing, 'x'::varchar AS refusal_rule",
                .response = &google__rpc__retry_info__descriptor});
        PGresult *result = run_binding(binding, NULL, &(struct binding_values){.caller_id = "WRONG_STATE"});
        assert_string_equal(binding_refusal(binding, result), "WRONG_STATE");
        assert_int_equal(binding_refusal_metadata(binding, result, 3, names, values), 2);
        assert_string_equal(names[0], "state");
        assert_string_equal(values[0], "OPEN");
        assert_string_equal(names[1], "rule");
        assert_string_equal(values[1], "x");
        assert_int_equal(binding_refusal_metadata(binding, result, 1, names, values), 1);
        PQclear(result);
        result = run_binding(binding, NULL, &(struct binding_values){0});
        assert_null(binding_refusal(binding, result));
        PQclear(result);
        binding_free(binding);
}

// A statement without a response has a refusal, too.
static void rows_for_c_are_left_alone(void **) {
        struct binding *binding = make_binding(
                &(struct binding_source){.sql = "SELECT 'NO' AS refusal, 1.5 AS whatever, 2 AS after_x"});
        PGresult *result = run_binding(binding, NULL, &(struct binding_values){0});
        assert_string_equal(binding_refusal(binding, result), "NO");
        assert_false(binding_is_list(binding));
        PQclear(result);
        binding_free(binding);
}

// --- Lists ---

static const struct binding_source list_source = {
        .sql = "-- unset: from_state, to_state, actor, scan, expire_time\n"
               "SELECT timestamptz '2026-01-01Z' + n * interval '1 s' AS event_time, n::text AS reason, n / 4 AS "
               "after_group, "
               "       lpad(n::text, 2, '0') COLLATE \"C\" AS after_text, ('00000000-0000-0000-0000-' || lpad(n::text, "
               "12, "
               "       '0'))::uuid AS after_id\n"
               "  FROM generate_series(1, 10) n\n"
               " WHERE (n / 4, lpad(n::text, 2, '0') COLLATE \"C\", ('00000000-0000-0000-0000-' || lpad(n::text, 12, "
               "       '0'))::uuid) > (coalesce(:after_group, -1), coalesce(:after_text, ''), coalesce(:after_id, "
               "       '00000000-0000-0000-0000-000000000000'::uuid))\n"
               " ORDER BY n LIMIT :page_limit",
        .request = &devopsgenie__v1__list_finding_events_request__descriptor,
        .response = &devopsgenie__v1__list_finding_events_response__descriptor};

typedef Devopsgenie__V1__ListFindingEventsResponse List;

// Reads a page; checks its first row and its count; sets the cursor of the next one.
static void read_page(const struct binding *binding, struct binding_values *values, const char *first, size_t count) {
        PGresult *result = run_binding(binding, NULL, values);
        List *list = (List *)(void *)new_message(list_source.response);
        assert_int_equal(binding_response(binding, result, values->page_size, &arena, &list->base), BINDING_OK);
        assert_int_equal(list->n_finding_events, count);
        assert_string_equal(list->finding_events[0]->reason, first);
        assert_int_equal(list->finding_events[0]->event_time->seconds, 1767225600 + strtol(first, NULL, 10));
        assert_null(list->finding_events[0]->expire_time);
        assert_int_equal(
                binding_cursor(binding, result, values->page_size, &arena, &values->cursor, &values->cursor_size),
                BINDING_OK);
        PQclear(result);
}

static void pages_follow_each_other(void **) {
        struct binding *binding = make_binding(&list_source);
        assert_true(binding_is_list(binding));
        struct binding_values values = {.page_size = 4};
        read_page(binding, &values, "1", 4);
        assert_int_equal(values.cursor_size, 3 * 4 + 4 + 2 + 16);
        read_page(binding, &values, "5", 4);
        read_page(binding, &values, "9", 2);
        assert_int_equal(values.cursor_size, 0);
        values = (struct binding_values){.page_size = 10};
        read_page(binding, &values, "1", 10);
        assert_int_equal(values.cursor_size, 0);
        binding_free(binding);
}

static void forged_cursors_are_broken(void **) {
        struct binding *binding = make_binding(&list_source);
        struct binding_values values = {.page_size = 4};
        read_page(binding, &values, "1", 4);
        const struct storage_value *parameters;
        const char *field, *reason, *whole = values.cursor;
        size_t size = values.cursor_size;
        for (size_t cut = 0; cut < size; cut++) {
                // At its end, so that a sanitizer sees what is read behind it.
                char *copy = malloc(cut + 1);
                memcpy(copy + 1, whole, cut);
                values.cursor = copy + 1;
                values.cursor_size = cut;
                assert_int_equal(binding_parameters(binding, NULL, &values, &arena, &parameters, &field, &reason),
                        BINDING_BROKEN);
                free(copy);
        }
        char *longer = arena_copy(&arena, whole, size);
        values.cursor = longer;
        values.cursor_size = size + 1;
        assert_int_equal(
                binding_parameters(binding, NULL, &values, &arena, &parameters, &field, &reason), BINDING_BROKEN);
        for (size_t at = 0; at < 4; at++) {
                longer = arena_copy(&arena, whole, size);
                longer[at] ^= (char)0x81;
                values.cursor = longer;
                values.cursor_size = size;
                assert_int_equal(binding_parameters(binding, NULL, &values, &arena, &parameters, &field, &reason),
                        BINDING_BROKEN);
        }
        binding_free(binding);
}

// A number of three bytes.
static void forged_widths_are_broken(void **) {
        static const char cursor[] = "\0\0\0\3nnn\0\0\0\3ttt\0\0\0\x10iiiiiiiiiiiiiii";
        struct binding *binding = make_binding(&list_source);
        const struct binding_values values = {.page_size = 4, .cursor = cursor, .cursor_size = sizeof cursor};
        const struct storage_value *parameters;
        const char *field, *reason;
        assert_int_equal(
                binding_parameters(binding, NULL, &values, &arena, &parameters, &field, &reason), BINDING_BROKEN);
        binding_free(binding);
}

static void sort_key_without_value_is_broken(void **) {
        struct binding *binding = make_binding(&(struct binding_source){
                .sql = "-- unset: event_time, from_state, to_state, actor, scan, expire_time\n"
                       "SELECT 'x' AS reason, nullif(n::text, '1') AS after_n FROM generate_series(1, 2) n WHERE "
                       "n::text > coalesce(:after_n, '') LIMIT :page_limit",
                .response = list_source.response});
        const char *cursor;
        size_t size;
        PGresult *result = run_binding(binding, NULL, &(struct binding_values){.page_size = 1});
        assert_int_equal(binding_cursor(binding, result, 1, &arena, &cursor, &size), BINDING_BROKEN);
        assert_int_equal(binding_cursor(binding, result, 0, &arena, &cursor, &size), BINDING_BROKEN);
        PQclear(result);
        binding_free(binding);
}

// --- Hostile results ---

// Arrays that end where they should not, with nothing behind them.
static void cut_arrays_are_broken(void **) {
        static const char array[] = "\0\0\0\1\0\0\0\0\0\0\0\x19\0\0\0\2\0\0\0\1\0\0\0\1a\0\0\0\2bc";
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
                &devopsgenie__v1__coverage__descriptor, "services");
        bool is_array;
        struct conversion conversion;
        size_t count;
        void *elements;
        assert_true(convert_find_read(field, pg_type_find(25, &is_array), &conversion));
        for (size_t size = 0; size < sizeof array; size++) {
                char *copy = malloc(size + 1);
                memcpy(copy + 1, array, size);
                enum binding_status status = read_array(&conversion, &count, &elements, copy + 1, size, &arena);
                assert_int_equal(status, size == sizeof array - 1 ? BINDING_OK : BINDING_BROKEN);
                free(copy);
        }
        assert_int_equal(read_array(&conversion, &count, &elements, text(array), sizeof array, &arena), BINDING_BROKEN);
        assert_int_equal(count, 2);
        assert_string_equal(((char **)elements)[1], "bc");
        for (size_t at = 0; at < sizeof array - 1; at++) {
                char *copy = malloc(sizeof array - 1);
                memcpy(copy, array, sizeof array - 1);
                copy[at] = (char)0xff;
                bool harmless = (at >= 4 && at < 8) || (at >= 16 && at < 20) || at == 24 || at >= 29;
                enum binding_status status = read_array(&conversion, &count, &elements, copy, sizeof array - 1, &arena);
                assert_int_equal(status, harmless ? BINDING_OK : BINDING_BROKEN);
                free(copy);
        }
}

// A connection that was made after a migration may describe the statement otherwise.
static void other_columns_are_broken(void **) {
        struct binding *binding = make_binding(
                &(struct binding_source){.sql = "-- unset: record_count\nSELECT false AS interrupted",
                        .response = &devopsgenie__v1__import_end__descriptor});
        static const struct {
                const char *sql;
                int format;
                enum binding_status status;
        } others[] = {
                {"SELECT false", 1, BINDING_OK},
                {"SELECT 'f'::\"char\"", 1, BINDING_BROKEN},
                {"SELECT false, 1", 1, BINDING_BROKEN},
                {"SELECT", 1, BINDING_BROKEN},
                {"SELECT false", 0, BINDING_BROKEN},
        };
        for (size_t i = 0; i < COUNT(others); i++) {
                PGresult *result = PQexecParams(
                        database.admin, others[i].sql, 0, NULL, NULL, NULL, NULL, others[i].format);
                ProtobufCMessage *response = new_message(&devopsgenie__v1__import_end__descriptor);
                assert_int_equal(binding_response(binding, result, 1, &arena, response), others[i].status);
                PQclear(result);
        }
        binding_free(binding);
}

static void described_twice_works(void **) {
        char *error;
        PGconn *other = database_connect(database.url);
        struct binding *binding = make_binding(&list_source);
        assert_true(binding_describe(binding, other, &error));
        assert_true(binding_describe(binding, database.admin, &error));
        struct binding_values values = {.page_size = 4};
        read_page(binding, &values, "1", 4);
        PQfinish(other);
        // What cannot be described leaves it as it was.
        PGconn *gone = PQconnectdb("host=/nonexistent");
        assert_false(binding_describe(binding, gone, &error));
        free(error);
        PQfinish(gone);
        read_page(binding, &values, "5", 4);
        binding_free(binding);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(rows_that_do_not_fit_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(refusal_has_reason_and_metadata, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(rows_for_c_are_left_alone, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(pages_follow_each_other, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(forged_cursors_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(forged_widths_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(sort_key_without_value_is_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(cut_arrays_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(other_columns_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(described_twice_works, new_arena, drop_arena),
        };
        database_make(&database, "binder_rows");
        int failed = cmocka_run_group_tests_name("binder_rows", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
