#include "tools/client/client.h"

#include "tools/client/client_private.h"

#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#if __has_include(<grpc/credentials.h>)
#include <grpc/credentials.h>
#endif
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A page of 200 findings takes a tenth of it.
enum { RECEIVE_MAX = 16 << 20, CA_FILE_MAX = 1 << 20, CREDENTIAL_MAX = 16 << 10, FINISH_TIMEOUT_MS = 5000 };

struct client {
        grpc_channel *channel;
        grpc_completion_queue *queue;
        char *authorization; // the header's value; NULL for none
};

struct client_stream {
        struct client *client;
        grpc_call *call;
        bool opened; // initial metadata was sent
        bool heard;  // initial metadata was asked for
        bool ending; // the server ends it, or the connection did
        grpc_metadata_array initial;
};

static char *read_ca_file(const char *path, char **ret_error) {
        FILE *file = fopen(path, "re");
        char *pem = file ? calloc(1, CA_FILE_MAX + 1) : NULL;
        size_t size = pem ? fread(pem, 1, CA_FILE_MAX, file) : 0;
        bool read = file && pem && !ferror(file);

        if (!read && asprintf(ret_error, "cannot read the CA file %s: %s", path, strerror(errno)) < 0)
                *ret_error = NULL;
        if (read && (size == 0 || !strstr(pem, "-----BEGIN CERTIFICATE-----"))) {
                if (asprintf(ret_error, "the CA file %s holds no PEM certificate", path) < 0)
                        *ret_error = NULL;
                read = false;
        }
        if (file)
                fclose(file);
        if (read)
                return pem;
        free(pem);
        return NULL;
}

static bool is_unix(const char *endpoint) { return strncmp(endpoint, "unix:", 5) == 0; }

bool client_is_local(const char *endpoint) {
        return is_unix(endpoint) || strncmp(endpoint, "localhost:", 10) == 0 || strncmp(endpoint, "127.", 4) == 0 ||
               strncmp(endpoint, "[::1]", 5) == 0;
}

// Core's own checks and defaults of an endpoint are surprising: a lone word would be looked up at port 443.
static bool endpoint_is_valid(const char *endpoint) {
        const char *colon = strrchr(endpoint, ':');

        if (is_unix(endpoint))
                return endpoint[5] != '\0';
        if (!colon || colon == endpoint || strstr(endpoint, "//"))
                return false;
        size_t digits = strspn(colon + 1, "0123456789");
        return digits > 0 && digits <= 5 && colon[1 + digits] == '\0';
}

static grpc_channel *make_channel(const struct client_settings *settings, bool lasting, char **ret_error) {
        grpc_channel_credentials *credentials;

        if (settings->plaintext || is_unix(settings->endpoint)) {
                credentials = grpc_insecure_credentials_create();
        } else {
                char *pem = settings->ca_file ? read_ca_file(settings->ca_file, ret_error) : NULL;
                if (settings->ca_file && !pem)
                        return NULL;
                credentials = grpc_ssl_credentials_create(pem, NULL, NULL, NULL);
                free(pem);
        }
        char agent[] = "genie/" GENIE_VERSION, key_agent[] = GRPC_ARG_PRIMARY_USER_AGENT_STRING,
             key_receive[] = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, key_time[] = GRPC_ARG_KEEPALIVE_TIME_MS,
             key_timeout[] = GRPC_ARG_KEEPALIVE_TIMEOUT_MS, key_backoff[] = GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
             key_proxy[] = GRPC_ARG_ENABLE_HTTP_PROXY, key_own[] = GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL;
        grpc_arg list[] = {
                {.type = GRPC_ARG_STRING, .key = key_agent, .value.string = agent},
                {.type = GRPC_ARG_INTEGER, .key = key_receive, .value.integer = RECEIVE_MAX},
                // A server that vanished without a word is noticed within a minute; a lasting stream has heartbeats of
                // its own, and a server may take more pings than one in 20 s for an attack.
                {.type = GRPC_ARG_INTEGER, .key = key_time, .value.integer = lasting ? 60000 : 30000},
                {.type = GRPC_ARG_INTEGER, .key = key_timeout, .value.integer = 20000},
                // Callers have a backoff of their own; core's would only add to it.
                {.type = GRPC_ARG_INTEGER, .key = key_backoff, .value.integer = 500},
                {.type = GRPC_ARG_INTEGER, .key = key_proxy, .value.integer = !client_is_local(settings->endpoint)},
                // A lasting stream that comes back wants a connection of its own, perhaps to another replica.
                {.type = GRPC_ARG_INTEGER, .key = key_own, .value.integer = lasting},
        };
        const grpc_channel_args arguments = {.num_args = sizeof list / sizeof *list, .args = list};
        grpc_channel *channel = grpc_channel_create(settings->endpoint, credentials, &arguments);
        grpc_channel_credentials_release(credentials);
        return channel;
}

static bool credential_is_valid(const char *credential) {
        size_t size = strlen(credential);

        for (size_t i = 0; i < size; i++) {
                if (credential[i] <= ' ' || credential[i] > '~')
                        return false;
        }
        return size > 0 && size <= CREDENTIAL_MAX;
}

grpc_channel *client_channel_connect(const struct client_settings *settings, bool lasting, char **ret_error) {
        *ret_error = NULL;
        if (!endpoint_is_valid(settings->endpoint)) {
                *ret_error = strdup("the endpoint must be HOST:PORT or unix:PATH");
                return NULL;
        }
        if (settings->credential && !credential_is_valid(settings->credential)) {
                *ret_error = strdup("the token or API key holds characters that none has");
                return NULL;
        }
        return make_channel(settings, lasting, ret_error);
}

bool client_core_begin(void) {
        // Core writes to standard error as it pleases; what matters comes back as a status.
        if (setenv("GRPC_VERBOSITY", "NONE", 0) < 0)
                return false;
        grpc_init();
        return true;
}

struct client *client_new(const struct client_settings *settings, char **ret_error) {
        *ret_error = NULL;
        if (!client_core_begin())
                return NULL;
        struct client *client = calloc(1, sizeof *client);
        if (client) {
                client->queue = grpc_completion_queue_create_for_next(NULL);
                client->channel = client_channel_connect(settings, /* lasting= */ false, ret_error);
        }
        if (!client || !client->channel ||
                (settings->credential && asprintf(&client->authorization, "Bearer %s", settings->credential) < 0)) {
                client_free(client);
                if (!client)
                        grpc_shutdown();
                return NULL;
        }
        return client;
}

void client_free(struct client *client) {
        if (!client)
                return;
        if (client->channel)
                grpc_channel_destroy(client->channel);
        grpc_completion_queue_shutdown(client->queue);
        while (grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
                GRPC_QUEUE_SHUTDOWN)
                ;
        grpc_completion_queue_destroy(client->queue);
        if (client->authorization)
                explicit_bzero(client->authorization, strlen(client->authorization));
        free(client->authorization);
        free(client);
        grpc_shutdown();
}

static gpr_timespec after_ms(int ms) {
        return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

// Runs a batch to its end; past the time limit the call is cancelled, and the batch ends by that.
static bool run_batch(struct client *client, grpc_call *call, const grpc_op *ops, size_t count, int timeout_ms) {
        if (grpc_call_start_batch(call, ops, count, call, NULL) != GRPC_CALL_OK)
                return false;
        grpc_event event = grpc_completion_queue_next(client->queue, after_ms(timeout_ms), NULL);
        if (event.type == GRPC_QUEUE_TIMEOUT) {
                grpc_call_cancel_with_status(call, GRPC_STATUS_DEADLINE_EXCEEDED, "no answer in time", NULL);
                grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
                return false;
        }
        return event.type == GRPC_OP_COMPLETE && event.success;
}

static grpc_call *make_call(struct client *client, const char *method, gpr_timespec deadline) {
        return grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
                grpc_slice_from_static_string(method), NULL, deadline, NULL);
}

static grpc_op send_metadata_op(const struct client *client, grpc_metadata *storage) {
        grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};

        if (client->authorization) {
                *storage = (grpc_metadata){.key = grpc_slice_from_static_string("authorization"),
                        .value = grpc_slice_from_static_string(client->authorization)};
                op.data.send_initial_metadata.count = 1;
                op.data.send_initial_metadata.metadata = storage;
        }
        return op;
}

grpc_byte_buffer *client_buffer_make(const void *data, size_t size) {
        grpc_slice slice = grpc_slice_from_copied_buffer(data, size);
        grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

        grpc_slice_unref(slice);
        return buffer;
}

// NULL where the bytes are no such message.
static ProtobufCMessage *unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type) {
        grpc_byte_buffer_reader reader;

        if (!grpc_byte_buffer_reader_init(&reader, buffer))
                return NULL;
        grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
        ProtobufCMessage *message = protobuf_c_message_unpack(
                type, NULL, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
        grpc_slice_unref(slice);
        grpc_byte_buffer_reader_destroy(&reader);
        return message;
}

grpc_op client_status_op(struct client_status *status) {
        *status = (struct client_status){.code = GRPC_STATUS_UNKNOWN, .message = grpc_empty_slice()};
        grpc_metadata_array_init(&status->trailing);
        return (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                .data.recv_status_on_client = {.trailing_metadata = &status->trailing,
                        .status = &status->code,
                        .status_details = &status->message}};
}

void client_status_decode(const struct client_status *status, struct client_error *ret_error) {
        const void *details = NULL;
        size_t size = 0;

        for (size_t i = 0; i < status->trailing.count; i++) {
                const grpc_metadata *entry = &status->trailing.metadata[i];
                if (grpc_slice_str_cmp(entry->key, "grpc-status-details-bin") == 0) {
                        details = GRPC_SLICE_START_PTR(entry->value);
                        size = GRPC_SLICE_LENGTH(entry->value);
                }
        }
        char *message = grpc_slice_to_c_string(status->message);
        client_error_decode(ret_error, (int)status->code, message, details, size);
        gpr_free(message);
}

void client_status_drop(struct client_status *status) {
        grpc_metadata_array_destroy(&status->trailing);
        grpc_slice_unref(status->message);
}

bool client_call(struct client *client, const char *method, const ProtobufCMessage *request,
        const ProtobufCMessageDescriptor *response_type, int timeout_ms, ProtobufCMessage **ret_response,
        struct client_error *ret_error) {
        size_t size = protobuf_c_message_get_packed_size(request);
        uint8_t *packed = malloc(size + 1);
        if (!packed) {
                client_error_decode(ret_error, CLIENT_INTERNAL, "out of memory", NULL, 0);
                return false;
        }
        protobuf_c_message_pack(request, packed);
        grpc_byte_buffer *sent = client_buffer_make(packed, size), *received = NULL;
        free(packed);

        grpc_metadata metadata;
        grpc_metadata_array initial;
        struct client_status status;
        grpc_metadata_array_init(&initial);
        const grpc_op ops[] = {
                send_metadata_op(client, &metadata),
                {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = sent},
                {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
                {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &initial},
                {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &received},
                client_status_op(&status),
        };
        grpc_call *call = make_call(client, method, after_ms(timeout_ms));
        // The call's own deadline comes first: the server hears of it too.
        bool ran = run_batch(client, call, ops, sizeof ops / sizeof *ops, timeout_ms + 5000);
        ProtobufCMessage *response = NULL;
        if (ran && status.code == GRPC_STATUS_OK && received)
                response = unpack(received, response_type);
        if (response)
                *ret_response = response;
        else if (status.code == GRPC_STATUS_OK)
                client_error_decode(ret_error, CLIENT_INTERNAL, "the answer cannot be read", NULL, 0);
        else
                client_status_decode(&status, ret_error);
        grpc_call_unref(call);
        grpc_byte_buffer_destroy(sent);
        grpc_byte_buffer_destroy(received);
        grpc_metadata_array_destroy(&initial);
        client_status_drop(&status);
        return response != NULL;
}

struct client_stream *client_stream_open(struct client *client, const char *method) {
        struct client_stream *stream = calloc(1, sizeof *stream);

        if (!stream)
                abort();
        stream->client = client;
        stream->call = make_call(client, method, gpr_inf_future(GPR_CLOCK_MONOTONIC));
        grpc_metadata_array_init(&stream->initial);
        return stream;
}

bool client_stream_write(struct client_stream *stream, const void *data, size_t size, int timeout_ms) {
        grpc_metadata metadata;
        grpc_byte_buffer *buffer = client_buffer_make(data, size);
        const grpc_op ops[] = {
                {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer},
                send_metadata_op(stream->client, &metadata),
        };

        bool sent = run_batch(stream->client, stream->call, ops, stream->opened ? 1 : 2, timeout_ms);
        stream->opened = true;
        stream->ending |= !sent;
        grpc_byte_buffer_destroy(buffer);
        return sent;
}

bool client_stream_half_close(struct client_stream *stream) {
        const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

        stream->ending = true;
        return run_batch(stream->client, stream->call, &op, 1, FINISH_TIMEOUT_MS);
}

// NULL: no more messages.
static grpc_byte_buffer *receive(struct client_stream *stream, int timeout_ms) {
        grpc_byte_buffer *buffer = NULL;
        const grpc_op ops[] = {
                {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &buffer},
                {.op = GRPC_OP_RECV_INITIAL_METADATA,
                        .data.recv_initial_metadata.recv_initial_metadata = &stream->initial},
        };

        bool received = run_batch(stream->client, stream->call, ops, stream->heard ? 1 : 2, timeout_ms);
        stream->heard = true;
        if (received && buffer)
                return buffer;
        grpc_byte_buffer_destroy(buffer);
        stream->ending = true;
        return NULL;
}

ProtobufCMessage *client_stream_read(
        struct client_stream *stream, const ProtobufCMessageDescriptor *type, int timeout_ms) {
        grpc_byte_buffer *buffer = receive(stream, timeout_ms);
        if (!buffer)
                return NULL;
        ProtobufCMessage *message = unpack(buffer, type);
        if (!message)
                grpc_call_cancel_with_status(stream->call, GRPC_STATUS_INTERNAL, "a message cannot be read", NULL);
        grpc_byte_buffer_destroy(buffer);
        return message;
}

void client_stream_finish(struct client_stream *stream, struct client_error *ret_status) {
        struct client_status status;
        const grpc_op op = client_status_op(&status);

        if (!stream->ending)
                grpc_call_cancel(stream->call, NULL);
        // Core holds the status back until the messages before it are read.
        for (grpc_byte_buffer *unread; (unread = receive(stream, FINISH_TIMEOUT_MS));)
                grpc_byte_buffer_destroy(unread);
        run_batch(stream->client, stream->call, &op, 1, FINISH_TIMEOUT_MS);
        client_status_decode(&status, ret_status);
        client_status_drop(&status);
        grpc_metadata_array_destroy(&stream->initial);
        grpc_call_unref(stream->call);
        free(stream);
}
