// The core's half of a job (job.h): an attempt from its offer until nothing of it is left.
//
// The agent's lock guards all of a job that changes, but for the atomics, which its thread reads without. The loop
// makes jobs, moves them and frees them; a job's thread ends its own.
#pragma once

#include "tools/genie-agent/job.h"
#include "tools/genie-agent/job_state.h"
#include "tools/genie-agent/kinds.h"
#include "tools/genie-agent/log_window.h"

#include <devopsgenie/v1/task_channel_service.pb-c.h>
#include <pthread.h>
#include <stdatomic.h>

struct agent;

enum { JOB_LOGS = 2, JOB_EFFECTS_MAX = 100, JOB_STEP_SIZE = 201 };

typedef Devopsgenie__V1__TaskCancellation__Answer cancel_answer;

struct effect {
        struct effect *next; // the newest first
        char *key, *reference;
        bool acked, due; // due: to be sent on this stream
};

struct job {
        struct agent *agent;
        Devopsgenie__V1__TaskAssign *assign;
        const struct kind *kind;
        enum job_state state;
        pthread_t thread;
        bool has_thread, thread_ended; // ended: to be joined

        atomic_int stop;                                 // enum job_stop
        _Atomic int64_t stop_deadline_ms, lease_stop_ms; // force from the one on, nothing at all from the other on
        int stop_descriptor;                             // an eventfd
        pthread_cond_t changed;                          // what the thread may wait for
        const char *failure;                             // the core's own reason why it must fail; literals
        char *failure_message;

        struct effect *effects;
        Devopsgenie__V1__Result *result; // from ENDED on

        struct {
                struct log_window window;
                int file; // the spool; -1: not opened yet
                bool cut; // something was dropped, and so is all behind it
        } logs[JOB_LOGS];
        bool log_unwanted; // FULL or FENCED

        int percent;
        char step[JOB_STEP_SIZE];
        int64_t progress_sent_ms;

        // What is to be said on this stream, when there is room.
        bool ack_due, result_due, progress_due;
        cancel_answer answer_due; // 0: none
        bool cancelled;           // a Cancel came: its end is to be answered
        int64_t renewed_seq;      // the first LeaseRenew of this stream that had it; 0: none
        int64_t acked_ms;         // when TaskAck was sent, from which its lease counts
};

// The loop, with the agent's lock:

// Takes the assignment over. NULL: the disk does not take its spool.
struct job *job_new(struct agent *agent, Devopsgenie__V1__TaskAssign *assign, const struct kind *kind);
void job_free(struct job *job);

void job_set_state(struct job *job, enum job_state state);

// Begins its thread. False: there is none to be had.
bool job_start(struct job *job) __attribute__((warn_unused_result));

// Tells it to stop, or to stop harder; a softer stop than the one before changes nothing.
void job_stop(struct job *job, enum job_stop stop, int64_t deadline_ms);

// Ends one without a thread. `reason` NULL: CANCELLED.
void job_end(struct job *job, const char *reason, const char *message);

// It is no longer ours, and nothing more is to be said of it.
void job_lose(struct job *job);

// The platform has its result; it is forgotten once its log is complete.
void job_reported(struct job *job);

// Frees what it has on disk.
void job_forget(struct job *job);

// Its log is complete, or not wanted.
bool job_log_done(const struct job *job);

// One more of its kind would be one too many for as long as this is so.
bool job_takes_slot(const struct job *job);

// It ran and may run, as LeaseRenew lists them.
bool job_is_leased(const struct job *job);

// It is leased from then on; what was lost stays lost.
void job_extend_lease(struct job *job, int64_t from_ms, int64_t lease_ms);

// Begins anew on a new stream.
void job_new_stream(struct job *job);

struct effect *job_add_effect(struct job *job, const char *key, const char *reference);
