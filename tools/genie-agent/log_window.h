// How far one part of an attempt's log is: written, sent, durable; and what of it is to be sent next. Sent again from
// where the platform says that something is missing (go-back-N). No I/O: the bytes are in the spool.
//
// durable <= sent <= end. What is before `durable` may be forgotten.
#pragma once

#include <devopsgenie/v1/task_channel_service.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_window {
        int64_t durable, sent, end;
        int64_t rewound_seq; // of the first chunk after the last going back; 0: none has been sent since
        bool rewound;        // there was one on this stream
        bool closed;         // nothing more is written
        bool eof_sent;       // that was said
};

// How many bytes from `sent` on go into the next chunk, with `room` left in the session's window; *ret_eof: they are
// the last ones. False: nothing is to be sent.
bool log_window_next(const struct log_window *log, size_t chunk_max, int64_t room, size_t *ret_size, bool *ret_eof);

// A chunk was sent as the message `seq`.
void log_window_sent(struct log_window *log, size_t size, bool eof, int64_t seq);

// A LogAck without FULL or FENCED came in a message with this ack_seq. An ack that tells of a problem is about a chunk
// that went out before the last going back where the platform had not yet taken what was sent after it: it is passed
// over, or each chunk behind a gap would begin everything anew. Returns whether `durable` has moved.
bool log_window_acked(
        struct log_window *log, int64_t next_offset, Devopsgenie__V1__LogAck__Problem problem, int64_t ack_seq);

// Everything that is not durable goes out again: on a new stream, or when acks have failed to come.
void log_window_rewind(struct log_window *log, bool new_stream);

// The platform says where the log ends for it, which is all that counts: after a crash it can be behind our end.
void log_window_restart(struct log_window *log, int64_t offset);

// No more is taken: what is not durable is let go.
void log_window_give_up(struct log_window *log);

static inline int64_t log_window_in_flight(const struct log_window *log) { return log->sent - log->durable; }

// All is durable, and the end was said.
static inline bool log_window_done(const struct log_window *log) {
        return log->closed && log->durable == log->end && (log->eof_sent || log->end == 0);
}
