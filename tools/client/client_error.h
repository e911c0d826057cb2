// A call's status with its details (google.rpc.Status, AIP-193), decoded for people and for decisions.
#pragma once

#include <stddef.h>
#include <stdint.h>

// The canonical codes that callers of this client decide on; client_code_name knows all of them.
enum {
        CLIENT_OK = 0,
        CLIENT_CANCELLED = 1,
        CLIENT_DEADLINE_EXCEEDED = 4,
        CLIENT_ALREADY_EXISTS = 6,
        CLIENT_RESOURCE_EXHAUSTED = 8,
        CLIENT_ABORTED = 10,
        CLIENT_INTERNAL = 13,
        CLIENT_UNAVAILABLE = 14,
};

enum { CLIENT_DETAILS_MAX = 20 };

struct client_error {
        int code;
        char *message;                     // as the server wrote it; not fit for a terminal as it stands
        char *reason;                      // ErrorInfo's, such as SCAN_RUNNING; "" for none
        char *details[CLIENT_DETAILS_MAX]; // a line each: fields, conditions, limits, the resource
        size_t n_details;
        int64_t retry_delay_ms; // RetryInfo's; 0 for none
};

// "NOT_FOUND" for 5; "CODE_99" has no name and is "UNKNOWN".
const char *client_code_name(int code);

// Fills in an error from a status and the bytes of grpc-status-details-bin (size 0: there are none). Details that
// cannot be read are left out: the code and message still stand.
void client_error_decode(
        struct client_error *ret_error, int code, const char *message, const void *details, size_t size);

// Frees what an error holds. A zeroed error is an empty one.
void client_error_clear(struct client_error *error);
