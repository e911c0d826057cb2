// A task as the code that does it sees it: the seam between the agent's core, which speaks with the platform, and the
// kinds of tasks (pull_request.h, command.h).
//
// The core makes a job when StartGrant comes and runs its kind's function on a thread of its own. All functions here
// are for that thread (job_log for any thread of the job), and none of them fails because the platform is away: what
// they take is kept in the agent's journal and sent when it can be.
#pragma once

#include <devopsgenie/v1/task_service.pb-c.h>
#include <stdbool.h>
#include <stddef.h>

struct job;

// Why a job is to stop.
enum job_stop {
        JOB_GO_ON,
        JOB_CANCEL_GRACEFULLY, // a Cancel: stop at the next safe point, at the latest at job_stop_deadline
        JOB_CANCEL_NOW,        // a forced Cancel, or the grace is over
        JOB_LEASE_LOST,        // another attempt may run: touch nothing outside any more
        JOB_SHUTDOWN,          // the agent ends: leave everything so that the next process goes on with this attempt
};

// What came of a job. Strings are malloc'ed and the core's from then on; job_result_drop frees them.
struct job_result {
        // UNFINISHED: after JOB_SHUTDOWN and JOB_LEASE_LOST.
        enum { JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED, JOB_UNFINISHED } status;
        char *reason, *message;  // FAILED: UPPER_SNAKE; for people, without secrets
        bool permanent;          // FAILED: trying again would not help
        unsigned retry_after_ms; // FAILED and not permanent: not before this; 0: the platform's choice
        struct {
                char *name, *value;
        } outputs[16]; // see Task.outputs
        unsigned output_count;
};

// What is to be done. All of it lives as long as the job.
const char *job_task(const struct job *job); // `organizations/…/tasks/…`
int job_attempt(const struct job *job);
const char *job_idempotency_key(const struct job *job);
const Devopsgenie__V1__TaskPayload *job_payload(const struct job *job);

// What this or an earlier attempt has made outside, by key; NULL: nothing is known of it.
const char *job_effect(const struct job *job, const char *key);

// Notes that something is about to be made, or has been made, outside. Returns when it is in the journal on disk and
// the platform has acknowledged it; false where the job is to stop before that (see job_stopping): make nothing then.
bool job_note_effect(struct job *job, const char *key, const char *reference) __attribute__((warn_unused_result));

// Adds to the log, byte for byte. Waits while too much is on its way to the platform; but where the job is to stop at
// once, what finds no room is dropped, and all behind it. So is what the platform does not want. STDOUT is what the
// task says, and what a command writes there.
void job_log(struct job *job, Devopsgenie__V1__LogStream stream, const void *data, size_t size);
// How many bytes of it job_log takes now without waiting.
size_t job_log_room(const struct job *job, Devopsgenie__V1__LogStream stream);
void job_logf(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3))); // a line on STDOUT

// How far it is; never waits.
void job_progress(struct job *job, int percent, const char *step);

// Whether and why to stop. A descriptor that is readable from when it is not JOB_GO_ON, for poll.
enum job_stop job_stopping(const struct job *job);
int job_stop_descriptor(const struct job *job);
int job_stop_grace_ms(const struct job *job); // what is left of the grace; 0: none

// Results. They copy; a NULL or a lack of memory in one of them leaves it out.
void job_succeed(struct job_result *result);
void job_fail(struct job_result *result, bool permanent, const char *reason, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
void job_output(struct job_result *result, const char *name, const char *value);
void job_result_drop(struct job_result *result);
