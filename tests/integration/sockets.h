// Connected sockets, and streams of bytes that show at every position what belongs there.
#pragma once

#include "tests/unit/cmocka_all.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h> // knows more of tcp_info than the C library
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum socket_kind { SOCKET_UNIX, SOCKET_TCP, SOCKET_KINDS };
enum { PATIENCE_MS = 20000 }; // until a test that waits for bytes fails

// `sent` counts what sendmsg took, `received` what has come and was right.
struct connection {
        int writer, reader; // -1: closed
        unsigned id;
        size_t sent, received;
};

static inline unsigned char byte_at(unsigned id, size_t position) {
        return (unsigned char)((position * 31 + id * 131) ^ (position >> 8));
}

static inline void make_nonblocking(int descriptor) {
        assert_int_equal(fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK), 0);
}

static inline void connect_tcp(int ends[2]) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof address;
        // Out of the way of the lowest descriptors, which tests want to see used again.
        int low = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), listener = fcntl(low, F_DUPFD_CLOEXEC, 900);
        close(low);
        ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
        assert_int_equal(connect(ends[0], (struct sockaddr *)&address, sizeof address), 0);
        ends[1] = accept(listener, NULL, NULL);
        assert_true(ends[1] >= 0);
        close(listener);
        assert_int_equal(setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
}

static inline struct connection connection_make(enum socket_kind kind) {
        static unsigned id;
        int ends[2];
        if (kind == SOCKET_TCP)
                connect_tcp(ends);
        else
                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        // Small buffers, so that they fill soon.
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &(int){32768}, sizeof(int));
        setsockopt(ends[1], SOL_SOCKET, SO_RCVBUF, &(int){32768}, sizeof(int));
        make_nonblocking(ends[0]);
        make_nonblocking(ends[1]);
        id++;
        return (struct connection){.writer = ends[0], .reader = ends[1], .id = id};
}

static inline void connection_drop(struct connection *connection) {
        if (connection->writer >= 0)
                close(connection->writer);
        if (connection->reader >= 0)
                close(connection->reader);
        connection->writer = connection->reader = -1;
}

// Sends the next `size` bytes of the stream as one message of three parts; gives what sendmsg gave.
static inline ssize_t send_next(struct connection *connection, size_t size) {
        static _Thread_local unsigned char bytes[200000];
        assert_true(size <= sizeof bytes);
        for (size_t i = 0; i < size; i++)
                bytes[i] = byte_at(connection->id, connection->sent + i);
        size_t first = size / 3, second = size / 2;
        struct iovec parts[] = {
                {bytes, first}, {bytes + first, second}, {bytes + first + second, size - first - second}};
        ssize_t sent = sendmsg(
                connection->writer, &(struct msghdr){.msg_iov = parts, .msg_iovlen = 3}, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
                connection->sent += (size_t)sent;
        return sent;
}

// Reads at most `size` bytes of what is there and checks them: 0 at the end of the stream, -1 where nothing waits.
static inline ssize_t receive_some(struct connection *connection, size_t size) {
        static _Thread_local unsigned char bytes[200000];
        ssize_t got = recv(connection->reader, bytes, size < sizeof bytes ? size : sizeof bytes, MSG_DONTWAIT);
        for (ssize_t i = 0; i < got; i++)
                if (bytes[i] != byte_at(connection->id, connection->received + (size_t)i))
                        fail_msg("stream %u is wrong at byte %zu", connection->id, connection->received + (size_t)i);
        if (got > 0)
                connection->received += (size_t)got;
        return got;
}

static inline bool is_readable(int descriptor, int milliseconds) {
        return poll(&(struct pollfd){.fd = descriptor, .events = POLLIN}, 1, milliseconds) == 1;
}

// Waits until all that was sent has come, and checks that no more does.
static inline void receive_all(struct connection *connection) {
        while (connection->received < connection->sent) {
                if (!is_readable(connection->reader, PATIENCE_MS) || receive_some(connection, 65536) <= 0)
                        fail_msg("%zu of %zu bytes have come", connection->received, connection->sent);
        }
        assert_false(is_readable(connection->reader, 0));
}

static inline void receive_end(struct connection *connection) {
        while (is_readable(connection->reader, PATIENCE_MS))
                if (receive_some(connection, 65536) <= 0)
                        return;
        fail_msg("the stream does not end after %zu of %zu bytes", connection->received, connection->sent);
}
