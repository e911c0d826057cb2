// What is gathered arrives in order, once, whole, and the sender sees what it would see without it.
#include "server/rpc/coalesce.h"
#include "tests/integration/sockets.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

static void gather_next(struct connection *connection, size_t size) {
        coalesce_begin();
        assert_int_equal(send_next(connection, size), size);
}

// Sends until the kernel's buffer is full and bytes wait behind it.
static void fill(struct connection *connection) {
        for (ssize_t sent = 1; sent > 0;) {
                coalesce_begin();
                sent = send_next(connection, 5000);
                if (sent < 0)
                        assert_int_equal(errno, EAGAIN);
                coalesce_end();
        }
}

static unsigned segments(int descriptor) {
        struct tcp_info info;
        assert_int_equal(getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &(socklen_t){sizeof info}), 0);
        return info.tcpi_data_segs_out;
}

static void test_gathered_and_sent_once(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                coalesce_begin();
                for (unsigned i = 0; i < 50; i++)
                        assert_int_equal(send_next(&connection, i), i);
                coalesce_begin(); // means nothing while it holds
                assert_false(is_readable(connection.reader, 0));
                coalesce_end();
                receive_all(&connection);
                assert_int_equal(connection.received, 49 * 50 / 2);
                if (kind == SOCKET_TCP)
                        assert_int_equal(segments(connection.writer), 1);
                coalesce_end(); // nothing waits
                assert_false(is_readable(connection.reader, 0));
                connection_drop(&connection);
        }
}

static void test_outside_nothing_is_gathered(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                for (unsigned round = 0; round < 2; round++) {
                        for (unsigned i = 0; i < 3; i++) {
                                assert_int_equal(send_next(&connection, 10), 10);
                                assert_true(is_readable(connection.reader, PATIENCE_MS));
                                receive_all(&connection);
                        }
                        gather_next(&connection, 1); // the second round is that of a socket that is known
                        coalesce_end();
                        receive_all(&connection);
                }
                connection_drop(&connection);
        }
}

static void test_full_socket(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                for (unsigned round = 0; round < 3; round++) {
                        fill(&connection);
                        for (unsigned gathering = 0; gathering < 2; gathering++) {
                                if (gathering)
                                        coalesce_begin();
                                assert_int_equal(send_next(&connection, 1), -1);
                                assert_int_equal(errno, EAGAIN);
                                coalesce_end();
                        }
                        receive_all(&connection); // nobody sends any more: the rest comes by itself
                }
                gather_next(&connection, 100);
                coalesce_end();
                receive_all(&connection);
                connection_drop(&connection);
        }
}

static void test_bound_per_socket(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                gather_next(&connection, COALESCE_BYTES);
                assert_false(is_readable(connection.reader, 0));
                assert_int_equal(send_next(&connection, 0), 0);
                ssize_t sent = send_next(&connection, 1); // goes behind, or meets the full kernel
                assert_true(sent == 1 || (sent == -1 && errno == EAGAIN));
                assert_true(is_readable(connection.reader, PATIENCE_MS));
                coalesce_end();
                receive_all(&connection);
                connection_drop(&connection);
        }
}

static void test_large_messages(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                for (unsigned round = 0; round < 10; round++) {
                        gather_next(&connection, 1000);
                        ssize_t sent = send_next(&connection, COALESCE_BYTES + 1);
                        assert_true(sent > 0 || errno == EAGAIN);
                        sent = send_next(&connection, 1000);
                        assert_true(sent > 0 || errno == EAGAIN);
                        coalesce_end();
                        receive_all(&connection);
                }
                connection_drop(&connection);
        }
}

static void *send_ten(void *connection) { return (void *)(intptr_t)send_next(connection, 10); }

static void *gather_ten(void *connection) {
        coalesce_begin();
        ssize_t sent = send_next(connection, 10);
        bool came = is_readable(((struct connection *)connection)->reader, PATIENCE_MS);
        coalesce_end();
        return (void *)(intptr_t)(came ? sent : -2);
}

static intptr_t in_thread(void *(*run)(void *), struct connection *connection) {
        pthread_t thread;
        void *result;
        assert_int_equal(pthread_create(&thread, NULL, run, connection), 0);
        assert_int_equal(pthread_join(thread, &result), 0);
        return (intptr_t)result;
}

static void test_other_threads_do_not_overtake(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                gather_next(&connection, 10);
                assert_int_equal(in_thread(send_ten, &connection), 10);
                receive_all(&connection); // before the turn's end
                assert_int_equal(send_next(&connection, 10), 10);
                assert_int_equal(in_thread(gather_ten, &connection), 10); // a turn of its own: not in two lists
                receive_all(&connection);
                coalesce_end();
                fill(&connection);
                assert_int_equal(in_thread(send_ten, &connection), -1);
                receive_all(&connection);
                assert_int_equal(in_thread(send_ten, &connection), 10);
                receive_all(&connection);
                connection_drop(&connection);
        }
}

static void test_close_sends_first(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                gather_next(&connection, 20000);
                assert_int_equal(close(connection.writer), 0);
                receive_end(&connection);
                assert_int_equal(connection.received, 20000);
                coalesce_end();
                connection.writer = -1;
                connection_drop(&connection);
        }
}

static void test_shutdown_sends_first(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                gather_next(&connection, 20000);
                assert_int_equal(shutdown(connection.writer, SHUT_WR), 0);
                receive_end(&connection);
                assert_int_equal(connection.received, 20000);
                send_next(&connection, 1);
                coalesce_end();
                assert_int_equal(send_next(&connection, 1), -1);
                assert_int_equal(errno, EPIPE);
                connection_drop(&connection);
        }
}

static void reset(struct connection *connection) {
        setsockopt(connection->reader, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
        assert_int_equal(close(connection->reader), 0);
        connection->reader = -1;
}

static void assert_reset(struct connection *connection) {
        assert_int_equal(send_next(connection, 1), -1);
        assert_true(errno == ECONNRESET || errno == EPIPE);
}

static void test_reset_peer(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                reset(&connection);
                gather_next(&connection, 10); // as the kernel: what is taken may still be lost
                coalesce_end();
                assert_reset(&connection);
                coalesce_begin();
                assert_reset(&connection);
                coalesce_end();
                connection_drop(&connection);
        }
}

static void test_reset_of_a_full_socket(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection connection = connection_make(kind);
                fill(&connection);
                reset(&connection);
                assert_reset(&connection);
                connection_drop(&connection);
        }
}

// A new connection on the descriptor that another one had.
static struct connection reuse(enum socket_kind kind, int descriptor) {
        struct connection connection = connection_make(kind);
        if (connection.writer != descriptor) {
                assert_int_equal(connection.reader, descriptor); // the other end got it
                connection.reader = connection.writer;
                connection.writer = descriptor;
        }
        return connection;
}

static void test_descriptor_is_used_again(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection old = connection_make(kind);
                int descriptor = old.writer;
                gather_next(&old, 100);
                close(descriptor);
                struct connection fresh = reuse(kind, descriptor);
                assert_int_equal(send_next(&fresh, 200), 200);
                coalesce_end();
                receive_all(&fresh);
                receive_end(&old);
                assert_int_equal(old.received, old.sent);

                fill(&fresh); // now with bytes that wait, and an event on its way
                close(descriptor);
                struct connection last = reuse(kind, descriptor);
                fill(&last);
                receive_end(&fresh);
                assert_in_range(fresh.sent - fresh.received, 0, COALESCE_BYTES);
                receive_all(&last);
                old.writer = fresh.writer = -1;
                connection_drop(&old);
                connection_drop(&fresh);
                connection_drop(&last);
        }
}

// An error of the one before is not the next one's.
static void test_error_ends_with_the_descriptor(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection old = connection_make(kind);
                int descriptor = old.writer;
                reset(&old);
                gather_next(&old, 10);
                coalesce_end();
                close(descriptor);
                struct connection fresh = reuse(kind, descriptor);
                gather_next(&fresh, 10);
                coalesce_end();
                receive_all(&fresh);
                connection_drop(&fresh);
        }
}

// The file lives on with its duplicate; the late sender must have let go of it.
static void test_duplicate_outlives_close(void **) {
        for (enum socket_kind kind = SOCKET_UNIX; kind < SOCKET_KINDS; kind++) {
                struct connection old = connection_make(kind);
                int descriptor = old.writer;
                fill(&old);
                int copy = dup(descriptor);
                close(descriptor);
                struct connection fresh = reuse(kind, descriptor);
                gather_next(&fresh, 10);
                while (is_readable(old.reader, 0))
                        assert_true(receive_some(&old, 65536) > 0); // makes the old file writable
                coalesce_end();
                receive_all(&fresh);
                assert_in_range(old.sent - old.received, 0, COALESCE_BYTES);
                close(copy);
                old.writer = -1;
                connection_drop(&old);
                connection_drop(&fresh);
        }
}

static void test_control_messages(void **) {
        struct connection connection = connection_make(SOCKET_UNIX);
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = {0};
        struct iovec part = {(char[]){'x'}, 1};
        struct msghdr message = {.msg_iov = &part,
                .msg_iovlen = 1,
                .msg_control = control.bytes,
                .msg_controllen = sizeof control.bytes};
        struct cmsghdr *header = &control.align;
        *header = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(header), &connection.reader, sizeof(int));

        gather_next(&connection, 10);
        assert_int_equal(sendmsg(connection.writer, &message, MSG_NOSIGNAL), 1);
        receive_some(&connection, 10);
        assert_int_equal(connection.received, 10);
        memset(&control, 0, sizeof control);
        message.msg_controllen = sizeof control.bytes;
        assert_int_equal(recvmsg(connection.reader, &message, 0), 1);
        assert_non_null(CMSG_FIRSTHDR(&message));
        int passed = -1;
        const struct cmsghdr *arrived = CMSG_FIRSTHDR(&message);
        if (arrived)
                memcpy(&passed, CMSG_DATA(arrived), sizeof passed);
        assert_int_equal(close(passed), 0);
        coalesce_end();
        receive_all(&connection);
        connection_drop(&connection);
}

// Datagrams stay apart, a socket that blocks blocks, and what is no socket has no part in it.
static void test_other_descriptors(void **) {
        int ends[2];
        char bytes[100];
        struct iovec part = {(char[]){"four"}, 4};
        const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        coalesce_begin();
        for (unsigned i = 0; i < 2; i++) {
                int type = i ? SOCK_STREAM : SOCK_DGRAM | SOCK_NONBLOCK;
                assert_int_equal(socketpair(AF_UNIX, type, 0, ends), 0);
                assert_int_equal(sendmsg(ends[0], &message, MSG_NOSIGNAL), 4);
                assert_int_equal(sendmsg(ends[0], &message, MSG_NOSIGNAL), 4);
                assert_int_equal(recv(ends[1], bytes, sizeof bytes, MSG_DONTWAIT), i ? 8 : 4);
                close(ends[0]);
                close(ends[1]);
        }
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(sendmsg(ends[1], &message, MSG_NOSIGNAL), -1);
        assert_int_equal(errno, ENOTSOCK);
        assert_int_equal(shutdown(ends[1], SHUT_WR), -1);
        assert_int_equal(errno, ENOTSOCK);
        close(ends[0]);
        close(ends[1]);
        const int closed[] = {-1, 60000, 1000000};
        for (unsigned i = 0; i < sizeof closed / sizeof *closed; i++) {
                assert_int_equal(sendmsg(closed[i], &message, MSG_NOSIGNAL), -1);
                assert_int_equal(errno, EBADF);
                assert_int_equal(shutdown(closed[i], SHUT_WR), -1);
                assert_int_equal(errno, EBADF);
                assert_int_equal(close(closed[i]), -1);
                assert_int_equal(errno, EBADF);
        }
        coalesce_end();
}

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t allocated(void) {
        return __sanitizer_get_current_allocated_bytes ? __sanitizer_get_current_allocated_bytes()
                                                       : mallinfo2().uordblks + mallinfo2().hblkhd;
}

// More sockets than one turn remembers; none holds memory after it.
static void test_many_sockets(void **) {
        enum { MANY = 400 };
        static struct connection connections[MANY];
        for (unsigned i = 0; i < MANY; i++)
                connections[i] = connection_make(SOCKET_UNIX);
        size_t before = allocated(), most;
        coalesce_begin();
        for (unsigned i = 0; i < 3 * MANY; i++)
                assert_int_equal(send_next(&connections[i % MANY], 10), 10);
        most = allocated();
        coalesce_end();
        assert_in_range(most, before + COALESCE_BYTES, before + MANY * (COALESCE_BYTES + 200UL));
        assert_in_range(allocated(), 0, before + COALESCE_BYTES / 2);
        for (unsigned i = 0; i < MANY; i++) {
                receive_all(&connections[i]);
                connection_drop(&connections[i]);
        }
}

static void test_stop(void **) {
        struct connection connection = connection_make(SOCKET_UNIX);
        fill(&connection);
        coalesce_stop();
        receive_all(&connection); // what waits is still sent
        gather_next(&connection, 10);
        receive_all(&connection);
        coalesce_end();
        connection_drop(&connection);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_gathered_and_sent_once), cmocka_unit_test(test_outside_nothing_is_gathered),
                cmocka_unit_test(test_full_socket), cmocka_unit_test(test_bound_per_socket),
                cmocka_unit_test(test_large_messages), cmocka_unit_test(test_other_threads_do_not_overtake),
                cmocka_unit_test(test_close_sends_first), cmocka_unit_test(test_shutdown_sends_first),
                cmocka_unit_test(test_reset_peer), cmocka_unit_test(test_reset_of_a_full_socket),
                cmocka_unit_test(test_descriptor_is_used_again), cmocka_unit_test(test_error_ends_with_the_descriptor),
                cmocka_unit_test(test_duplicate_outlives_close), cmocka_unit_test(test_control_messages),
                cmocka_unit_test(test_other_descriptors), cmocka_unit_test(test_many_sockets),
                cmocka_unit_test(test_stop), // last: it cannot be undone
        };
        if (!coalesce_start())
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
