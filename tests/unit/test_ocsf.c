// The reader of scanners' results, on what a real scanner wrote and on what it should never see.
#include "tools/genie/ocsf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

// What a whole input came to.
struct totals {
        int records, pass, fail, manual, muted, refused;
        unsigned runs;
        char reason[64], message[OCSF_MESSAGE_MAX]; // of the last refusal
        const char *previous_cut, *cut;
        int64_t refused_at;
        uint64_t refused_offset;
};

static void count_evaluation(struct totals *totals, const Devopsgenie__V1__Evaluation *evaluation) {
        totals->pass += evaluation->status == DEVOPSGENIE__V1__EVALUATION__STATUS__PASS;
        totals->fail += evaluation->status == DEVOPSGENIE__V1__EVALUATION__STATUS__FAIL;
        totals->manual += evaluation->status == DEVOPSGENIE__V1__EVALUATION__STATUS__MANUAL;
        totals->muted += evaluation->muted;
}

static void count(struct totals *totals, const struct ocsf_item *item) {
        totals->records++;
        assert_int_equal(item->number, totals->records);
        totals->runs = item->run + 1;
        if (item->previous_cut)
                totals->previous_cut = item->previous_cut;
        for (size_t i = 0; !item->record.reason && i < item->record.n_evaluations; i++)
                count_evaluation(totals, &item->record.evaluations[i]);
        if (!item->record.reason)
                return;
        totals->refused++;
        totals->refused_at = item->number;
        totals->refused_offset = item->offset;
        snprintf(totals->reason, sizeof totals->reason, "%s", item->record.reason);
        snprintf(totals->message, sizeof totals->message, "%s", item->record.message);
}

static struct totals read_all(FILE *file) {
        struct ocsf_reader *reader = ocsf_reader_new(file);
        struct totals totals = {0};
        int failure;

        for (const struct ocsf_item *item; (item = ocsf_reader_next(reader));)
                count(&totals, item);
        assert_null(ocsf_reader_next(reader));
        assert_false(ocsf_reader_failed(reader, &failure));
        totals.cut = ocsf_reader_cut(reader);
        ocsf_reader_free(reader);
        return totals;
}

static FILE *open_bytes(const void *data, size_t size) {
        FILE *file = tmpfile();

        assert_non_null(file);
        assert_int_equal(fwrite(data, 1, size, file), size);
        rewind(file);
        return file;
}

static struct totals read_text(const char *text) { return read_all(open_bytes(text, strlen(text))); }

// The files of the tree, or more of them in another folder. NULL: it is not there.
static FILE *open_real(const char *name) {
        char path[4096];
        const char *folder = getenv("GENIE_TEST_DATA");
        FILE *file = NULL;

        if (folder) {
                snprintf(path, sizeof path, "%s/%s.ocsf.json.gz", folder, name);
                file = fopen(path, "rb");
        }
        if (!file) {
                snprintf(path, sizeof path, SOURCE_DIR "/tests/data/%s.ocsf.json.gz", name);
                file = fopen(path, "rb");
        }
        return file;
}

static struct totals read_real(const char *name) {
        FILE *file = open_real(name);

        assert_non_null(file);
        return read_all(file);
}

static void test_real_files(void **state) {
        static const struct {
                const char *name;
                int records, pass, fail, manual, muted;
                bool elsewhere; // not in the tree: read where GENIE_TEST_DATA has it
        } rows[] = {
                {"aws-123456789012-scan1", 10767, 6066, 4691, 10, 0, false},
                {"aws-123456789012-scan2", 10624, 6349, 4263, 12, 0, true},
                {"aws-123456789012-scan3-partial-s3-iam", 4115, 2192, 1923, 0, 0, true},
                {"aws-extra-mutelist", 488, 217, 271, 0, 207, false},
                {"aws-extra-unix-timestamp", 10, 4, 6, 0, 0, false},
                {"aws-extra-region-eu-west-1", 10, 4, 6, 0, 0, false},
                {"aws-extra-fail-only", 6, 0, 6, 0, 0, false},
                {"kubernetes-demo-scan1", 2256, 1266, 980, 10, 0, false},
        };

        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                FILE *file = open_real(rows[i].name);
                if (!file && rows[i].elsewhere)
                        continue;
                assert_non_null(file);
                struct totals totals = read_all(file);
                assert_int_equal(totals.records, rows[i].records);
                assert_int_equal(totals.pass, rows[i].pass);
                assert_int_equal(totals.fail, rows[i].fail);
                assert_int_equal(totals.manual, rows[i].manual);
                assert_int_equal(totals.muted, rows[i].muted);
                assert_int_equal(totals.refused, 0);
                assert_int_equal(totals.runs, 1);
                assert_null(totals.cut);
        }
}

static void test_killed_scanner(void **state) {
        (void)state;
        struct totals whole_records = read_real("aws-123456789012-killed");
        assert_true(whole_records.records > 100);
        assert_int_equal(whole_records.refused, 0);
        assert_string_equal(whole_records.cut, "it ends before its closing bracket");

        struct totals cut_record = read_real("aws-123456789012-killed-cut-in-record");
        assert_true(cut_record.records > 100);
        assert_int_equal(cut_record.refused, 0);
        assert_string_equal(cut_record.cut, "it ends inside a record");
}

static void test_two_runs_in_one_file(void **state) {
        (void)state;
        struct totals totals = read_real("aws-extra-same-filename-twice");
        assert_int_equal(totals.records, 20);
        assert_int_equal(totals.refused, 0);
        assert_int_equal(totals.runs, 2);
        assert_null(totals.previous_cut);
        assert_null(totals.cut);
}

// What one record came to, kept after the reader is gone.
struct one {
        char reason[64];
        char check[64], service[64], account[64], provider[64], region[64], uid[4096], name[64], detail[64];
        char scanner[64], version[64];
        int status, severity, muted;
        int64_t time_us;
        size_t n_evaluations;
        char description[4096], labels[256], metadata[256], urls[256], resource_type[64];
};

static void join(char *ret_text, size_t size, char *const *list, size_t n) {
        ret_text[0] = '\0';
        for (size_t i = 0; i < n; i++)
                snprintf(ret_text + strlen(ret_text), size - strlen(ret_text), "%s|", list[i]);
}

static void describe(struct one *one, const struct ocsf_record *record) {
        Devopsgenie__V1__CheckDescription *check = ocsf_describe_check(record);
        Devopsgenie__V1__ResourceDescription *resource = ocsf_describe_resource(record, 0);

        snprintf(one->description, sizeof one->description, "%s/%s/%s/%s/%s", check->title, check->description,
                check->risk, check->remediation, check->compliance_json);
        join(one->urls, sizeof one->urls, check->reference_urls, check->n_reference_urls);
        join(one->labels, sizeof one->labels, resource->labels, resource->n_labels);
        snprintf(one->metadata, sizeof one->metadata, "%s", resource->metadata_json);
        snprintf(one->resource_type, sizeof one->resource_type, "%s", resource->type);
        protobuf_c_message_free_unpacked(&check->base, NULL);
        protobuf_c_message_free_unpacked(&resource->base, NULL);
}

static struct one read_one(const char *json) {
        struct ocsf_record record;
        struct one one = {0};

        ocsf_record_parse(&record, json, strlen(json));
        if (record.reason) {
                snprintf(one.reason, sizeof one.reason, "%s", record.reason);
                ocsf_record_drop(&record);
                return one;
        }
        const Devopsgenie__V1__Evaluation *evaluation = &record.evaluations[0];
        snprintf(one.check, sizeof one.check, "%s", evaluation->check);
        snprintf(one.service, sizeof one.service, "%s", evaluation->service);
        snprintf(one.account, sizeof one.account, "%s", evaluation->account_uid);
        snprintf(one.region, sizeof one.region, "%s", evaluation->region);
        snprintf(one.uid, sizeof one.uid, "%s", evaluation->resource_uid);
        snprintf(one.name, sizeof one.name, "%s", evaluation->resource_display_name);
        snprintf(one.detail, sizeof one.detail, "%s", evaluation->status_detail);
        snprintf(one.provider, sizeof one.provider, "%s", record.provider);
        snprintf(one.scanner, sizeof one.scanner, "%s", record.scanner);
        snprintf(one.version, sizeof one.version, "%s", record.scanner_version);
        one.status = (int)evaluation->status;
        one.severity = (int)evaluation->severity;
        one.muted = evaluation->muted;
        one.time_us = record.time_us;
        one.n_evaluations = record.n_evaluations;
        describe(&one, &record);
        ocsf_record_drop(&record);
        return one;
}

#define BASE "\"class_uid\":2004,\"metadata\":{\"event_code\":\"c1\"},\"time\":1795455679"
#define ACCOUNT "\"cloud\":{\"provider\":\"aws\",\"region\":\"us-east-1\",\"account\":{\"uid\":\"123456789012\"}}"
#define RESOURCES "\"resources\":[{\"uid\":\"u1\",\"name\":\"n1\"}]"
#define RECORD(more) "{" BASE "," ACCOUNT "," RESOURCES ",\"status_code\":\"FAIL\"" more "}"
#define RUN(id) ",\"unmapped\":{\"scan_id\":\"" id "\"}"

static void test_a_record(void **state) {
        (void)state;
        struct one one = read_one(
                "{\"message\":\"m\",\"metadata\":{\"event_code\":\"check_a\",\"product\":{\"name\":\"Prowler\","
                "\"version\":\"5.46.0\"}},\"severity_id\":3,\"status_code\":\"FAIL\",\"status_detail\":\"why\","
                "\"status_id\":1,\"unmapped\":{\"additional_urls\":[\"https://b\"],\"compliance\":{ \"CIS-1.4\" : "
                "[\"1.1\"] },\"provider_uid\":\"other\",\"provider\":\"aws\"},\"finding_info\":{\"analytic\":{"
                "\"category\":\"iam\",\"uid\":\"check_b\"},\"desc\":\"**d**\",\"title\":\"t\"},\"resources\":[{"
                "\"region\":\"eu-west-1\",\"data\":{\"details\":\"\",\"metadata\":{\"a\": [1, 2.5, null]}},"
                "\"group\":{\"name\":\"g\"},\"labels\":[\"k:v:w\",\"x\"],\"name\":\"n\",\"type\":\"AwsIamUser\","
                "\"uid\":\"arn\"}],\"class_uid\":2004,\"cloud\":{\"account\":{\"uid\":\"123456789012\"},"
                "\"provider\":\"aws\",\"region\":\"us-east-1\"},\"remediation\":{\"desc\":\"r\",\"references\":["
                "\"https://a\"]},\"risk_details\":\"k\",\"time\":1795455679}");
        assert_string_equal(one.reason, "");
        assert_string_equal(one.check, "check_a");
        assert_string_equal(one.service, "iam");
        assert_string_equal(one.account, "123456789012");
        assert_string_equal(one.provider, "aws");
        assert_string_equal(one.region, "eu-west-1");
        assert_string_equal(one.uid, "arn");
        assert_string_equal(one.name, "n");
        assert_string_equal(one.detail, "why");
        assert_string_equal(one.scanner, "Prowler");
        assert_string_equal(one.version, "5.46.0");
        assert_int_equal(one.status, DEVOPSGENIE__V1__EVALUATION__STATUS__FAIL);
        assert_int_equal(one.severity, DEVOPSGENIE__V1__FINDING__SEVERITY__MEDIUM);
        assert_int_equal(one.muted, 0);
        assert_int_equal(one.time_us, 1795455679000000);
        assert_string_equal(one.description, "t/**d**/k/r/{\"CIS-1.4\":[\"1.1\"]}");
        assert_string_equal(one.urls, "https://a|https://b|");
        assert_string_equal(one.labels, "k:v:w|x|");
        assert_string_equal(one.metadata, "{\"a\":[1,2.5,null]}");
        assert_string_equal(one.resource_type, "AwsIamUser");
}

static void test_kubernetes(void **state) {
        (void)state;
        struct one one = read_one(
                "{" BASE ",\"status_code\":\"PASS\",\"cloud\":null,\"unmapped\":{\"provider\":\"kubernetes\","
                "\"provider_uid\":\"demo-context\"},\"resources\":[{\"uid\":\"u\",\"name\":\"n\",\"namespace\":"
                "\"kube-system\",\"group\":{\"name\":\"core\"}}]}");
        assert_string_equal(one.reason, "");
        assert_string_equal(one.provider, "kubernetes");
        assert_string_equal(one.account, "demo-context");
        assert_string_equal(one.region, "kube-system");
        assert_string_equal(one.service, "core");
        assert_int_equal(one.severity, DEVOPSGENIE__V1__FINDING__SEVERITY__UNKNOWN);
}

static void test_refusals(void **state) {
        static const struct {
                const char *json, *reason;
        } rows[] = {
                {"{\"class_uid\":2003}", "CLASS_UNSUPPORTED"},
                {"{}", "CLASS_UNSUPPORTED"},
                {"{\"class_uid\":\"2004\"}", "CLASS_UNSUPPORTED"},
                {"{\"class_uid\":1e300}", "CLASS_UNSUPPORTED"},
                {"[]", "NOT_AN_OBJECT"},
                {"7", "NOT_AN_OBJECT"},
                {"{\"a\" \"b\"}", "JSON_INVALID"},
                {"{\"a\":\"\\u0000\"}", "JSON_INVALID"},
                {"{\"a\":\"\xff\"}", "JSON_INVALID"},
                {"{\"a\":\"\\ud800\"}", "JSON_INVALID"},
                {"{\"a\":1e999}", "JSON_INVALID"},
                {"{" BASE "," ACCOUNT "," RESOURCES "}", "STATUS_UNKNOWN"},
                {"{" BASE "," ACCOUNT "," RESOURCES ",\"status_code\":\"pass\",\"status_id\":1}", "STATUS_UNKNOWN"},
                {"{" BASE "," ACCOUNT "," RESOURCES ",\"status_code\":1}", "FIELD_INVALID"},
                {"{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\"}", "RESOURCE_MISSING"},
                {"{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\",\"resources\":[]}", "RESOURCE_MISSING"},
                {"{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\",\"resources\":[7]}", "FIELD_INVALID"},
                {"{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\",\"resources\":[{\"uid\":7}]}", "FIELD_INVALID"},
                {"{" BASE "," RESOURCES ",\"status_code\":\"FAIL\"}", "ACCOUNT_MISSING"},
                {"{\"class_uid\":2004,\"time\":1795455679," ACCOUNT "," RESOURCES ",\"status_code\":\"FAIL\"}",
                        "CHECK_MISSING"},
                {"{\"class_uid\":2004,\"metadata\":{\"event_code\":\"c\"}," ACCOUNT "," RESOURCES
                 ",\"status_code\":\"FAIL\"}",
                        "TIME_UNKNOWN"},
                {RECORD(""), ""},
                {RECORD(",\"big\":123456789012345678901234567890"), ""},
        };

        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                assert_string_equal(read_one(rows[i].json).reason, rows[i].reason);
}

static void test_fallbacks(void **state) {
        (void)state;
        assert_string_equal(read_one("{\"class_uid\":2004,\"finding_info\":{\"analytic\":{\"uid\":\"c2\"}},\"time\":1,"
                                     "\"status_code\":\"PASS\"," ACCOUNT "," RESOURCES "}")
                                    .check,
                "c2");
        assert_string_equal(read_one(RECORD("")).region, "us-east-1");
        assert_string_equal(read_one(RECORD("")).service, "");
        assert_string_equal(read_one(RECORD(",\"message\":\"m\"")).detail, "m");
        assert_int_equal(read_one(RECORD(",\"status_id\":3")).muted, 1);
        assert_string_equal(read_one(RECORD(",\"remediation\":{\"desc\":7}")).description, "///7/");
}

static void test_severities(void **state) {
        static const int expected[] = {1, 2, 3, 4, 5, 6, 7, 1};
        char json[1024];

        (void)state;
        for (int id = 0; id <= 7; id++) {
                snprintf(json, sizeof json, RECORD(",\"severity_id\":%d"), id);
                assert_int_equal(read_one(json).severity, expected[id]);
        }
        assert_int_equal(read_one(RECORD(",\"severity_id\":99")).severity, 1);
        assert_int_equal(read_one(RECORD(",\"severity_id\":-1")).severity, 1);
        assert_int_equal(read_one(RECORD(",\"severity_id\":1e300")).severity, 1);
        assert_int_equal(read_one(RECORD(",\"severity_id\":\"High\"")).severity, 1);
}

static void test_times(void **state) {
        static const struct {
                const char *time;
                int64_t us; // 0: refused
        } rows[] = {
                {"\"time\":1795455679", 1795455679000000},
                {"\"time\":1795455679843", 1795455679843000},
                {"\"time\":1795455679.25", 1795455679250000},
                {"\"time_dt\":\"2026-11-23T17:41:19.843008\"", 1795455679843008},
                {"\"time_dt\":\"2026-11-23T17:41:19Z\"", 1795455679000000},
                {"\"time_dt\":\"2026-11-23T19:41:19+02:00\"", 1795455679000000},
                {"\"time\":\"soon\",\"time_dt\":\"2026-11-23T17:41:19Z\"", 1795455679000000},
                {"\"finding_info\":{\"created_time\":1795455679}", 1795455679000000},
                {"\"time\":0", 0},
                {"\"time\":-5", 0},
                {"\"time\":1e300", 0},
                {"\"time_dt\":\"yesterday\"", 0},
                {"\"time_dt\":\"2026-11-23T17:41:19 nonsense\"", 0},
                {"\"time_dt\":\"0000-01-01T00:00:00Z\"", 0},
        };
        char json[1024];

        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                snprintf(json, sizeof json,
                        "{\"class_uid\":2004,\"metadata\":{\"event_code\":\"c\"}," ACCOUNT "," RESOURCES
                        ",\"status_code\":\"FAIL\",%s}",
                        rows[i].time);
                struct one one = read_one(json);
                assert_string_equal(one.reason, rows[i].us ? "" : "TIME_UNKNOWN");
                assert_int_equal(one.time_us, rows[i].us);
        }
}

static void test_odd_names_are_kept(void **state) {
        char json[8192], uid[2001];

        (void)state;
        memset(uid, 'u', 2000);
        uid[2000] = '\0';
        snprintf(json, sizeof json,
                "{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\",\"resources\":[{\"uid\":\"%s\","
                "\"name\":\"\\u001b[31m<b>\xc3\xa9\xe6\xbc\xa2\\n\",\"labels\":[\"\\u0001<script>:=1+1\"]}]}",
                uid);
        struct one one = read_one(json);
        assert_string_equal(one.reason, "");
        assert_string_equal(one.uid, uid);
        assert_string_equal(one.name, "\033[31m<b>\xc3\xa9\xe6\xbc\xa2\n");
        assert_string_equal(one.labels, "\001<script>:=1+1|");
        assert_string_equal(
                read_one("{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\",\"resources\":[{\"uid\":\"\"}]}").reason, "");
}

static void test_several_resources(void **state) {
        (void)state;
        struct totals totals = read_text(
                "[{" BASE "," ACCOUNT ",\"status_code\":\"FAIL\",\"resources\":[{\"uid\":\"a\"},"
                "{\"uid\":\"b\"},{\"uid\":\"c\"}]}]");
        assert_int_equal(totals.records, 1);
        assert_int_equal(totals.fail, 3);
}

// How records stand in a file, and what it says of runs. A, B, C: records of three runs; N: of none.
#define A RECORD(RUN("a"))
#define B RECORD(RUN("b"))
#define C RECORD(RUN("c"))
#define N RECORD("")

static void test_framings(void **state) {
        static const struct {
                const char *text;
                int records, refused;
                unsigned runs;
                bool previous_cut, cut;
        } rows[] = {
                {"", 0, 0, 0, false, false},
                {"[]", 0, 0, 0, false, false},
                {" \n[ ]\n", 0, 0, 0, false, false},
                {"[" A "]", 1, 0, 1, false, false},
                {"\xef\xbb\xbf[" A "," A "]", 2, 0, 1, false, false},
                {A "\n" A "\n", 2, 0, 1, false, false},
                {A A "\r\n" A, 3, 0, 1, false, false},
                {"[" A "," A ",]", 2, 0, 1, false, false},
                {"[" A "][" A "]", 2, 0, 1, false, false}, // one run in two arrays
                {"[" N "][" N "]", 2, 0, 1, false, false},
                {"[" A "]" B "," B "]", 3, 0, 2, false, false}, // appended
                {"[" A "][" B "]", 2, 0, 2, false, false},
                {"[" A "]\n[" B "]" C "]", 3, 0, 3, false, false},
                {A "\n" B "\n", 2, 0, 2, false, false},
                {"[" A "," A B "," B "]", 4, 0, 2, true, false}, // appended to one that was killed
                {"[" A "[" B "]", 2, 0, 2, true, false},
                {"[" A "," B "]", 2, 0, 2, true, true},       // mixed by another tool
                {"[" A "," B "," A "]", 3, 1, 2, true, true}, // and it shows
                {"[" A A "]", 2, 0, 1, false, true},          // a comma is missing
                {"[" A, 1, 0, 1, false, true},
                {"[" A ",", 1, 0, 1, false, true},
                {"[", 0, 0, 0, false, true},
                {"[" A "]" B, 2, 0, 2, false, true},
                {A "," A "]", 2, 0, 1, false, true}, // the beginning is missing
                {A "," A, 2, 0, 1, false, true},
                {"[" A ",{\"class_uid\":2003}]", 2, 1, 1, false, false},
                {"[" A "]{\"class_uid\":2003}," B "]", 3, 1, 2, false, true}, // the second run lost its first record
                {"[1,\"two\",null,[3],{}," A "]", 6, 5, 1, false, false},
                {"hello, world", 2, 2, 1, false, true},
                {"{]", 1, 1, 1, false, false},
                {"}", 1, 1, 1, false, false},
        };

        (void)state;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct totals totals = read_text(rows[i].text);
                if (totals.records != rows[i].records || totals.refused != rows[i].refused ||
                        totals.runs != rows[i].runs || !totals.previous_cut == rows[i].previous_cut ||
                        !totals.cut == rows[i].cut)
                        fail_msg("row %zu: %d records, %d refused (%s), %u runs, %s, %s", i, totals.records,
                                totals.refused, totals.reason, totals.runs, totals.previous_cut, totals.cut);
        }
}

static void test_too_many_runs(void **state) {
        char text[16384] = "";

        (void)state;
        for (unsigned i = 0; i < OCSF_RUNS_MAX + 2; i++)
                snprintf(text + strlen(text), sizeof text - strlen(text), "[{%s,\"unmapped\":{\"scan_id\":\"%u\"}}]",
                        BASE "," ACCOUNT "," RESOURCES ",\"status_code\":\"FAIL\"", i);
        struct totals totals = read_text(text);
        assert_int_equal(totals.records, OCSF_RUNS_MAX + 2);
        assert_int_equal(totals.runs, OCSF_RUNS_MAX);
        assert_int_equal(totals.refused, 2);
        assert_string_equal(totals.reason, "RUNS_TOO_MANY");
}

static void test_positions(void **state) {
        (void)state;
        struct totals totals = read_text("[\n" RECORD("") ",\n{\"class_uid\": 2003}]");
        assert_int_equal(totals.refused_at, 2);
        assert_int_equal(totals.refused_offset, 2 + strlen(RECORD("")) + 2);
}

// A file cut at any byte gives its whole records, none of them refused, and says that it is cut.
static void test_every_cut(void **state) {
        static const char text[] = "[" RECORD(",\"message\":\"a \\\"b\\\\ [{]}\"") "," A "]";
        size_t size = strlen(text), second = (size_t)(strchr(text + 1, '\0') - text) - strlen(A "]");

        (void)state;
        for (size_t at = 1; at < size; at++) {
                struct totals totals = read_all(open_bytes(text, at));
                assert_int_equal(totals.records, at >= size - 1 ? 2 : at >= second - 1 ? 1 : 0);
                assert_int_equal(totals.refused, 0);
                assert_non_null(totals.cut);
        }
}

static size_t pack(const char *text, unsigned char *ret_data, size_t size) {
        z_stream stream = {0};

        assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        stream.next_in = (unsigned char *)(uintptr_t)text;
        stream.avail_in = (uInt)strlen(text);
        stream.next_out = ret_data;
        stream.avail_out = (uInt)size;
        assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
        deflateEnd(&stream);
        return size - stream.avail_out;
}

static void test_gzip(void **state) {
        unsigned char data[4096];

        (void)state;
        size_t first = pack("[" A "," A, data, sizeof data);
        size_t size = first + pack("," A "]", data + first, sizeof data - first);
        struct totals whole = read_all(open_bytes(data, size));
        assert_int_equal(whole.records, 3);
        assert_null(whole.cut);

        memset(data + size, 0, 100);
        assert_null(read_all(open_bytes(data, size + 100)).cut);
        memset(data + size, 'x', 100);
        assert_non_null(read_all(open_bytes(data, size + 100)).cut);
        for (size_t at = 3; at < size; at++) {
                struct totals cut = read_all(open_bytes(data, at));
                assert_true(cut.records <= 3 && cut.refused == 0);
                assert_non_null(cut.cut);
        }
        data[size - 6] ^= 1; // the checksum
        assert_non_null(read_all(open_bytes(data, size)).cut);
}

static void test_hostile_nesting(void **state) {
        enum { DEPTH = 400000 };
        char *text = malloc(2 * DEPTH + 100);

        (void)state;
        memset(text, '[', DEPTH);
        memset(text + DEPTH, ']', DEPTH);
        snprintf(text + 2 * DEPTH, 100, "\n{\"class_uid\":2003}");
        struct totals totals = read_text(text);
        assert_true(totals.refused >= 1);
        free(text);

        text = malloc(6 * DEPTH);
        memcpy(text, "{\"a\":", 5);
        memset(text + 5, '[', DEPTH);
        memset(text + 5 + DEPTH, ']', DEPTH);
        memcpy(text + 5 + 2 * DEPTH, "}", 2);
        totals = read_text(text);
        assert_int_equal(totals.records, 1);
        assert_string_equal(totals.reason, "JSON_INVALID");
        free(text);
}

static void test_record_too_large(void **state) {
        enum { LARGE = 2 << 20 };
        FILE *file = tmpfile();

        (void)state;
        fputs("[" A ",{\"a\":\"", file);
        for (size_t i = 0; i < LARGE; i++)
                fputc('x', file);
        fputs("\"}," A "]", file);
        rewind(file);
        struct totals totals = read_all(file);
        assert_int_equal(totals.records, 3);
        assert_int_equal(totals.fail, 2);
        assert_int_equal(totals.refused_at, 2);
        assert_string_equal(totals.reason, "RECORD_TOO_LARGE");
}

static void test_nul_bytes(void **state) {
        static const char text[] = "[" A ",{\"a\":\"\0\"}," A "]\0\0\0";

        (void)state;
        struct totals totals = read_all(open_bytes(text, sizeof text - 1));
        assert_int_equal(totals.fail, 2);
        assert_int_equal(totals.refused, 2); // the record, and the rubbish behind the end as one
}

// What is refused is sent to the server, whose strings are UTF-8.
static void test_messages_are_ascii(void **state) {
        (void)state;
        struct totals totals = read_text("{" BASE "," ACCOUNT "," RESOURCES
                                         ",\"status_code\":\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                         "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                         "\xc3\xa9\xc3\xa9\xc3\xa9x\xc3\xa9\\u0007\"}");
        assert_string_equal(totals.reason, "STATUS_UNKNOWN");
        for (const char *c = totals.message; *c; c++)
                assert_true(*c >= ' ' && *c <= '~');
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_real_files),
                cmocka_unit_test(test_killed_scanner),
                cmocka_unit_test(test_two_runs_in_one_file),
                cmocka_unit_test(test_a_record),
                cmocka_unit_test(test_kubernetes),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_fallbacks),
                cmocka_unit_test(test_severities),
                cmocka_unit_test(test_times),
                cmocka_unit_test(test_odd_names_are_kept),
                cmocka_unit_test(test_several_resources),
                cmocka_unit_test(test_framings),
                cmocka_unit_test(test_too_many_runs),
                cmocka_unit_test(test_positions),
                cmocka_unit_test(test_every_cut),
                cmocka_unit_test(test_gzip),
                cmocka_unit_test(test_hostile_nesting),
                cmocka_unit_test(test_record_too_large),
                cmocka_unit_test(test_nul_bytes),
                cmocka_unit_test(test_messages_are_ascii),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
