#include "tests/bench/connection.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// Windows wide enough that the peer never waits for us, nor we answer every reply with an update.
enum { STREAM_WINDOW = 4 << 20, CONNECTION_WINDOW = 64 << 20, RESPONSE_MAX = 8 << 20, READ_BUFFER = 65536 };

struct connection {
        int descriptor;
        bool connected, ready; // TCP stands, TLS stands
        bool refused;
        char problem[200];
        SSL *ssl;
        nghttp2_session *session;
        void (*ended)(struct call *call);
        char authority[128];
        unsigned char *out; // what TLS has not taken yet, from out_sent on
        size_t out_size, out_sent, out_capacity;
        bool wants_write;
};

static bool fail(struct connection *connection, const char *what, const char *why) {
        snprintf(connection->problem, sizeof connection->problem, "%s: %s", what, why);
        return false;
}

static const char *tls_error(void) {
        unsigned long error = ERR_get_error();
        return error ? ERR_reason_error_string(error) : "the connection was closed";
}

SSL_CTX *connection_tls(const char *ca_file) {
        static const unsigned char h2[] = {2, 'h', '2'};
        SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
        if (!tls || SSL_CTX_load_verify_file(tls, ca_file) != 1 || SSL_CTX_set_alpn_protos(tls, h2, sizeof h2)) {
                fprintf(stderr, "%s: %s\n", ca_file, tls_error());
                SSL_CTX_free(tls);
                return NULL;
        }
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_mode(
                tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_read_ahead(tls, 1); // one read for many records
        SSL_CTX_set_default_read_buffer_len(tls, READ_BUFFER);
        return tls;
}

static bool reserve(unsigned char **buffer, size_t *capacity, size_t size) {
        if (size <= *capacity)
                return true;
        size_t grown = *capacity * 2 > size ? *capacity * 2 : size;
        unsigned char *moved = realloc(*buffer, grown);
        if (!moved)
                return false;
        *buffer = moved;
        *capacity = grown;
        return true;
}

// nghttp2's callbacks. Their types are given: what a callback does not write is const in none of them.

static ssize_t read_request(nghttp2_session *session, int32_t stream, uint8_t *to, size_t size, uint32_t *flags,
        nghttp2_data_source *source, void *user) {
        (void)session, (void)stream, (void)user;
        struct call *call = source->ptr;
        size_t left = call->request_size - call->request_sent, count = left < size ? left : size;
        memcpy(to, call->request + call->request_sent, count);
        call->request_sent += count;
        if (count == left && !call->message)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        call->waits = call->message && !count;
        return call->waits ? NGHTTP2_ERR_DEFERRED : (ssize_t)count;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
        const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
        (void)flags, (void)user;
        struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (!call || name_size < 11 || memcmp(name, "grpc-", 5) != 0)
                return 0;
        if (name_size == 11 && !memcmp(name, "grpc-status", 11))
                call->status = (int)strtol((const char *)value, NULL, 10); // nghttp2 puts a NUL behind it
        else if (name_size == 12 && !memcmp(name, "grpc-message", 12))
                snprintf(call->status_message, sizeof call->status_message, "%.*s", (int)value_size,
                        (const char *)value);
        return 0;
}

static size_t message_size(const unsigned char *prefix) {
        return (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
}

// The whole messages of a stream's response are taken out.
static void take_messages(struct call *call) {
        size_t at = 0;
        while (call->response_size - at >= CALL_PREFIX) {
                size_t size = message_size(call->response + at);
                if (call->response_size - at - CALL_PREFIX < size)
                        break;
                call->message(call, call->response + at + CALL_PREFIX, size);
                at += CALL_PREFIX + size;
        }
        call->response_size -= at;
        memmove(call->response, call->response + at, call->response_size);
}

static int on_data(
        nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size, void *user) {
        (void)flags, (void)user;
        struct call *call = nghttp2_session_get_stream_user_data(session, stream);
        if (!call)
                return 0;
        size_t total = call->response_size + size;
        if (total > RESPONSE_MAX || !reserve(&call->response, &call->response_capacity, total))
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        memcpy(call->response + call->response_size, data, size);
        call->response_size = total;
        if (call->message)
                take_messages(call);
        return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user) {
        struct connection *connection = user;
        struct call *call = nghttp2_session_get_stream_user_data(session, stream);
        if (call && error && call->status < 0)
                snprintf(call->status_message, sizeof call->status_message, "stream reset: %s",
                        nghttp2_http2_strerror(error));
        if (call)
                connection->ended(call);
        return 0;
}

static bool start_session(struct connection *connection) {
        nghttp2_session_callbacks *callbacks = NULL;
        if (nghttp2_session_callbacks_new(&callbacks))
                return false;
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        int status = nghttp2_session_client_new(&connection->session, callbacks, connection);
        nghttp2_session_callbacks_del(callbacks);
        const nghttp2_settings_entry settings[] = {
                {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        };
        return !status && !nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2) &&
               !nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
}

// A socket that connects to the first address of HOST:PORT.
static bool dial(struct connection *connection, const char *host, const char *port, unsigned source) {
        struct addrinfo *found = NULL;
        int error = getaddrinfo(host, port, &(struct addrinfo){.ai_socktype = SOCK_STREAM}, &found);
        if (error)
                return fail(connection, host, gai_strerror(error));
        int descriptor = socket(
                found->ai_family, found->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, found->ai_protocol);
        connection->descriptor = descriptor;
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl((127u << 24) + source)};
        bool good = descriptor >= 0 &&
                    (!source || (!setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int)) &&
                                        !bind(descriptor, (struct sockaddr *)&from, sizeof from))) &&
                    (!connect(descriptor, found->ai_addr, found->ai_addrlen) || errno == EINPROGRESS) &&
                    !setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        connection->refused = !good && errno == ECONNREFUSED;
        freeaddrinfo(found);
        return good || fail(connection, host, strerror(errno));
}

// The certificate names the host, or its address.
static bool prepare_tls(struct connection *connection, SSL_CTX *tls, const char *host) {
        connection->ssl = SSL_new(tls);
        if (!connection->ssl || !SSL_set_fd(connection->ssl, connection->descriptor))
                return fail(connection, host, tls_error());
        X509_VERIFY_PARAM *verify = SSL_get0_param(connection->ssl);
        if (!X509_VERIFY_PARAM_set1_ip_asc(verify, host) &&
                (!SSL_set1_host(connection->ssl, host) || !SSL_set_tlsext_host_name(connection->ssl, host)))
                return fail(connection, host, tls_error());
        SSL_set_connect_state(connection->ssl);
        return start_session(connection) || fail(connection, host, "out of memory");
}

struct connection *connection_begin(
        SSL_CTX *tls, const char *endpoint, unsigned source, void (*ended)(struct call *call)) {
        struct connection *connection = calloc(1, sizeof *connection);
        const char *colon = strrchr(endpoint, ':');
        char host[128];
        if (!connection || !colon || (size_t)(colon - endpoint) >= sizeof host) {
                free(connection);
                return NULL;
        }
        snprintf(host, sizeof host, "%.*s", (int)(colon - endpoint), endpoint);
        snprintf(connection->authority, sizeof connection->authority, "%s", endpoint);
        connection->ended = ended;
        connection->descriptor = -1;
        connection->wants_write = true;
        if (dial(connection, host, colon + 1, source))
                (void)prepare_tls(connection, tls, host); // the first turn tells
        return connection;
}

const char *connection_problem(const struct connection *connection) {
        return *connection->problem ? connection->problem : NULL;
}

bool connection_was_refused(const struct connection *connection) { return connection->refused; }

struct connection *connection_open(SSL_CTX *tls, const char *endpoint, void (*ended)(struct call *call)) {
        struct connection *connection = connection_begin(tls, endpoint, 0, ended);
        while (connection && !connection->ready && connection_turn(connection))
                if (!connection->ready)
                        poll(&(struct pollfd){connection->descriptor,
                                     (short)(POLLIN | (connection->wants_write ? POLLOUT : 0)), 0},
                                1, -1);
        if (connection && connection->ready)
                return connection;
        fprintf(stderr, "bench: %s: %s\n", endpoint, connection ? connection->problem : "is not HOST:PORT");
        connection_close(connection);
        return NULL;
}

void connection_close(struct connection *connection) {
        if (!connection)
                return;
        nghttp2_session_del(connection->session);
        SSL_free(connection->ssl);
        if (connection->descriptor >= 0)
                close(connection->descriptor);
        free(connection->out);
        free(connection);
}

int connection_descriptor(const struct connection *connection) { return connection->descriptor; }

uint32_t connection_events(const struct connection *connection) {
        return EPOLLIN | (connection->wants_write ? EPOLLOUT : 0u);
}

// nghttp2's names and values are not const; it writes to neither.
static uint8_t *unconst(const char *text) {
        union {
                const char *in;
                uint8_t *out;
        } pointer = {.in = text};
        return pointer.out;
}

static nghttp2_nv header(const char *name, const char *value, uint8_t flags) {
        return (nghttp2_nv){
                .name = unconst(name),
                .value = unconst(value),
                .namelen = strlen(name),
                .valuelen = strlen(value),
                .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE | flags,
        };
}

bool connection_submit(struct connection *connection, struct call *call, const char *method, const char *api_key) {
        const nghttp2_nv headers[] = {
                header(":method", "POST", 0),
                header(":scheme", "https", 0),
                header(":path", method, 0),
                header(":authority", connection->authority, 0),
                header("te", "trailers", 0),
                header("content-type", "application/grpc", 0),
                header("x-api-key", api_key ? api_key : "", NGHTTP2_NV_FLAG_NO_INDEX),
        };
        call->request_sent = call->response_size = 0;
        call->waits = false;
        call->status = -1;
        *call->status_message = '\0';
        const nghttp2_data_provider provider = {.source = {.ptr = call}, .read_callback = read_request};
        size_t count = sizeof headers / sizeof *headers - (api_key ? 0 : 1);
        int32_t stream = nghttp2_submit_request(connection->session, NULL, headers, count, &provider, call);
        call->stream = stream;
        return stream > 0 || fail(connection, "request", nghttp2_strerror(stream));
}

bool connection_send(struct connection *connection, struct call *call, const uint8_t *message, size_t size) {
        if (call->request_sent >= call->request_size - call->request_sent) { // what is sent goes
                call->request_size -= call->request_sent;
                memmove(call->request, call->request + call->request_sent, call->request_size);
                call->request_sent = 0;
        }
        if (!reserve(&call->request, &call->request_capacity, call->request_size + CALL_PREFIX + size))
                return fail(connection, "sending", "out of memory");
        unsigned char *at = call->request + call->request_size;
        at[0] = 0; // not compressed
        for (int i = 0; i < 4; i++)
                at[1 + i] = (unsigned char)(size >> (24 - 8 * i));
        memcpy(at + CALL_PREFIX, message, size);
        call->request_size += CALL_PREFIX + size;
        if (call->waits)
                nghttp2_session_resume_data(connection->session, call->stream);
        call->waits = false;
        return true;
}

void call_drop(struct call *call) {
        free(call->response);
        if (call->message)
                free(call->request);
        call->response = NULL;
        call->request = call->message ? NULL : call->request;
        call->response_capacity = call->request_capacity = call->request_size = 0;
}

// What has come: what has not yet wakes us again.
static bool read_all(struct connection *connection) {
        static unsigned char buffer[READ_BUFFER];
        do {
                int count = SSL_read(connection->ssl, buffer, sizeof buffer);
                if (count <= 0)
                        return SSL_get_error(connection->ssl, count) == SSL_ERROR_WANT_READ ||
                               fail(connection, "reading", tls_error());
                ssize_t taken = nghttp2_session_mem_recv(connection->session, buffer, (size_t)count);
                if (taken < 0)
                        return fail(connection, "reading", nghttp2_strerror((int)taken));
        } while (SSL_has_pending(connection->ssl));
        return true;
}

// Gathers frames, so that many of them go out as one record.
static bool gather(struct connection *connection) {
        const uint8_t *data;
        ssize_t size;
        while ((size = nghttp2_session_mem_send(connection->session, &data)) > 0) {
                size_t total = connection->out_size + (size_t)size;
                if (!reserve(&connection->out, &connection->out_capacity, total))
                        return fail(connection, "sending", "out of memory");
                memcpy(connection->out + connection->out_size, data, (size_t)size);
                connection->out_size = total;
        }
        return !size || fail(connection, "sending", nghttp2_strerror((int)size));
}

static bool write_all(struct connection *connection) {
        connection->wants_write = false;
        while (connection->out_sent < connection->out_size) {
                int count = SSL_write(connection->ssl, connection->out + connection->out_sent,
                        (int)(connection->out_size - connection->out_sent));
                if (count <= 0) {
                        connection->wants_write = SSL_get_error(connection->ssl, count) == SSL_ERROR_WANT_WRITE;
                        return connection->wants_write || fail(connection, "sending", tls_error());
                }
                connection->out_sent += (size_t)count;
        }
        connection->out_size = connection->out_sent = 0;
        return true;
}

// False while it lasts, and where it fails: then there is a problem.
static bool shake_hands(struct connection *connection) {
        int error = 0;
        socklen_t size = sizeof error;
        if (!connection->connected) {
                struct pollfd wait = {connection->descriptor, POLLOUT, 0};
                if (poll(&wait, 1, 0) == 0)
                        return false;
                if (getsockopt(connection->descriptor, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
                        connection->refused = error == ECONNREFUSED;
                        return fail(connection, "connecting", strerror(error));
                }
                connection->connected = true;
        }
        int status = SSL_connect(connection->ssl);
        int wants = SSL_get_error(connection->ssl, status);
        connection->ready = status == 1;
        connection->wants_write = wants == SSL_ERROR_WANT_WRITE;
        if (status != 1 && wants != SSL_ERROR_WANT_READ && wants != SSL_ERROR_WANT_WRITE)
                return fail(connection, "shaking hands", tls_error());
        return connection->ready;
}

bool connection_turn(struct connection *connection) {
        ERR_clear_error();
        if (*connection->problem)
                return false;
        if (!connection->ready && !shake_hands(connection))
                return !*connection->problem;
        return read_all(connection) && gather(connection) && write_all(connection);
}
