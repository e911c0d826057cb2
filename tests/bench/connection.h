// A gRPC client connection made to be cheap: HTTP/2 by nghttp2, TLS by OpenSSL, non-blocking, unary calls alone.
//
// Owned by one thread, which waits for the socket itself (connection_descriptor, connection_events) and then gives it
// a turn. Calls belong to the caller and stay where they are until they have ended.
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;

enum { CALL_REQUEST_MAX = 4608, CALL_PREFIX = 5 }; // bytes; of the prefix that gRPC puts before a message

struct call {
        unsigned char request[CALL_REQUEST_MAX]; // with its prefix
        size_t request_size, request_sent;
        unsigned char *response; // with its prefix; kept from call to call
        size_t response_size, response_capacity;
        int status; // grpc-status; -1: there was none
        char status_message[160];
        void *owner;
};

// A context that trusts the certificate authorities of a PEM file and speaks HTTP/2. NULL: it cannot be made.
SSL_CTX *connection_tls(const char *ca_file);

// Connects to HOST:PORT, checks the certificate, and says hello; blocks meanwhile. `ended` is called in connection_turn
// for every call that ends, and may submit it again. NULL with a line on stderr on failure.
struct connection *connection_open(SSL_CTX *tls, const char *endpoint, void (*ended)(struct call *call));
void connection_close(struct connection *connection);

int connection_descriptor(const struct connection *connection);
uint32_t connection_events(const struct connection *connection); // EPOLLIN, EPOLLOUT

// Begins a call of a method such as `/devopsgenie.v1.FindingService/GetFinding`. `method` and `api_key` (NULL: none)
// must outlive the next turn.
bool connection_submit(struct connection *connection, struct call *call, const char *method, const char *api_key)
        __attribute__((warn_unused_result));

// Reads what has come, answers it, sends what is to be sent. False, with a line on stderr: the connection is broken.
bool connection_turn(struct connection *connection) __attribute__((warn_unused_result));
