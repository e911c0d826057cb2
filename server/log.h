// The log: one JSON object a line on standard error. Any thread. Lines about calls are gathered and written together;
// all others are written at once.
#pragma once

#include <stdbool.h>
#include <stddef.h>

// A line: {"time": …, "event": event, and the fields}. Names and values alternate, NULL-terminated; a value is written
// as a JSON string. Never pass a secret.
void log_event(const char *event, ...) __attribute__((sentinel));

// What a call's line says. Numbers are written as numbers.
struct log_call {
        const char *method, *code, *reason, *caller, *organization, *request_id, *peer, *failure;
        double milliseconds;
};
void log_call(const struct log_call *call);

// Writes what is gathered. Called at the end of each turn of the loops that answer calls, and at exit.
void log_flush(void);

enum log_calls { LOG_CALLS_ALL, LOG_CALLS_REFUSED, LOG_CALLS_NONE };
void log_set_calls(enum log_calls which);
