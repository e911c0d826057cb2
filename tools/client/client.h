// A synchronous client on gRPC core's C API: the tools' way to the server.
//
// One thread uses a client and its streams, one operation at a time. Every operation has a time limit, received
// messages are bounded, and an error comes with the details that the server sent (client_error.h). No other part of
// the tools includes <grpc/...>.
#pragma once

#include "tools/client/client_error.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

struct client;
struct client_stream;

struct client_settings {
        const char *endpoint;   // HOST:PORT, or unix:PATH, which is never encrypted
        const char *ca_file;    // PEM; NULL: the machine's own certificate authorities
        bool plaintext;         // no TLS: the credential is readable on the way
        const char *credential; // a JWT or an API key; NULL: none
};

// Sets up a channel; it connects with the first call. NULL with *ret_error (malloc'ed) on bad settings.
struct client *client_new(const struct client_settings *settings, char **ret_error);
void client_free(struct client *client);

// Whether an endpoint is on this machine: to such a one a proxy that the environment names is no way.
bool client_is_local(const char *endpoint);

// Calls a unary method such as "/devopsgenie.v1.ScanService/GetScan". On success *ret_response is a message of that
// type, to be freed with protobuf_c_message_free_unpacked(…, NULL); on failure *ret_error says why.
bool client_call(struct client *client, const char *method, const ProtobufCMessage *request,
        const ProtobufCMessageDescriptor *response_type, int timeout_ms, ProtobufCMessage **ret_response,
        struct client_error *ret_error) __attribute__((warn_unused_result));

// Opens a stream in both directions. Never NULL: what goes wrong is seen by the first operation on it.
struct client_stream *client_stream_open(struct client *client, const char *method);

// Sends one packed message. False: the stream is broken or ended; client_stream_finish says why. Success means that
// the message is on its way, not that the server has it.
bool client_stream_write(struct client_stream *stream, const void *data, size_t size, int timeout_ms)
        __attribute__((warn_unused_result));

// Says that no more messages come.
bool client_stream_half_close(struct client_stream *stream) __attribute__((warn_unused_result));

// Waits for a message of the given type. NULL: the stream is broken or ended; client_stream_finish says why.
ProtobufCMessage *client_stream_read(struct client_stream *stream, const ProtobufCMessageDescriptor *type,
        int timeout_ms) __attribute__((warn_unused_result));

// Ends the stream (cancels it, if the server has not ended it), gives its status, and frees it.
void client_stream_finish(struct client_stream *stream, struct client_error *ret_status);
