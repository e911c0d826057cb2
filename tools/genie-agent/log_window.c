#include "tools/genie-agent/log_window.h"

bool log_window_next(const struct log_window *log, size_t chunk_max, int64_t room, size_t *ret_size, bool *ret_eof) {
        int64_t size = log->end - log->sent;
        if (size > (int64_t)chunk_max)
                size = (int64_t)chunk_max;
        if (size > room)
                size = room;
        bool eof = log->closed && log->end > 0 && log->sent + size == log->end;
        if (size <= 0 && !(eof && !log->eof_sent))
                return false;
        *ret_size = size > 0 ? (size_t)size : 0;
        *ret_eof = eof;
        return true;
}

void log_window_sent(struct log_window *log, size_t size, bool eof, int64_t seq) {
        log->sent += (int64_t)size;
        log->eof_sent |= eof;
        if (log->rewound && !log->rewound_seq)
                log->rewound_seq = seq;
}

static void go_back(struct log_window *log) {
        log->sent = log->durable;
        log->eof_sent = false;
        log->rewound = true;
        log->rewound_seq = 0;
}

bool log_window_acked(
        struct log_window *log, int64_t next_offset, Devopsgenie__V1__LogAck__Problem problem, int64_t ack_seq) {
        bool moved = next_offset > log->durable;
        if (moved) {
                log->durable = next_offset < log->end ? next_offset : log->end;
                if (log->sent < log->durable)
                        log->sent = log->durable;
        }
        bool stale = log->rewound && (!log->rewound_seq || ack_seq < log->rewound_seq);
        if (problem != DEVOPSGENIE__V1__LOG_ACK__PROBLEM__PROBLEM_UNSPECIFIED && !stale)
                go_back(log);
        return moved;
}

void log_window_rewind(struct log_window *log, bool new_stream) {
        go_back(log);
        log->rewound = !new_stream;
}

void log_window_restart(struct log_window *log, int64_t offset) {
        if (offset > log->end)
                log->end = offset;
        if (offset > log->durable)
                log->durable = offset;
        log_window_rewind(log, /* new_stream= */ true);
}

void log_window_give_up(struct log_window *log) {
        log->end = log->sent = log->durable;
        log->closed = log->eof_sent = true;
}
