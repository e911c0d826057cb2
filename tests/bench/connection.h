// A gRPC client connection made to be cheap: HTTP/2 by nghttp2, TLS by OpenSSL, non-blocking.
//
// Owned by one thread, which waits for the socket itself (connection_descriptor, connection_events) and then gives it
// a turn. Calls belong to the caller and stay where they are until they have ended.
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;

enum { CALL_PREFIX = 5 }; // bytes that gRPC puts before a message

// A unary call's request is the caller's; a stream's, what waits to be sent, is the connection's, and a stream has a
// function for what comes. Both free the response, a stream the request too, with call_drop.
struct call {
        unsigned char *request; // with its prefix
        size_t request_size, request_sent, request_capacity;
        unsigned char *response; // with its prefix; kept from call to call
        size_t response_size, response_capacity;
        void (*message)(struct call *call, const uint8_t *message, size_t size); // NULL: a unary call
        int32_t stream;
        bool waits; // a stream that has nothing to send
        int status; // grpc-status; -1: there was none
        char status_message[160];
        void *owner;
};

// A context that trusts the certificate authorities of a PEM file and speaks HTTP/2. NULL: it cannot be made.
SSL_CTX *connection_tls(const char *ca_file);

// Connects to HOST:PORT, checks the certificate, and says hello; blocks meanwhile. `ended` is called in connection_turn
// for every call that ends, and may submit it again. NULL with a line on stderr on failure.
struct connection *connection_open(SSL_CTX *tls, const char *endpoint, void (*ended)(struct call *call));

// The same without blocking, from 127.0.0.`source` (0: whatever address): the first turns connect and shake hands, and
// calls that are submitted meanwhile wait. What goes wrong is not told but kept.
struct connection *connection_begin(
        SSL_CTX *tls, const char *endpoint, unsigned source, void (*ended)(struct call *call));
const char *connection_problem(const struct connection *connection); // NULL: none
bool connection_was_refused(const struct connection *connection);    // nobody listened

void connection_close(struct connection *connection);

int connection_descriptor(const struct connection *connection);
uint32_t connection_events(const struct connection *connection); // EPOLLIN, EPOLLOUT

// Begins a call of a method such as `/devopsgenie.v1.FindingService/GetFinding`. `method` and `api_key` (NULL: none)
// must outlive the next turn.
bool connection_submit(struct connection *connection, struct call *call, const char *method, const char *api_key)
        __attribute__((warn_unused_result));

// Adds a message to a stream; the next turn sends it.
bool connection_send(struct connection *connection, struct call *call, const uint8_t *message, size_t size)
        __attribute__((warn_unused_result));

void call_drop(struct call *call);

// Reads what has come, answers it, sends what is to be sent. False: the connection is broken.
bool connection_turn(struct connection *connection) __attribute__((warn_unused_result));
