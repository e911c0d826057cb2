// From requests through PostgreSQL into responses: values come back as they went.
#include "tests/integration/binding_suite.h"

#include <devopsgenie/options/options.pb-c.h>
#include <devopsgenie/v1/cloud_account_service.pb-c.h>
#include <devopsgenie/v1/finding_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <devopsgenie/v1/task_service.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <google/protobuf/duration.pb-c.h>
#include <google/rpc/error_details.pb-c.h>

typedef Devopsgenie__V1__Finding Finding;
typedef Google__Protobuf__UninterpretedOption Option;

// --- There and back ---

static void assert_round_trip(const char *sql, const ProtobufCMessage *message) {
        PGresult *result;
        const struct binding_source source = {
                .sql = sql, .request = message->descriptor, .response = message->descriptor};
        assert_same_message(respond_to(&source, message, &result), message);
        PQclear(result);
}

static const char finding_sql[] =
        "SELECT :name AS name, :uid::uuid AS uid, :cloud_account AS cloud_account, :resource::varchar AS resource, "
        ":resource_uid AS resource_uid, :resource_display_name AS resource_display_name, :region AS region, "
        ":check AS check, :service AS service, :title AS title, :description AS description, :risk AS risk, "
        ":remediation AS remediation, :reference_urls::text[] AS reference_urls, :status_detail AS status_detail, "
        ":severity::int2 AS severity, :state AS state, :muted::bool AS muted, :ordinal::int AS ordinal, :note AS note, "
        ":acceptance__approver AS \"acceptance.approver\", :acceptance__justification AS \"acceptance.justification\", "
        ":acceptance__accept_time::timestamptz AS \"acceptance.accept_time\", "
        ":acceptance__expire_time::timestamptz AS \"acceptance.expire_time\", :regression_count::int8 AS "
        "regression_count, "
        ":create_time::timestamptz AS create_time, :update_time::timestamptz AS update_time, "
        ":last_seen_time::timestamptz AS last_seen_time, :resolve_time::timestamptz AS resolve_time, :etag AS etag";

static Finding full_finding(void) {
        static char *urls[] = {text("https://a.example"), text(""), text("\xc3\xa4, \"b\" {c}")};
        Finding finding = DEVOPSGENIE__V1__FINDING__INIT;
        static Devopsgenie__V1__Acceptance acceptance;
        devopsgenie__v1__acceptance__init(&acceptance);
        acceptance.approver = text("user:1");
        acceptance.accept_time = at(0, 0);
        finding.name = text("organizations/acme/findings/" UUID_A);
        finding.uid = text(UUID_A);
        finding.resource = text("varchar");
        finding.check = text("s3_bucket_versioning");
        finding.n_reference_urls = COUNT(urls);
        finding.reference_urls = urls;
        finding.severity = DEVOPSGENIE__V1__FINDING__SEVERITY__FATAL;
        finding.state = DEVOPSGENIE__V1__FINDING__STATE__ACCEPTED_RISK;
        finding.muted = true;
        finding.ordinal = INT32_MIN;
        finding.acceptance = &acceptance;
        finding.regression_count = INT32_MAX;
        finding.create_time = at(-62135596800, 0);         // year 1
        finding.update_time = at(253402300799, 999999000); // year 9999
        finding.last_seen_time = at(-1, 1000);
        finding.resolve_time = at(946684799, 999999000);
        finding.etag = text("\"1\"");
        return finding;
}

static void finding_comes_back(void **) {
        Finding full = full_finding(), empty = DEVOPSGENIE__V1__FINDING__INIT;
        assert_round_trip(finding_sql, &full.base);
        assert_round_trip(finding_sql, &empty.base);
}

// The empty finding's nested messages are not there at all.
static void nested_message_exists_with_a_column(void **) {
        Finding empty = DEVOPSGENIE__V1__FINDING__INIT;
        PGresult *result;
        const struct binding_source source = {
                .sql = finding_sql, .request = empty.base.descriptor, .response = empty.base.descriptor};
        const Finding *response = (const Finding *)(const void *)respond_to(&source, &empty.base, &result);
        assert_null(response->acceptance);
        assert_null(response->create_time);
        assert_ptr_equal(response->uid, protobuf_c_empty_string); // '' is NULL where a UUID is asked for
        PQclear(result);
}

static const char option_sql[] =
        "-- unset: name\n"
        "SELECT :identifier_value AS identifier_value, :positive_int_value::int8 AS positive_int_value, "
        ":negative_int_value::int8 AS negative_int_value, :double_value::float8 AS double_value, "
        ":string_value::bytea AS string_value, :aggregate_value::jsonb AS aggregate_value";

static void presence_survives(void **) {
        Option absent = GOOGLE__PROTOBUF__UNINTERPRETED_OPTION__INIT, zero = absent, full = absent;
        assert_round_trip(option_sql, &absent.base);
        zero.has_positive_int_value = zero.has_negative_int_value = zero.has_double_value = zero.has_string_value =
                true;
        zero.identifier_value = text("");
        assert_round_trip(option_sql, &zero.base);
        full = zero;
        full.positive_int_value = INT64_MAX;
        full.negative_int_value = INT64_MIN;
        full.double_value = -1.5e300;
        full.string_value = (ProtobufCBinaryData){5, (uint8_t *)text("\0a\0\xff\n")};
        full.aggregate_value = text("{\"a\": [1, 2]}");
        assert_round_trip(option_sql, &full.base);
}

static void map_comes_back(void **) {
        static char hard[] = "\"\\/\b\f\n\r\t\x01\x1f\x7f \xf0\x9f\x92\xa1 </script>";
        Google__Rpc__ErrorInfo__MetadataEntry entries[3], *pointers[3] = {&entries[0], &entries[1], &entries[2]};
        static char *const keys[] = {text(""), text("a"), text("b")}, *const values[] = {hard, text(""), text("c")};
        for (size_t i = 0; i < COUNT(entries); i++) {
                google__rpc__error_info__metadata_entry__init(&entries[i]);
                entries[i].key = keys[i];
                entries[i].value = values[i];
        }
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        const char *sql = "-- unset: reason, domain\nSELECT :metadata::jsonb AS metadata";
        assert_round_trip(sql, &info.base);
        info.metadata = pointers;
        info.n_metadata = COUNT(pointers);
        assert_round_trip(sql, &info.base);
        entries[0].key = hard;
        info.n_metadata = 1;
        assert_round_trip(sql, &info.base);
}

static void duration_comes_back(void **) {
        static const struct {
                int64_t seconds;
                int32_t nanos;
        } durations[] = {{0, 0}, {1, 1000}, {-1, -999999000}, {0, -1000}, {315576000000, 0}, {-315576000000, 0}};
        for (size_t i = 0; i < COUNT(durations); i++) {
                Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
                Google__Rpc__RetryInfo info = GOOGLE__RPC__RETRY_INFO__INIT;
                delay.seconds = durations[i].seconds;
                delay.nanos = durations[i].nanos;
                info.retry_delay = &delay;
                assert_round_trip("SELECT :retry_delay::interval AS retry_delay", &info.base);
        }
}

static void arrays_come_back(void **) {
        Devopsgenie__Options__ServiceRole roles[] = {2, 0, 3};
        char *gives[] = {text("a"), text("")};
        Devopsgenie__Options__Hook hook = DEVOPSGENIE__OPTIONS__HOOK__INIT;
        Devopsgenie__Options__Rule rule = DEVOPSGENIE__OPTIONS__RULE__INIT;
        hook.n_gives = COUNT(gives);
        hook.gives = gives;
        rule.before = &hook;
        rule.n_service_roles = COUNT(roles);
        rule.service_roles = roles;
        rule.changes_access = true;
        const char *rest = ":least_role AS least_role, :before__gives::text[] AS \"before.gives\", "
                           ":changes_access::bool AS changes_access\n"
                           "-- unset: any_caller, no_caller, lane, on_deleted, after, handler, agents";
        const char *types[] = {"text[]", "int2[]", "int4[]"};
        for (size_t i = 0; i < COUNT(types); i++)
                assert_round_trip(
                        arena_printf(&arena, "SELECT :service_roles::%s AS service_roles, %s", types[i], rest),
                        &rule.base);

        int32_t numbers[] = {0, -32768, 32767};
        Google__Protobuf__FileDescriptorProto file = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT;
        file.public_dependency = numbers;
        file.n_public_dependency = COUNT(numbers);
        const char *integers[] = {"int2[]", "int4[]", "int8[]"};
        for (size_t i = 0; i < COUNT(integers); i++)
                assert_round_trip(
                        arena_printf(&arena,
                                "-- unset: name, package, dependency, weak_dependency, message_type, enum_type, "
                                "service, extension, options, source_code_info, syntax\n"
                                "SELECT :public_dependency::%s AS public_dependency",
                                integers[i]),
                        &file.base);
}

static void oneof_comes_back(void **) {
        Devopsgenie__V1__SetCloudAccountCredentialsRequest none =
                DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__INIT;
        Devopsgenie__V1__AzureCredentials azure = DEVOPSGENIE__V1__AZURE_CREDENTIALS__INIT;
        const char *sql =
                "-- unset: name, gcp, kubernetes, etag, azure.client_id\n"
                "SELECT :aws__role_arn AS \"aws.role_arn\", :aws__access_key_id AS \"aws.access_key_id\", "
                ":aws__secret_access_key AS \"aws.secret_access_key\", :aws__session_token AS \"aws.session_token\", "
                ":azure__tenant_id AS \"azure.tenant_id\", :azure__client_secret AS \"azure.client_secret\", "
                ":github__token AS \"github.token\"";
        assert_round_trip(sql, &none.base);
        Devopsgenie__V1__SetCloudAccountCredentialsRequest set = none;
        set.credentials_case = DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_AZURE;
        set.azure = &azure;
        assert_round_trip(sql, &set.base);
        azure.tenant_id = text("t");
        assert_round_trip(sql, &set.base);
}

static void messages_in_messages_come_back(void **) {
        Devopsgenie__V1__ImportResultsRequest request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        Devopsgenie__V1__ImportHeader header = DEVOPSGENIE__V1__IMPORT_HEADER__INIT;
        Devopsgenie__V1__Coverage coverage = DEVOPSGENIE__V1__COVERAGE__INIT;
        const char *sql = "-- unset: batch, end, header.coverage.services, header.scanner, header.scanner_version, "
                          "header.request_id\n"
                          "SELECT :header__coverage__extent AS \"header.coverage.extent\", :header__parent AS "
                          "\"header.parent\", :header__coverage__regions::text[] AS \"header.coverage.regions\", "
                          ":header__scan_time::timestamptz AS \"header.scan_time\"";
        assert_round_trip(sql, &request.base);
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_HEADER;
        request.header = &header;
        header.scan_time = at(1, 0);
        assert_round_trip(sql, &request.base);
        char *regions[] = {text("eu-central-1")};
        header.coverage = &coverage;
        coverage.regions = regions;
        coverage.n_regions = COUNT(regions);
        assert_round_trip(sql, &request.base);
}

#define TASK_UNSET                                                                                                     \
        "-- unset: name, uid, kind, labels, target_agent, priority, time_to_live, max_attempts, state, attempt, "      \
        "start_count, agent, progress_percent, progress_step, failure, outputs, cancellation, creator, create_time, "  \
        "update_time, next_attempt_time, expire_time, start_time, end_time, etag\n"

static Devopsgenie__V1__Task *task_with_payload(void) {
        static Devopsgenie__V1__Task task;
        static Devopsgenie__V1__TaskPayload payload;
        static Devopsgenie__V1__Command command;
        static char *arguments[] = {text("--all"), text("\xc3\xa4"), text("")};
        devopsgenie__v1__task__init(&task);
        devopsgenie__v1__task_payload__init(&payload);
        devopsgenie__v1__command__init(&command);
        command.name = text("restart");
        command.arguments = arguments;
        command.n_arguments = COUNT(arguments);
        payload.kind_case = DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_COMMAND;
        payload.command = &command;
        task.payload = &payload;
        task.idempotency_key = text("k");
        return &task;
}

// A message in one bytea; without it NULL, and one without fields set is not NULL.
static void message_comes_back_in_its_wire_form(void **) {
        static const char sql[] = TASK_UNSET "SELECT :payload::bytea AS payload, :idempotency_key AS idempotency_key";
        Devopsgenie__V1__Task *task = task_with_payload();
        assert_round_trip(sql, &task->base);
        Devopsgenie__V1__TaskPayload empty = DEVOPSGENIE__V1__TASK_PAYLOAD__INIT;
        task->payload = &empty;
        assert_round_trip(sql, &task->base);
        task->payload = NULL;
        assert_round_trip(sql, &task->base);
}

// What is stored is the message alone, as any reader of protobuf has it; of a resource that a request carries, too.
static void message_is_stored_in_its_wire_form(void **) {
        Devopsgenie__V1__CreateTaskRequest request = DEVOPSGENIE__V1__CREATE_TASK_REQUEST__INIT;
        request.task = task_with_payload();
        request.task->payload->command->n_arguments = 1;
        struct binding *binding = make_binding(&(struct binding_source){
                .sql = "SELECT encode(:payload::bytea, 'hex')", .request = request.base.descriptor, .body = "task"});
        PGresult *result = run_binding(binding, &request.base, &(struct binding_values){0});
        assert_string_equal(PQgetvalue(result, 0, 0), "12100a077265737461727412052d2d616c6c");
        PQclear(result);
        binding_free(binding);
}

// Cut anywhere it is no message, or a shorter one; never read past its end.
static void malformed_message_is_broken(void **) {
        static const char sql[] = TASK_UNSET "SELECT 'k' AS idempotency_key, '\\x12100a077265737461727412052d2d616c6c'"
                                             "::bytea AS payload";
        struct binding *binding = make_binding(
                &(struct binding_source){.sql = sql, .response = &devopsgenie__v1__task__descriptor});
        PGresult *good = run_binding(binding, NULL, &(struct binding_values){0});
        int column = PQfnumber(good, "payload"), whole = PQgetlength(good, 0, column);
        for (int size = 0; size <= whole; size++) {
                PGresult *bad = PQcopyResult(good, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
                assert_true(PQsetvalue(bad, 0, column, PQgetvalue(good, 0, column), size));
                Devopsgenie__V1__Task *task = (void *)new_message(&devopsgenie__v1__task__descriptor);
                enum binding_status status = binding_response(binding, bad, 1, &arena, &task->base);
                assert_int_equal(status, !size || size == whole ? BINDING_OK : BINDING_BROKEN);
                assert_true(status != BINDING_OK || task->payload);
                PQclear(bad);
        }
        PQclear(good);
        binding_free(binding);
}

static void two_members_of_a_oneof_are_broken(void **) {
        struct binding *binding = make_binding(&(struct binding_source){
                .sql = "-- unset: name, gcp, kubernetes, etag, aws, azure.tenant_id, azure.client_id\n"
                       "SELECT 'a' AS \"azure.client_secret\", 'b' AS \"github.token\"",
                .response = &devopsgenie__v1__set_cloud_account_credentials_request__descriptor});
        PGresult *result = run_binding(binding, NULL, &(struct binding_values){0});
        assert_int_equal(binding_response(binding, result, 1, &arena,
                                 new_message(&devopsgenie__v1__set_cloud_account_credentials_request__descriptor)),
                BINDING_BROKEN);
        PQclear(result);
        binding_free(binding);
}

// A value of another length than its type has.
static void wrong_lengths_are_broken(void **) {
        static const char *const fixed[] = {"uid", "severity", "muted", "ordinal", "regression_count", "create_time"};
        static char zeros[32];
        struct binding *binding = make_binding(&(struct binding_source){.sql = finding_sql,
                .request = &devopsgenie__v1__finding__descriptor,
                .response = &devopsgenie__v1__finding__descriptor});
        Finding finding = full_finding();
        PGresult *good = run_binding(binding, &finding.base, &(struct binding_values){0});
        for (size_t i = 0; i < COUNT(fixed); i++) {
                int column = PQfnumber(good, fixed[i]), width = PQgetlength(good, 0, column);
                for (int size = 0; size <= width + 1; size++) {
                        PGresult *bad = PQcopyResult(good, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
                        assert_true(PQsetvalue(bad, 0, column, zeros, size));
                        enum binding_status status = binding_response(
                                binding, bad, 1, &arena, new_message(finding.base.descriptor));
                        assert_int_equal(status, size == width ? BINDING_OK : BINDING_BROKEN);
                        PQclear(bad);
                }
        }
        PQclear(good);
        binding_free(binding);
}

// Results of the described shape with lengths and bytes that are not: an error or a message that packs, nothing else.
static void wrong_values_are_broken_or_harmless(void **) {
        struct binding *binding = make_binding(&(struct binding_source){.sql = finding_sql,
                .request = &devopsgenie__v1__finding__descriptor,
                .response = &devopsgenie__v1__finding__descriptor});
        Finding finding = full_finding();
        PGresult *good = run_binding(binding, &finding.base, &(struct binding_values){0});
        uint32_t random = 1;
        unsigned broken = 0;
        for (int round = 0; round < 5000; round++) {
                struct arena small;
                PGresult *bad = PQcopyResult(good, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
                random = random * 1664525 + 1013904223;
                int column = (int)(random >> 8) % PQnfields(good), size = PQgetlength(good, 0, column);
                char *value = arena_copy(&arena, PQgetvalue(good, 0, column), (size_t)size);
                random = random * 1664525 + 1013904223;
                int wrong_size = random & 0x10000 ? size : (int)(random >> 8) % (size + 1);
                if (size)
                        value[(random >> 20) % (unsigned)size] ^= (char)(1 << (random & 7));
                assert_true(PQsetvalue(bad, 0, column, value, wrong_size));
                arena_init(&small, 1 << 16);
                ProtobufCMessage *response = new_message(finding.base.descriptor);
                if (binding_response(binding, bad, 1, &small, response) == BINDING_OK)
                        protobuf_c_message_pack(
                                response, arena_alloc(&arena, protobuf_c_message_get_packed_size(response) + 1));
                else
                        broken++;
                arena_drop(&small, false);
                PQclear(bad);
                if (round % 100 == 99) {
                        drop_arena(NULL);
                        new_arena(NULL);
                }
        }
        assert_in_range(broken, 500, 4500);
        PQclear(good);
        binding_free(binding);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(finding_comes_back, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(nested_message_exists_with_a_column, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(presence_survives, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(map_comes_back, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(duration_comes_back, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(arrays_come_back, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(oneof_comes_back, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(messages_in_messages_come_back, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(message_comes_back_in_its_wire_form, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(message_is_stored_in_its_wire_form, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(malformed_message_is_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(two_members_of_a_oneof_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(wrong_lengths_are_broken, new_arena, drop_arena),
                cmocka_unit_test_setup_teardown(wrong_values_are_broken_or_harmless, new_arena, drop_arena),
        };
        database_make(&database, "binder");
        int failed = cmocka_run_group_tests_name("binder", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
