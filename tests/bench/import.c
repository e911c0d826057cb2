// Imports a made-up scan with ImportResults, as fast as the server takes it. Its batches are packed before the clock
// starts. Prints one JSON object.
//
//   bench-import --endpoint HOST:PORT --ca FILE --account organizations/…/cloudAccounts/… --account-uid UID
//                [--evaluations N]         with the API key in GENIE_API_KEY
//
// The scan is like a scanner's of a real account: 311 checks, nine of them on each resource, 3 regions, 44 in 100
// fail, texts of the usual lengths. Two scans of the same size are the same.
#include "devopsgenie/v1/scan_service.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "storage/uuid.h"
#include "tools/client/client.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum {
        CHECKS = 311,
        CHECKS_PER_RESOURCE = 9,
        REGIONS = 3,
        BATCH = 1000,
        IN_FLIGHT = 8,
        EVALUATIONS_MAX = 10000000,
        METADATA = 640
};
enum { TIMEOUT_MS = 300000 };

typedef Devopsgenie__V1__ImportResultsRequest Request;
typedef Devopsgenie__V1__ImportResultsResponse Response;

struct packed {
        uint8_t *data;
        size_t size;
};

struct import {
        const char *endpoint, *ca, *account, *account_uid;
        size_t evaluations, batch_count;
        struct packed *batches;
        Devopsgenie__V1__Scan *summary; // NULL until the end; in `last`
        Response *last;
};

static const char *const regions[REGIONS] = {"us-east-1", "eu-west-1", "ap-northeast-1"};

// Protobuf-c's strings are not const; nothing writes to them.
static char *text(const char *constant) {
        union {
                const char *in;
                char *out;
        } pointer = {.in = constant};
        return pointer.out;
}

// Texts of a batch live until it is packed.
struct texts {
        char *texts[BATCH * 16];
        size_t count;
};

// `size` characters of prose that begin with the given text; NULL where memory is out.
static char *prose(struct texts *texts, size_t size, const char *begin, size_t number) {
        static const char filler[] = " shows that the resource is reachable in ways that its owner has not asked for;";
        char *made = malloc(size + 1);
        if (!made)
                return NULL;
        int at = snprintf(made, size + 1, "%s %zu", begin, number);
        for (size_t i = (size_t)at; i < size; i++)
                made[i] = filler[(i - (size_t)at) % (sizeof filler - 1)];
        made[size] = '\0';
        return texts->texts[texts->count++] = made;
}

static char *check_key(struct texts *texts, size_t check) {
        return prose(texts, 38, "service_resource_setting", check);
}

static char *resource_uid(struct texts *texts, size_t resource) {
        return prose(texts, 62, "arn:aws:ec2:region:123456789012:instance/i-", resource);
}

static char *service(size_t check) {
        static const char *const services[] = {"ec2", "s3", "rds", "lambda", "eks", "kms", "sns", "sqs"};
        return text(services[check % (sizeof services / sizeof *services)]);
}

// All its fields point to texts of the batch.
static void describe_check(Devopsgenie__V1__CheckDescription *check, struct texts *texts, size_t number) {
        devopsgenie__v1__check_description__init(check);
        check->check = check_key(texts, number);
        check->service = service(number);
        check->title = prose(texts, 64, "Check", number);
        check->description = prose(texts, 217, "**The check**", number);
        check->risk = prose(texts, 297, "**Risk**", number);
        check->remediation = prose(texts, 312, "- Mend", number);
        check->compliance_json = text("{\"CIS-4.0.1\": [\"1.1\", \"2.3\"], \"ISO27001-2022\": [\"A.5.5\"]}");
}

static void describe_resource(Devopsgenie__V1__ResourceDescription *resource, struct texts *texts, size_t number) {
        devopsgenie__v1__resource_description__init(resource);
        resource->uid = resource_uid(texts, number);
        resource->region = text(regions[number % REGIONS]);
        resource->display_name = prose(texts, 30, "instance", number);
        resource->type = text("AwsEc2Instance");
        resource->service = text("ec2");
        resource->metadata_json = prose(texts, METADATA, "{\"text\": \"instance", number);
        if (resource->metadata_json)
                memcpy(resource->metadata_json + METADATA - 2, "\"}", 2);
}

// Every check of a resource once: evaluation i is of check i modulo CHECKS.
static void evaluate(
        Devopsgenie__V1__Evaluation *evaluation, const struct import *import, struct texts *texts, size_t i) {
        size_t check = i % CHECKS, resource = i / CHECKS_PER_RESOURCE;
        size_t dice = (i * 2654435761u >> 8) % 1000;
        devopsgenie__v1__evaluation__init(evaluation);
        evaluation->record = (int64_t)i + 1;
        evaluation->account_uid = text(import->account_uid);
        evaluation->check = check_key(texts, check);
        evaluation->service = service(check);
        evaluation->resource_uid = resource_uid(texts, resource);
        evaluation->region = text(regions[resource % REGIONS]);
        evaluation->resource_display_name = prose(texts, 30, "instance", resource);
        evaluation->status = dice < 440   ? DEVOPSGENIE__V1__EVALUATION__STATUS__FAIL
                             : dice < 999 ? DEVOPSGENIE__V1__EVALUATION__STATUS__PASS
                                          : DEVOPSGENIE__V1__EVALUATION__STATUS__MANUAL;
        evaluation->severity = DEVOPSGENIE__V1__FINDING__SEVERITY__LOW +
                               (Devopsgenie__V1__Finding__Severity)(check % 4);
        evaluation->status_detail = prose(texts, 87, "Instance", resource);
}

static bool pack(const Request *request, struct packed *ret_packed) {
        ret_packed->size = devopsgenie__v1__import_results_request__get_packed_size(request);
        ret_packed->data = malloc(ret_packed->size);
        return ret_packed->data && devopsgenie__v1__import_results_request__pack(request, ret_packed->data);
}

struct parts {
        struct texts texts;
        Devopsgenie__V1__Evaluation evaluations[BATCH], *evaluation[BATCH];
        Devopsgenie__V1__CheckDescription checks[CHECKS], *check[CHECKS];
        Devopsgenie__V1__ResourceDescription resources[BATCH], *resource[BATCH];
};

// Packs a batch; what it describes is what it has first.
static bool make_batch(const struct import *import, struct parts *parts, size_t begin, struct packed *ret_packed) {
        Devopsgenie__V1__ImportBatch batch = DEVOPSGENIE__V1__IMPORT_BATCH__INIT;
        Request request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        size_t left = import->evaluations - begin, count = left < BATCH ? left : BATCH;
        parts->texts.count = 0;
        for (size_t i = begin; i < begin + count; i++) {
                parts->evaluation[i - begin] = &parts->evaluations[i - begin];
                evaluate(parts->evaluation[i - begin], import, &parts->texts, i);
                if (i < CHECKS) {
                        parts->check[i] = &parts->checks[i];
                        describe_check(parts->check[batch.n_checks++], &parts->texts, i);
                }
                if (i % CHECKS_PER_RESOURCE == 0) {
                        parts->resource[batch.n_resources] = &parts->resources[batch.n_resources];
                        describe_resource(parts->resource[batch.n_resources++], &parts->texts, i / CHECKS_PER_RESOURCE);
                }
        }
        batch.first_record = (int64_t)begin + 1;
        batch.record_count = (int32_t)count;
        batch.n_evaluations = count;
        batch.evaluations = parts->evaluation;
        batch.checks = parts->check;
        batch.resources = parts->resource;
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_BATCH;
        request.batch = &batch;
        bool good = pack(&request, ret_packed);
        for (size_t i = 0; i < parts->texts.count; i++)
                free(parts->texts.texts[i]);
        return good;
}

static bool make_batches(struct import *import) {
        import->batch_count = (import->evaluations + BATCH - 1) / BATCH;
        import->batches = calloc(import->batch_count, sizeof *import->batches);
        struct parts *parts = calloc(1, sizeof *parts);
        bool good = import->batches && parts;
        for (size_t i = 0; good && i < import->batch_count; i++)
                good = make_batch(import, parts, i * BATCH, &import->batches[i]);
        free(parts);
        return good;
}

static bool write_packed(struct client_stream *stream, struct packed packed) {
        return client_stream_write(stream, packed.data, packed.size, TIMEOUT_MS);
}

// Packs and sends one of the small parts.
static bool write_request(struct client_stream *stream, const Request *request) {
        struct packed packed = {0};
        bool good = pack(request, &packed) && write_packed(stream, packed);
        free(packed.data);
        return good;
}

static bool write_header(const struct import *import, struct client_stream *stream) {
        Devopsgenie__V1__ImportHeader header = DEVOPSGENIE__V1__IMPORT_HEADER__INIT;
        Google__Protobuf__Timestamp scan_time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Request request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        char request_id[UUID_TEXT_SIZE];
        uuid_v7_text(request_id);
        scan_time.seconds = time(NULL);
        header.parent = text(import->account);
        header.scanner = text("bench");
        header.scan_time = &scan_time;
        header.request_id = request_id;
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_HEADER;
        request.header = &header;
        return write_request(stream, &request);
}

static bool write_end(const struct import *import, struct client_stream *stream) {
        Devopsgenie__V1__ImportEnd end = DEVOPSGENIE__V1__IMPORT_END__INIT;
        Request request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        end.record_count = (int64_t)import->evaluations;
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_END;
        request.end = &end;
        return write_request(stream, &request) && client_stream_half_close(stream);
}

// Waits for a message and keeps it; false where it is not the part that is due.
static bool read_part(
        struct import *import, struct client_stream *stream, Devopsgenie__V1__ImportResultsResponse__PartCase part) {
        if (import->last)
                devopsgenie__v1__import_results_response__free_unpacked(import->last, NULL);
        import->last = (Response *)client_stream_read(
                stream, &devopsgenie__v1__import_results_response__descriptor, TIMEOUT_MS);
        return import->last && import->last->part_case == part;
}

static bool read_ack(struct import *import, struct client_stream *stream) {
        return read_part(import, stream, DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_ACK) &&
               !import->last->ack->n_refused;
}

static bool send_all(struct import *import, struct client_stream *stream) {
        if (!write_header(import, stream) ||
                !read_part(import, stream, DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_STARTED))
                return false;
        for (size_t i = 0; i < import->batch_count; i++)
                if (!write_packed(stream, import->batches[i]) || (i >= IN_FLIGHT && !read_ack(import, stream)))
                        return false;
        for (size_t i = 0; i < import->batch_count && i < IN_FLIGHT; i++)
                if (!read_ack(import, stream))
                        return false;
        if (!write_end(import, stream) ||
                !read_part(import, stream, DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_SUMMARY))
                return false;
        import->summary = import->last->summary;
        return true;
}

// Connects, so that the handshake is not measured.
static bool greet(struct client *client) {
        Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
        struct client_error error = {0};
        ProtobufCMessage *response = NULL;
        bool good = client_call(client, "/grpc.health.v1.Health/Check", &request.base,
                &grpc__health__v1__health_check_response__descriptor, TIMEOUT_MS, &response, &error);
        if (good)
                protobuf_c_message_free_unpacked(response, NULL);
        else
                fprintf(stderr, "bench-import: %s\n", error.message);
        client_error_clear(&error);
        return good;
}

static double seconds_of(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec / 1e6; }

static double cpu_seconds(void) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

static double now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool measure(struct import *import, struct client *client) {
        struct client_error error = {0};
        double cpu = cpu_seconds(), begin = now();
        struct client_stream *stream = client_stream_open(client, "/devopsgenie.v1.ScanService/ImportResults");
        bool good = send_all(import, stream);
        double seconds = now() - begin;
        client_stream_finish(stream, &error);
        if (!good)
                fprintf(stderr, "bench-import: the import failed: %s: %s\n", client_code_name(error.code),
                        error.message ? error.message : "");
        else
                printf("{\"evaluations\": %zu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"created\": %d, "
                       "\"unchanged\": %d, \"fail\": %d}\n",
                        import->evaluations, seconds, cpu_seconds() - cpu, import->summary->findings->created,
                        import->summary->findings->unchanged, import->summary->results->fail);
        client_error_clear(&error);
        return good;
}

static bool read_options(struct import *import, int argc, char **argv) {
        static const struct option known[] = {{"endpoint", 1, NULL, 'e'}, {"ca", 1, NULL, 'a'},
                {"account", 1, NULL, 'c'}, {"account-uid", 1, NULL, 'u'}, {"evaluations", 1, NULL, 'n'}, {0}};
        for (int found; (found = getopt_long(argc, argv, "", known, NULL)) != -1;) {
                if (found == 'e')
                        import->endpoint = optarg;
                else if (found == 'a')
                        import->ca = optarg;
                else if (found == 'c')
                        import->account = optarg;
                else if (found == 'u')
                        import->account_uid = optarg;
                else if (found == 'n')
                        import->evaluations = strtoul(optarg, NULL, 10);
                else
                        return false;
        }
        return optind == argc && import->endpoint && import->ca && import->account && import->account_uid &&
               import->evaluations >= 1 && import->evaluations <= EVALUATIONS_MAX;
}

int main(int argc, char **argv) {
        struct import import = {.evaluations = 100000};
        char *error = NULL;
        if (!read_options(&import, argc, argv)) {
                fprintf(stderr, "bench-import: usage: bench-import --endpoint HOST:PORT --ca FILE --account NAME "
                                "--account-uid UID [--evaluations N]\n");
                return 2;
        }
        struct client *client = client_new(
                &(struct client_settings){
                        .endpoint = import.endpoint, .ca_file = import.ca, .credential = getenv("GENIE_API_KEY")},
                &error);
        if (!client)
                fprintf(stderr, "bench-import: %s\n", error);
        bool good = client && make_batches(&import) && greet(client) && measure(&import, client);
        if (import.last)
                devopsgenie__v1__import_results_response__free_unpacked(import.last, NULL);
        for (size_t i = 0; import.batches && i < import.batch_count; i++)
                free(import.batches[i].data);
        free(import.batches);
        client_free(client);
        free(error);
        return good ? 0 : 1;
}
