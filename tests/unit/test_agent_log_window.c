// The window of a log: what is sent next, go-back-N, and what old acks must not do. And the arithmetic of leases.
#include "tests/unit/cmocka_all.h"
#include "tools/genie-agent/lease.h"
#include "tools/genie-agent/log_window.h"

enum { CHUNK = 10 };
#define PROBLEM(name) DEVOPSGENIE__V1__LOG_ACK__PROBLEM__##name
#define NOTHING PROBLEM(PROBLEM_UNSPECIFIED)

static int64_t seq; // of the agent's last message

// Sends what there is to send; how many chunks.
static unsigned send_all(struct log_window *log, int64_t window) {
        unsigned count = 0;
        size_t size;
        bool eof;
        while (log_window_next(log, CHUNK, window - log_window_in_flight(log), &size, &eof)) {
                assert_true(size <= CHUNK && log->sent + (int64_t)size <= log->end);
                log_window_sent(log, size, eof, ++seq);
                count++;
                assert_true(count < 1000);
        }
        return count;
}

static void test_chunks_and_window(void **) {
        struct log_window log = {.end = 95};
        assert_int_equal(send_all(&log, 35), 4); // 10, 10, 10, 5
        assert_int_equal(log.sent, 35);
        assert_true(log_window_acked(&log, 30, NOTHING, seq));
        assert_int_equal(send_all(&log, 35), 3);
        assert_int_equal(log.sent, 65);
        assert_false(log_window_acked(&log, 30, NOTHING, seq));
        assert_false(log_window_acked(&log, 10, NOTHING, seq)); // an old one
        assert_int_equal(log.durable, 30);
        assert_int_equal(send_all(&log, 0), 0);
        assert_int_equal(send_all(&log, -5), 0);
}

static void test_eof(void **) {
        struct log_window log = {.end = 20}, empty = {.closed = true};
        size_t size;
        bool eof;
        assert_int_equal(send_all(&log, 100), 2);
        assert_false(log.eof_sent || log_window_done(&log));
        log.closed = true;
        assert_true(log_window_next(&log, CHUNK, 100, &size, &eof) && size == 0 && eof);
        assert_int_equal(send_all(&log, 100), 1);
        assert_true(log.eof_sent);
        assert_false(log_window_done(&log));
        log_window_acked(&log, 20, NOTHING, seq);
        assert_true(log_window_done(&log));
        assert_int_equal(send_all(&empty, 100), 0); // a part that was never written
        assert_true(log_window_done(&empty));
        struct log_window last = {.end = 15, .closed = true};
        assert_int_equal(send_all(&last, 100), 2); // the end is said with the last bytes
        assert_true(last.eof_sent);
}

static void test_go_back(void **) {
        struct log_window log = {.end = 100};
        assert_int_equal(send_all(&log, 100), 10);
        int64_t before = seq;
        log_window_acked(&log, 30, PROBLEM(GAP), before);
        assert_int_equal(log.sent, 30);
        // The six chunks behind the gap tell of it too, each of them before the platform has seen what follows.
        assert_int_equal(send_all(&log, 100), 7);
        for (int i = 0; i < 6; i++)
                log_window_acked(&log, 30, PROBLEM(GAP), before);
        assert_int_equal(log.sent, 100);
        // What was sent again is bad again.
        log_window_acked(&log, 30, PROBLEM(CHECKSUM), before + 1);
        assert_int_equal(log.sent, 30);
        // A second problem before anything was sent again changes nothing.
        log_window_acked(&log, 30, PROBLEM(GAP), before + 1);
        assert_int_equal(log.sent, 30);
        assert_int_equal(send_all(&log, 100), 7);
        log_window_acked(&log, 100, NOTHING, seq);
        assert_int_equal(log.durable, 100);
}

static void test_a_problem_after_progress(void **) {
        struct log_window log = {.end = 50};
        send_all(&log, 100);
        log_window_acked(&log, 20, PROBLEM(WINDOW), seq); // the first two were taken
        assert_int_equal(log.durable, 20);
        assert_int_equal(log.sent, 20);
}

static void test_an_ack_from_nowhere(void **) {
        struct log_window log = {.end = 50};
        send_all(&log, 30);
        log_window_acked(&log, 1000, NOTHING, seq);
        assert_int_equal(log.durable, 50);
        assert_int_equal(log.sent, 50);
        log_window_acked(&log, -5, PROBLEM(GAP), seq);
        assert_int_equal(log.durable, 50);
        assert_int_equal(log.sent, 50);
}

static void test_a_new_stream(void **) {
        struct log_window log = {.end = 50, .closed = true};
        send_all(&log, 30);
        log_window_acked(&log, 10, PROBLEM(GAP), seq);
        send_all(&log, 30);
        log_window_restart(&log, 20);
        assert_true(log.durable == 20 && log.sent == 20 && !log.eof_sent);
        seq = 0; // the new stream's own numbers
        assert_int_equal(send_all(&log, 100), 3);
        log_window_acked(&log, 20, PROBLEM(CHECKSUM), 1);
        assert_int_equal(log.sent, 20);
        log_window_restart(&log, 10); // the platform has less than it had acknowledged: what was let go is gone
        assert_int_equal(log.sent, 20);
        log_window_restart(&log, 70); // a crash has lost what the platform has
        assert_true(log.end == 70 && log.durable == 70 && log.sent == 70);
}

static void test_give_up(void **) {
        struct log_window log = {.end = 50};
        send_all(&log, 30);
        log_window_acked(&log, 10, NOTHING, seq);
        log_window_give_up(&log);
        assert_true(log_window_done(&log));
        assert_int_equal(log.end, 10);
        assert_int_equal(send_all(&log, 100), 0);
}

static void test_lease(void **) {
        struct lease_renewals renewals = {0};
        int64_t sent_ms = -1;
        assert_int_equal(lease_stop_ms(1000, 30000), 25000);
        assert_int_equal(lease_stop_ms(1000, 1005), 1800); // never more than 80 %
        assert_false(lease_renewal_answered(&renewals, 0, &sent_ms));
        lease_renewal_sent(&renewals, 5, 100);
        lease_renewal_sent(&renewals, 9, 200);
        assert_false(lease_renewal_answered(&renewals, 7, &sent_ms));
        assert_true(lease_renewal_answered(&renewals, 9, &sent_ms));
        assert_int_equal(sent_ms, 200);
        assert_false(lease_renewal_answered(&renewals, 9, &sent_ms)); // once
        assert_true(lease_renewal_answered(&renewals, 5, &sent_ms));
        assert_int_equal(sent_ms, 100);
        for (int i = 1; i <= LEASE_RENEWALS + 1; i++)
                lease_renewal_sent(&renewals, i, i);
        assert_false(lease_renewal_answered(&renewals, 1, &sent_ms)); // too many wait
        assert_true(lease_renewal_answered(&renewals, 2, &sent_ms));
        assert_int_equal(sent_ms, 2);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_chunks_and_window),
                cmocka_unit_test(test_eof),
                cmocka_unit_test(test_go_back),
                cmocka_unit_test(test_a_problem_after_progress),
                cmocka_unit_test(test_an_ack_from_nowhere),
                cmocka_unit_test(test_a_new_stream),
                cmocka_unit_test(test_give_up),
                cmocka_unit_test(test_lease),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
