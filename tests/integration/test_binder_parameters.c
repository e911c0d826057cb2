// Where parameters come from, and which values of requests are refused.
#include "tests/integration/binding_suite.h"

#include <devopsgenie/v1/finding_service.pb-c.h>
#include <devopsgenie/v1/member_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/field_mask.pb-c.h>
#include <google/rpc/error_details.pb-c.h>

typedef Devopsgenie__V1__Finding Finding;
typedef Google__Protobuf__UninterpretedOption Option;

// --- Where parameters come from ---

// Runs a statement of one text column and compares it.
static void assert_row(const struct binding_source *source, const ProtobufCMessage *request,
        const struct binding_values *values, const char *expected) {
        struct binding *binding = make_binding(source);
        PGresult *result = run_binding(binding, request, values);
        assert_string_equal(PQgetisnull(result, 0, 0) ? "NULL" : PQgetvalue(result, 0, 0), expected);
        PQclear(result);
        binding_free(binding);
}

static void call_gives_its_values(void **) {
        const struct binding_source source = {.sql = "SELECT concat_ws(' ', :organization_id::uuid, "
                                                     ":organization_slug::text, :cloud_account_id::uuid, "
                                                     ":caller_id::text, :caller_subject::text, coalesce(:caller_email, "
                                                     "'-'), :caller_kind::text, :caller_role::int2, :new_id::uuid, "
                                                     ":number::int2, :big::int8, encode(:bytes::bytea, 'hex'), "
                                                     ":id::uuid, coalesce(:nothing, '-'), :name::text)",
                .request = &devopsgenie__v1__get_finding_request__descriptor,
                .name_variables = (const char *const[]){"organization", "cloud_account", NULL},
                .given = (const char *const[]){"number", "big", "bytes", "id", "nothing", NULL}};
        const struct binding_values values = {.organization_id = UUID_A,
                .organization_slug = "acme",
                .name_values = (const char *const[]){"acme", UUID_B},
                .caller_id = "user:1",
                .caller_subject = "1",
                .caller_kind = "user",
                .caller_role = "5",
                .new_id = UUID_B,
                .given = (const struct storage_value[]){
                        {"-7!", 2}, {"9223372036854775807", 19}, {"\0\xff", 2}, {UUID_A "x", 36}, {NULL, 0}}};
        Devopsgenie__V1__GetFindingRequest request = DEVOPSGENIE__V1__GET_FINDING_REQUEST__INIT;
        request.name = text("n");
        assert_row(&source, &request.base, &values,
                UUID_A " acme " UUID_B " user:1 1 - user 5 " UUID_B " -7 9223372036854775807 00ff " UUID_A " - n");
}

static void empty_ids_are_null(void **) {
        assert_row(&(struct binding_source){.sql = "SELECT num_nulls(:organization_id::uuid, :new_id::uuid)::text"},
                NULL, &(struct binding_values){.organization_id = "", .new_id = NULL}, "2");
}

static void body_and_nested_fields(void **) {
        Devopsgenie__V1__Member member = DEVOPSGENIE__V1__MEMBER__INIT;
        Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
        Devopsgenie__V1__UpdateMemberRequest request = DEVOPSGENIE__V1__UPDATE_MEMBER_REQUEST__INIT;
        const struct binding_source source = {.sql = "SELECT concat_ws(' ', :role::text, :email::text, "
                                                     ":member__etag::text, array_to_string(:update_mask::text[], '+'), "
                                                     "coalesce(:bind_time::timestamptz::text, '-'))",
                .request = request.base.descriptor,
                .body = "member"};
        member.role = DEVOPSGENIE__OPTIONS__ROLE__OWNER;
        member.email = text("a@b.example");
        member.etag = text("7");
        request.member = &member;
        assert_row(&source, &request.base, &(struct binding_values){0}, "OWNER a@b.example 7 -");
        char *paths[] = {text("role"), text("email")};
        mask.paths = paths;
        mask.n_paths = COUNT(paths);
        request.update_mask = &mask;
        assert_row(&source, &request.base, &(struct binding_values){0}, "OWNER a@b.example 7 role+email -");
        request.member = NULL;
        assert_row(&source, &request.base, &(struct binding_values){0}, "role+email -");
}

// --- A batch as arrays ---

static Devopsgenie__V1__ImportBatch *make_batch(void) {
        static Devopsgenie__V1__ImportBatch batch;
        static Devopsgenie__V1__CheckDescription checks[2], *check_pointers[2] = {&checks[0], &checks[1]};
        static Devopsgenie__V1__Evaluation evaluations[2], *evaluation_pointers[2] = {&evaluations[0], &evaluations[1]};
        static char *urls[] = {text("a\""), text("b\n")};
        devopsgenie__v1__import_batch__init(&batch);
        for (unsigned i = 0; i < 2; i++) {
                devopsgenie__v1__check_description__init(&checks[i]);
                devopsgenie__v1__evaluation__init(&evaluations[i]);
                evaluations[i].record = i + 1;
                evaluations[i].status = i + 1;
        }
        checks[0].n_reference_urls = COUNT(urls);
        checks[0].reference_urls = urls;
        checks[1].check = text("c1");
        evaluations[1].muted = true;
        batch.checks = check_pointers;
        batch.evaluations = evaluation_pointers;
        batch.n_checks = batch.n_evaluations = 2;
        return &batch;
}

static const struct binding_source batch_source = {
        .sql = "SELECT concat_ws(' ', to_json(:checks__check::text[]), to_json(:checks__reference_urls::jsonb[]), "
               "to_json(:evaluations__record::int8[]), to_json(:evaluations__status::text[]), "
               "to_json(:evaluations__severity::int2[]), "
               "to_json(:evaluations__muted::bool[]), to_json(:refused__record::int4[]))",
        .request = &devopsgenie__v1__import_batch__descriptor};

static void batch_becomes_arrays(void **) {
        assert_row(&batch_source, &make_batch()->base, &(struct binding_values){0},
                "[\"\",\"c1\"] [[\"a\\\"\", \"b\\n\"],[]] [1,2] [\"PASS\",\"FAIL\"] [0,0] [false,true] []");
}

static void elements_of_all_kinds(void **) {
        Option options[2], *pointers[2] = {&options[0], &options[1]};
        for (unsigned i = 0; i < 2; i++)
                google__protobuf__uninterpreted_option__init(&options[i]);
        options[1].has_double_value = options[1].has_string_value = true;
        options[1].double_value = 0.5;
        options[1].string_value = (ProtobufCBinaryData){2, (uint8_t *)text("\0\1")};
        Google__Protobuf__FileOptions request = GOOGLE__PROTOBUF__FILE_OPTIONS__INIT;
        request.uninterpreted_option = pointers;
        request.n_uninterpreted_option = 2;
        assert_row(
                &(struct binding_source){
                        .sql = "SELECT concat_ws(' ', to_json(:uninterpreted_option__double_value::float8[]), "
                               "to_json(:uninterpreted_option__double_value::float8[]), "
                               "to_json(:uninterpreted_option__string_value::bytea[]))",
                        .request = request.base.descriptor},
                &request.base, &(struct binding_values){0}, "[null,0.5] [null,0.5] [null,\"\\\\x0001\"]");

        // A repeated message in a message that is not set has no elements; one that is not there has no array.
        Devopsgenie__V1__ImportResultsRequest import = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        const struct binding_source inner = {
                .sql = "SELECT array_to_string(:batch__evaluations__account_uid::uuid[], ' ', '-')",
                .request = import.base.descriptor};
        assert_row(&inner, &import.base, &(struct binding_values){0}, "NULL");
        import.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH;
        import.batch = make_batch();
        import.batch->evaluations[1]->account_uid = text(UUID_A);
        assert_row(&inner, &import.base, &(struct binding_values){0}, "- " UUID_A);
}

// --- What is refused ---

static void assert_invalid(const struct binding_source *source, const ProtobufCMessage *request,
        const struct binding_values *values, const char *expected_field, const char *expected_reason) {
        struct binding *binding = make_binding(source);
        const struct storage_value *parameters;
        const char *field = NULL, *reason = NULL;
        assert_int_equal(
                binding_parameters(binding, request, values, &arena, &parameters, &field, &reason), BINDING_INVALID);
        assert_string_equal(field, expected_field);
        assert_string_equal(reason, expected_reason);
        binding_free(binding);
}

static void invalid_finding(const char *sql, const Finding *finding, const char *field, const char *reason) {
        assert_invalid(&(struct binding_source){.sql = sql, .request = finding->base.descriptor}, &finding->base,
                &(struct binding_values){0}, field, reason);
}

static void bad_uuids(void **) {
        static const char *const bad[] = {"x", UUID_A "0", "0190a5b27c3d7e4f8a1b0123456789ab",
                "{0190a5b2-7c3d-7e4f-8a1b-012345678}", "0190a5b2-7c3d-7e4f-8a1b-0123456789ag"};
        for (size_t i = 0; i < COUNT(bad); i++) {
                Finding finding = DEVOPSGENIE__V1__FINDING__INIT;
                finding.uid = text(bad[i]);
                invalid_finding("SELECT :uid::uuid", &finding, "uid", "is not a UUID");
                assert_invalid(&(struct binding_source){.sql = "SELECT :finding_id::uuid",
                                       .name_variables = (const char *const[]){"organization", "finding", NULL}},
                        NULL, &(struct binding_values){.name_values = (const char *const[]){"acme", bad[i]}}, "name",
                        "has a part that is not a UUID");
        }
        Devopsgenie__V1__ImportBatch *batch = make_batch();
        batch->evaluations[1]->account_uid = text("x");
        assert_invalid(&(struct binding_source){.sql = "SELECT :evaluations__account_uid::uuid[]",
                               .request = batch->base.descriptor},
                &batch->base, &(struct binding_values){0}, "evaluations[1].account_uid", "is not a UUID");
}

static void bad_times(void **) {
        static const struct {
                int64_t seconds;
                int32_t nanos;
                const char *reason;
        } bad[] = {
                {-62135596801, 0, "is not a time between the years 1 and 9999"},
                {253402300800, 0, "is not a time between the years 1 and 9999"},
                {INT64_MAX, 0, "is not a time between the years 1 and 9999"},
                {INT64_MIN, 0, "is not a time between the years 1 and 9999"},
                {0, -1, "has nanos that are not between 0 and 999,999,999"},
                {0, 1000000000, "has nanos that are not between 0 and 999,999,999"},
        };
        for (size_t i = 0; i < COUNT(bad); i++) {
                Devopsgenie__V1__Acceptance acceptance = DEVOPSGENIE__V1__ACCEPTANCE__INIT;
                Finding finding = DEVOPSGENIE__V1__FINDING__INIT;
                finding.acceptance = &acceptance;
                acceptance.expire_time = at(bad[i].seconds, bad[i].nanos);
                invalid_finding("SELECT :acceptance__expire_time::timestamptz", &finding, "acceptance.expire_time",
                        bad[i].reason);
        }
        static const struct {
                int64_t seconds;
                int32_t nanos;
        } durations[] = {{315576000001, 0}, {-315576000001, 0}, {INT64_MIN, 0}, {1, -1}, {-1, 1}, {0, 1000000000}};
        for (size_t i = 0; i < COUNT(durations); i++) {
                Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
                Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
                delay.seconds = durations[i].seconds;
                delay.nanos = durations[i].nanos;
                info.retry_delay = &delay;
                assert_invalid(&(struct binding_source){.sql = "SELECT :retry_delay::interval",
                                       .request = info.base.descriptor},
                        &info.base, &(struct binding_values){0}, "retry_delay",
                        i < 3 ? "is longer than 10,000 years"
                              : "has nanos that are out of range, or of another sign than the seconds");
        }
}

static void bad_enums_and_numbers(void **) {
        Finding finding = DEVOPSGENIE__V1__FINDING__INIT;
        finding.severity = 8;
        invalid_finding("SELECT :severity::text", &finding, "severity", "is not a value of Severity");
        invalid_finding("SELECT :severity::int4", &finding, "severity", "is not a value of Severity");
        finding.ordinal = 32768;
        invalid_finding("SELECT :ordinal::int2", &finding, "ordinal", "is out of range");
        Option option = GOOGLE__PROTOBUF__UNINTERPRETED_OPTION__INIT;
        option.has_positive_int_value = true;
        option.positive_int_value = UINT64_C(1) << 63;
        assert_invalid(
                &(struct binding_source){.sql = "SELECT :positive_int_value::int8", .request = option.base.descriptor},
                &option.base, &(struct binding_values){0}, "positive_int_value", "is out of range");
        int32_t numbers[] = {1, -32769};
        Google__Protobuf__FileDescriptorProto file = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT;
        file.public_dependency = numbers;
        file.n_public_dependency = 2;
        assert_invalid(
                &(struct binding_source){.sql = "SELECT :public_dependency::int2[]", .request = file.base.descriptor},
                &file.base, &(struct binding_values){0}, "public_dependency[1]", "is out of range");
}

static void microseconds_are_kept(void **) {
        Finding finding = DEVOPSGENIE__V1__FINDING__INIT;
        finding.create_time = at(-1, 999);
        assert_row(&(struct binding_source){.sql = "SELECT (:create_time::timestamptz = '1969-12-31 23:59:59Z')::text",
                           .request = finding.base.descriptor},
                &finding.base, &(struct binding_values){0}, "true");
}

// What only the server itself gives is its own fault.
static void bad_values_of_the_server_are_broken(void **) {
        static const char *const bad[] = {
                "1x", " ", "32768", "99999999999999999999", "0x1", "123456789012345678901234567890"};
        struct binding *binding = make_binding(&(struct binding_source){
                .sql = "SELECT :number::int2, :organization_id::uuid", .given = (const char *const[]){"number", NULL}});
        const struct storage_value *parameters;
        const char *field, *reason;
        for (size_t i = 0; i < COUNT(bad); i++) {
                struct storage_value given = {bad[i], (int)strlen(bad[i])};
                assert_int_equal(binding_parameters(binding, NULL, &(struct binding_values){.given = &given}, &arena,
                                         &parameters, &field, &reason),
                        BINDING_BROKEN);
        }
        assert_int_equal(binding_parameters(binding, NULL, &(struct binding_values){.organization_id = "acme"}, &arena,
                                 &parameters, &field, &reason),
                BINDING_BROKEN);
        binding_free(binding);
}

static void full_arena_is_told(void **) {
        struct arena small;
        arena_init(&small, 64);
        struct binding *binding = make_binding(&batch_source);
        const struct storage_value *parameters;
        const char *field, *reason;
        assert_int_equal(binding_parameters(binding, &make_batch()->base, &(struct binding_values){0}, &small,
                                 &parameters, &field, &reason),
                BINDING_TOO_MUCH);
        arena_drop(&small, false);
        binding_free(binding);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(call_gives_its_values, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(empty_ids_are_null, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(body_and_nested_fields, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(batch_becomes_arrays, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(elements_of_all_kinds, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(bad_uuids, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(bad_times, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(bad_enums_and_numbers, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(microseconds_are_kept, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(bad_values_of_the_server_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(full_arena_is_told, new_arena, drop_arena),
        };
        database_make(&database, "binder_parameters");
        int failed = cmocka_run_group_tests_name("binder_parameters", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
