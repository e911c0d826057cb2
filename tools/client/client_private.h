// What the synchronous and the asynchronous half of the client share.
#pragma once

#include "tools/client/client.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>

// Silences core's log and initialises core; grpc_shutdown is its opposite.
bool client_core_begin(void) __attribute__((warn_unused_result));

// A channel as the settings say, checked; it connects with its first call. `lasting`: for one stream that stays. NULL
// with *ret_error.
grpc_channel *client_channel_connect(const struct client_settings *settings, bool lasting, char **ret_error);

grpc_byte_buffer *client_buffer_make(const void *data, size_t size);

// Where a call's end is put, and how it becomes an error.
struct client_status {
        grpc_metadata_array trailing;
        grpc_status_code code;
        grpc_slice message;
};
grpc_op client_status_op(struct client_status *status);
void client_status_decode(const struct client_status *status, struct client_error *ret_error);
void client_status_drop(struct client_status *status);
