// What the binder says of statements that do not fit their messages.
#include "tests/integration/binding_suite.h"

#include <devopsgenie/v1/cloud_account_service.pb-c.h>
#include <devopsgenie/v1/finding_service.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <google/protobuf/empty.pb-c.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>

#define ACCEPTANCE &devopsgenie__v1__acceptance__descriptor
#define EVENTS &devopsgenie__v1__list_finding_events_response__descriptor
#define RETRY_INFO &google__rpc__retry_info__descriptor
#define EVENT_UNSET "-- unset: event_time, from_state, to_state, actor, scan, expire_time\n"

static const struct {
        const char *sql;
        const ProtobufCMessageDescriptor *request, *response;
        const char *error; // NULL: none
} cases[] = {
        // The text.
        {"SELECT\n'a", NULL, NULL, "f.sql:2: the string has no end"},
        {"SELECT 1;\nSELEC :a", NULL, NULL, "f.sql: line 2: syntax error at or near \"SELEC\""},
        {"SELECT 1;\nSELECT :caller_id::text", NULL, NULL,
                "f.sql: line 1: cannot insert multiple commands into a prepared statement"},
        {"-- \xc3\xa4\xc3\xb6\xc3\xbc\nSELECT 1 +\n  missing", NULL, NULL,
                "f.sql: line 3: column \"missing\" does not exist"},
        {"SELECT :caller_id::text,\n:caller_kind", NULL, NULL, NULL},
        {"SELECT 1 WHERE :caller_id IS NULL", NULL, NULL,
                "f.sql: line 1: could not determine data type of parameter :caller_id"},

        // Columns.
        {"SELECT 'a' AS approver, 'b' AS justification, now() AS accept_time, now() AS expire_time", NULL, ACCEPTANCE,
                NULL},
        {"-- unset: justification, accept_time, expire_time\nSELECT 'a' AS approver, 1 AS x, 2 AS \"approver.x\"", NULL,
                ACCEPTANCE,
                "f.sql: column \"x\": no such field in Acceptance\n"
                "f.sql: column \"approver.x\": no such field in Acceptance"},
        {"SELECT 'a' AS approver", NULL, ACCEPTANCE,
                "f.sql: field \"justification\" of Acceptance: no column fills it, and no `-- unset:` lists it\n"
                "f.sql: field \"accept_time\" of Acceptance: no column fills it, and no `-- unset:` lists it\n"
                "f.sql: field \"expire_time\" of Acceptance: no column fills it, and no `-- unset:` lists it"},
        {"-- unset: accept_time, expire_time\nSELECT 1.5 AS approver, ARRAY['a'] AS justification", NULL, ACCEPTANCE,
                "f.sql: column \"approver\": type numeric does not convert to string\n"
                "f.sql: column \"justification\": type text[] does not convert to string"},
        {"-- unset: approver, justification, expire_time\nSELECT now()::timestamp AS accept_time", NULL, ACCEPTANCE,
                "f.sql: column \"accept_time\": type timestamp without time zone does not convert to Timestamp"},
        {"-- unset: approver, justification, expire_time\nSELECT now() AS accept_time, now() AS accept_time", NULL,
                ACCEPTANCE, "f.sql: column \"accept_time\": there are several of this name"},
        {"-- unset: approver, justification, expire_time, nothing, accept_time.seconds, approver.x\n"
         "SELECT now() AS accept_time, 'x' AS approver",
                NULL, ACCEPTANCE,
                "f.sql: column \"approver\": listed in `-- unset:`\n"
                "f.sql: `-- unset:` names \"nothing\": no such field in Acceptance\n"
                "f.sql: `-- unset:` names \"accept_time.seconds\": no such field in Acceptance\n"
                "f.sql: `-- unset:` names \"approver.x\": no such field in Acceptance"},
        {"-- unset: a\nSELECT 1", NULL, NULL,
                "f.sql: `-- unset:` names \"a\": no such field in the response: it has none"},
        {"-- unset: extent\nSELECT 'a' AS services, ARRAY['a'] AS regions", NULL,
                &devopsgenie__v1__coverage__descriptor,
                "f.sql: column \"services\": type text does not convert to repeated string"},
        {"-- unset: reason, domain\nSELECT '{}'::json AS metadata", NULL, &google__rpc__error_info__descriptor,
                "f.sql: column \"metadata\": type json does not convert to repeated MetadataEntry"},
        {"-- unset: code, message\nSELECT 1 AS details", NULL, &google__rpc__status__descriptor,
                "f.sql: column \"details\": repeated message fields are filled by columns of their own, or not at all"},
        {"-- unset: code, message\nSELECT 'a' AS \"details.type_url\"", NULL, &google__rpc__status__descriptor,
                "f.sql: column \"details.type_url\": no such field in Status"},
        {"-- unset: code, message, details\nSELECT", NULL, &google__rpc__status__descriptor, NULL},
        {"-- unset: code, message\nSELECT ARRAY['x'::bytea] AS details", NULL, &google__rpc__status__descriptor,
                "f.sql: column \"details\": repeated message fields are filled by columns of their own, or not at all"},
        {"-- unset: name, aws, gcp, kubernetes, github, etag\nSELECT 'x'::bytea AS azure", NULL,
                &devopsgenie__v1__set_cloud_account_credentials_request__descriptor, NULL},
        {"-- unset: name, aws, gcp, kubernetes, github, etag, azure.tenant_id, azure.client_secret\n"
         "SELECT 'x'::bytea AS azure, 'x' AS \"azure.client_id\"",
                NULL, &devopsgenie__v1__set_cloud_account_credentials_request__descriptor,
                "f.sql: column \"azure\": a message's message fields are filled by columns of their own, or as a "
                "bytea, "
                "or not at all"},
        {"SELECT :azure::bytea, :aws::text", &devopsgenie__v1__set_cloud_account_credentials_request__descriptor, NULL,
                "f.sql: parameter \"aws\": type text does not convert from AwsCredentials"},
        {"SELECT :details::bytea[]", &google__rpc__status__descriptor, NULL,
                "f.sql: parameter \"details\": type bytea[] does not convert from repeated Any"},
        {"-- unset: name, gcp, kubernetes, github, etag, azure.tenant_id\n"
         "SELECT 'x' AS aws, 'x' AS \"azure.client_id\"",
                NULL, &devopsgenie__v1__set_cloud_account_credentials_request__descriptor,
                "f.sql: column \"aws\": a message's message fields are filled by columns of their own, or as a bytea, "
                "or "
                "not at all\n"
                "f.sql: field \"azure.client_secret\" of SetCloudAccountCredentialsRequest: no column fills it, and no "
                "`-- unset:` lists it"},
        {"SELECT 'x' AS refusal, 'y' AS refusal_y", NULL, &google__protobuf__empty__descriptor, NULL},
        {"SELECT 1 AS refusal, now() AS refusal_time, ARRAY['x'] AS refusal_x", NULL,
                &google__protobuf__empty__descriptor,
                "f.sql: column \"refusal\": type integer does not convert to text\n"
                "f.sql: column \"refusal_time\": type timestamp with time zone does not convert to text\n"
                "f.sql: column \"refusal_x\": type text[] does not convert to text"},

        // Lists.
        {EVENT_UNSET "SELECT 'x' AS reason, 1 AS after_x WHERE 1 > :after_x LIMIT :page_limit", NULL, EVENTS, NULL},
        {EVENT_UNSET "SELECT 'x' AS reason", NULL, EVENTS,
                "f.sql: a List needs its sort key as columns after_*\n"
                "f.sql: a List needs parameter \"page_limit\""},
        {EVENT_UNSET
                "SELECT 'x' AS reason, 1 AS after_x, 1.5 AS after_y WHERE 2::int8 > :after_x AND :after_z::text > ''\n"
                "LIMIT :page_limit::int",
                NULL, EVENTS,
                "f.sql: column \"after_y\": type numeric does not convert to a cursor's text\n"
                "f.sql: parameter \"after_x\": type bigint does not convert from the column's text\n"
                "f.sql: parameter \"after_z\": no column of that name\n"
                "f.sql: parameter \"page_limit\": it is an int8"},
        {EVENT_UNSET "SELECT 'x' AS reason, 1 AS after_x LIMIT :page_limit", NULL, EVENTS,
                "f.sql: column \"after_x\": no parameter of that name"},
        {EVENT_UNSET "SELECT 'x' AS reason, 'x' AS after_x WHERE :after_x::text[] IS NULL LIMIT :page_limit", NULL,
                EVENTS, "f.sql: parameter \"after_x\": type text[] does not convert from the column's text"},
        // The formats of text and varchar are one.
        {EVENT_UNSET "SELECT 'x' AS reason, 'x'::varchar AS after_x WHERE :after_x > '' LIMIT :page_limit", NULL,
                EVENTS, NULL},
        // What is no List has no cursor.
        {"-- unset: retry_delay\nSELECT 1 AS after_x LIMIT :page_limit", NULL, RETRY_INFO,
                "f.sql: column \"after_x\": no such field in RetryInfo\n"
                "f.sql: parameter \"page_limit\": no variable of the resource name, no value of the call and no field "
                "of "
                "a request"},

        // Parameters.
        {"SELECT :nam::text, :name__x::text, :findin_id::uuid, :finding_id::uuid",
                &devopsgenie__v1__finding__descriptor, NULL,
                "f.sql: parameter \"nam\": no variable of the resource name, no value of the call and no field of "
                "Finding\n"
                "f.sql: parameter \"name__x\": no variable of the resource name, no value of the call and no field of "
                "Finding\n"
                "f.sql: parameter \"findin_id\": no variable of the resource name, no value of the call and no field "
                "of "
                "Finding"},
        {"SELECT :name::numeric, :severity::int8, :muted::text, :create_time::text, :reference_urls::text, "
         ":title::text[], :note::json, :acceptance::text, :finding_id::bool, :given::text[]",
                &devopsgenie__v1__finding__descriptor, NULL,
                "f.sql: parameter \"name\": type numeric does not convert from string\n"
                "f.sql: parameter \"severity\": type bigint does not convert from Severity\n"
                "f.sql: parameter \"muted\": type text does not convert from bool\n"
                "f.sql: parameter \"create_time\": type text does not convert from Timestamp\n"
                "f.sql: parameter \"reference_urls\": type text does not convert from repeated string\n"
                "f.sql: parameter \"title\": type text[] does not convert from string\n"
                "f.sql: parameter \"note\": type json does not convert from string\n"
                "f.sql: parameter \"acceptance\": type text does not convert from Acceptance\n"
                "f.sql: parameter \"finding_id\": type boolean does not convert from text\n"
                "f.sql: parameter \"given\": type text[] does not convert from text"},
        {"SELECT :checks__check::text, :checks__reference_urls::text[], :checks::text, :evaluations__status::int2",
                &devopsgenie__v1__import_batch__descriptor, NULL,
                "f.sql: parameter \"checks__check\": type text does not convert from string\n"
                "f.sql: parameter \"checks__reference_urls\": type text[] does not convert from repeated string\n"
                "f.sql: parameter \"checks\": type text does not convert from repeated CheckDescription\n"
                "f.sql: parameter \"evaluations__status\": type smallint does not convert from Status"},
        // One repeated message in the way, not two.
        {"SELECT :message_type__field__name::text[]", &google__protobuf__file_descriptor_proto__descriptor, NULL,
                "f.sql: parameter \"message_type__field__name\": no variable of the resource name, no value of the "
                "call "
                "and no field of FileDescriptorProto"},
};

static void mismatches_are_told(void **) {
        for (size_t i = 0; i < COUNT(cases); i++) {
                char *error;
                struct binding *binding = try_binding(
                        &(struct binding_source){.file = "f.sql",
                                .name = "f",
                                .sql = cases[i].sql,
                                .request = cases[i].request,
                                .response = cases[i].response,
                                .name_variables = (const char *const[]){"organization", "finding", NULL},
                                .given = (const char *const[]){"given", NULL}},
                        &error);
                if (cases[i].error) {
                        assert_null(binding);
                        assert_string_equal(error, cases[i].error);
                } else if (!binding)
                        fail_msg("%s: %s", cases[i].sql, error);
                free(error);
                binding_free(binding);
        }
}

static void too_many_parameters_are_told(void **) {
        char sql[2000] = "SELECT 1", *error;
        for (int i = 0; i < 65; i++)
                snprintf(sql + strlen(sql), sizeof sql - strlen(sql), ", :a%d", i);
        assert_null(binding_new(&(struct binding_source){.file = "f.sql", .name = "f", .sql = sql}, &error));
        assert_string_equal(error, "f.sql:1: more parameters than a statement can have");
        free(error);
}

// The storage prepares with the types that were described.
static void statement_has_its_types(void **) {
        struct binding *binding = make_binding(
                &(struct binding_source){.sql = "SELECT :new_id::uuid, :caller_id::text, :new_id", .lane = LANE_WRITE});
        const struct storage_statement *statement = binding_statement(binding);
        assert_string_equal(statement->name, "method");
        assert_string_equal(statement->text, "SELECT $1::uuid, $2::text, $1");
        assert_int_equal(statement->lane, LANE_WRITE);
        assert_int_equal(statement->parameter_count, 2);
        assert_int_equal(statement->parameter_types[0], 2950);
        assert_int_equal(statement->parameter_types[1], 25);
        binding_free(binding);
}

static void lost_connection_is_told(void **) {
        char *error;
        struct binding *binding = make_binding(&(struct binding_source){.sql = "SELECT 1"});
        PGconn *gone = PQconnectdb("host=/nonexistent");
        assert_false(binding_describe(binding, gone, &error));
        assert_non_null(strstr(error, "service/method.sql: "));
        free(error);
        PQfinish(gone);
        binding_free(binding);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(mismatches_are_told),
                cmocka_unit_test(too_many_parameters_are_told),
                cmocka_unit_test(statement_has_its_types),
                cmocka_unit_test(lost_connection_is_told),
        };
        database_make(&database, "binder_describe");
        int failed = cmocka_run_group_tests_name("binder_describe", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
