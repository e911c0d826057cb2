#include "tools/genie/import_send.h"

#include "tools/genie/memory.h"
#include "tools/genie/session.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

typedef Devopsgenie__V1__ImportResultsRequest Request;
typedef Devopsgenie__V1__ImportResultsResponse Response;
typedef Devopsgenie__V1__Scan Scan;

// A server works through a batch in moments, and through the end of a scan of a million findings in minutes.
enum { BATCH_TIMEOUT_MS = 120000, END_TIMEOUT_MS = 900000 };
enum { TRIES_MAX = 8, DELAY_FIRST_MS = 500, DELAY_MAX_MS = 30000 };

enum outcome {
        DONE,
        LOST, // the connection, or what the server had: worth another try
        FAILED,
};

static bool write_message(struct client_stream *stream, const Request *request) {
        size_t size = protobuf_c_message_get_packed_size(&request->base);
        uint8_t *packed = must(malloc(size));

        protobuf_c_message_pack(&request->base, packed);
        bool written = client_stream_write(stream, packed, size, BATCH_TIMEOUT_MS);
        free(packed);
        return written;
}

static Response *read_message(struct client_stream *stream, int timeout_ms) {
        return (Response *)client_stream_read(
                stream, &devopsgenie__v1__import_results_response__descriptor, timeout_ms);
}

static bool write_header(const struct import *import, struct client_stream *stream) {
        const struct scan_head *head = &import->feed.head;
        Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Devopsgenie__V1__ImportHeader header = DEVOPSGENIE__V1__IMPORT_HEADER__INIT;
        Request request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;

        time.seconds = head->time_us / 1000000;
        time.nanos = (int32_t)(head->time_us % 1000000 * 1000);
        header.parent = unconst(import->account);
        header.scanner = unconst(head->scanner);
        header.scanner_version = unconst(head->scanner_version);
        header.scan_time = &time;
        header.request_id = unconst(import->request_id);
        Devopsgenie__V1__Coverage coverage = DEVOPSGENIE__V1__COVERAGE__INIT;
        if (import->coverage) {
                coverage = *import->coverage;
                header.coverage = &coverage;
        }
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_HEADER;
        request.header = &header;
        return write_message(stream, &request);
}

// Sends the header and goes to the record that the server wants next.
static bool begin(struct import *import, struct client_stream *stream, enum outcome *ret_outcome) {
        Response *response = write_header(import, stream) ? read_message(stream, BATCH_TIMEOUT_MS) : NULL;
        bool began = false;

        *ret_outcome = LOST;
        if (response && response->part_case == DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_STARTED) {
                int64_t next = response->started->next_record;
                snprintf(import->scan, sizeof import->scan, "%s", response->started->scan);
                if (next > 1) {
                        report_clear(&import->report);
                        print_failure("going on at record %" PRId64 " of %s", next, import->scan);
                }
                import->end_sent = false;
                import->confirmed = next;
                began = next >= 1 && feed_resume(&import->feed, next);
                if (!began)
                        *ret_outcome = FAILED;
        }
        devopsgenie__v1__import_results_response__free_unpacked(response, NULL);
        return began;
}

static void take_ack(struct import *import, const Devopsgenie__V1__ImportAck *ack) {
        struct report *report = &import->report;
        struct feed *feed = &import->feed;

        for (size_t i = 0; i < ack->n_refused && ack->next_record > report->server_seen; i++) {
                const Devopsgenie__V1__RecordError *error = ack->refused[i];
                report_server_refusal(report, feed->base + error->record, feed_offset(feed, error->record),
                        error->reason, error->message);
        }
        if (ack->next_record > report->server_seen)
                report->server_seen = ack->next_record;
        if (ack->next_record > import->confirmed)
                import->confirmed = ack->next_record;
        feed_acknowledge(feed, ack->next_record);
}

static bool read_ack(struct import *import, struct client_stream *stream) {
        Response *response = read_message(stream, BATCH_TIMEOUT_MS);
        bool is_ack = response && response->part_case == DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_ACK;

        if (is_ack)
                take_ack(import, response->ack);
        devopsgenie__v1__import_results_response__free_unpacked(response, NULL);
        return is_ack;
}

// Reads and sends batches, as many at once as the window holds, until the server has all of them.
static bool pump(struct import *import, struct client_stream *stream) {
        struct feed *feed = &import->feed;

        for (;;) {
                struct batch *batch = feed_unsent(feed);
                if (batch) {
                        size_t size;
                        const uint8_t *data = batch_finish(batch, &size);
                        if (!client_stream_write(stream, data, size, BATCH_TIMEOUT_MS))
                                return false;
                        batch->sent = true;
                } else if (!feed_fill(feed)) {
                        if (feed->n_window == 0)
                                return true;
                        if (!read_ack(import, stream))
                                return false;
                }
        }
}

static Scan *finish(struct import *import, struct client_stream *stream) {
        Devopsgenie__V1__ImportEnd end = DEVOPSGENIE__V1__IMPORT_END__INIT;
        Request request = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__INIT;
        Scan *scan = NULL;

        end.record_count = import->feed.next - 1;
        end.interrupted = import->feed.cut != NULL;
        request.part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_REQUEST__PART_END;
        request.end = &end;
        import->end_sent = true;
        if (!write_message(stream, &request))
                return NULL;
        Response *response = read_message(stream, END_TIMEOUT_MS);
        if (response && response->part_case == DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART_SUMMARY) {
                scan = response->summary;
                response->part_case = DEVOPSGENIE__V1__IMPORT_RESULTS_RESPONSE__PART__NOT_SET;
                response->summary = NULL;
        }
        devopsgenie__v1__import_results_response__free_unpacked(response, NULL);
        return scan;
}

// The end was sent, but no summary came: asks whether the scan completed.
static Scan *look_up(struct import *import) {
        Devopsgenie__V1__GetScanRequest request = DEVOPSGENIE__V1__GET_SCAN_REQUEST__INIT;
        ProtobufCMessage *message = NULL;
        struct client_error error = {0};

        request.name = import->scan;
        if (!client_call(import->client, "/devopsgenie.v1.ScanService/GetScan", &request.base,
                    &devopsgenie__v1__scan__descriptor, CALL_TIMEOUT_MS, &message, &error))
                message = NULL;
        client_error_clear(&error);
        Scan *scan = (Scan *)message;
        if (scan && scan->state == DEVOPSGENIE__V1__SCAN__STATE__COMPLETED)
                return scan;
        protobuf_c_message_free_unpacked(message, NULL);
        return NULL;
}

static bool worth_another_try(const struct client_error *error) {
        return error->code == CLIENT_UNAVAILABLE || error->code == CLIENT_DEADLINE_EXCEEDED ||
               (error->code == CLIENT_RESOURCE_EXHAUSTED && error->retry_delay_ms > 0) ||
               (error->code == CLIENT_ABORTED && strcmp(error->reason, "IMPORT_INCOMPLETE") == 0);
}

// One connection's worth. With LOST and with FAILED *ret_error says why, unless that was printed (code OK).
static enum outcome attempt(struct import *import, Scan **ret_scan, struct client_error *ret_error) {
        enum outcome outcome;
        Scan *scan = import->end_sent ? look_up(import) : NULL;

        if (scan) {
                *ret_scan = scan;
                return DONE;
        }
        struct client_stream *stream = client_stream_open(import->client, "/devopsgenie.v1.ScanService/ImportResults");
        bool began = begin(import, stream, &outcome);
        bool sent = began && pump(import, stream);
        bool read = !feed_failed(&import->feed);
        if (sent && read)
                scan = finish(import, stream);
        if (scan && !client_stream_half_close(stream))
                outcome = LOST; // it has the summary all the same
        client_stream_finish(stream, ret_error);
        if (scan) {
                *ret_scan = scan;
                return DONE;
        }
        if (!read || outcome == FAILED) {
                ret_error->code = CLIENT_OK;
                return FAILED;
        }
        if (ret_error->code == CLIENT_OK)
                client_error_decode(ret_error, CLIENT_INTERNAL, "the server ended the import early", NULL, 0);
        return worth_another_try(ret_error) ? LOST : FAILED;
}

// Half to all of a delay that doubles, or what the server asks for.
static int delay_ms(unsigned tries, const struct client_error *error) {
        int most = DELAY_FIRST_MS << (tries < 6 ? tries : 6);
        unsigned random = 0;

        if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
                random = 0;
        most = most < DELAY_MAX_MS ? most : DELAY_MAX_MS;
        int delay = most / 2 + (int)(random % (unsigned)(most / 2));
        if (error->retry_delay_ms > delay)
                delay = error->retry_delay_ms < DELAY_MAX_MS ? (int)error->retry_delay_ms : DELAY_MAX_MS;
        return delay;
}

static void wait_to_try(struct import *import, unsigned tries, const struct client_error *error) {
        int ms = delay_ms(tries, error);
        struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

        report_clear(&import->report);
        print_call_error("the import was interrupted", error);
        print_failure("trying again in %.1f s (%u of %d)", ms / 1000.0, tries + 1, TRIES_MAX);
        while (nanosleep(&rest, &rest) < 0)
                ;
}

Scan *import_send(struct import *import) {
        import->end_sent = false;
        import->confirmed = 0;
        for (unsigned tries = 0;; tries++) {
                struct client_error error = {0};
                Scan *scan = NULL;
                int64_t before = import->confirmed;
                enum outcome outcome = attempt(import, &scan, &error);
                if (import->confirmed > before && before > 0)
                        tries = 0; // it goes on, if slowly
                bool again = outcome == LOST && tries < TRIES_MAX;
                if (again) {
                        wait_to_try(import, tries, &error);
                } else if (outcome != DONE && error.code != CLIENT_OK) {
                        report_clear(&import->report);
                        print_call_error("the import failed", &error);
                }
                client_error_clear(&error);
                if (!again)
                        return scan;
        }
}
