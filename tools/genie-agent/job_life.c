// The core's half of a job: its life, from job_private.h.
#include "server/utf8.h"
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/spool.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { OUTPUT_MAX = 2000, MESSAGE_MAX = 2000, REASON_MAX = 100 };

void job_set_state(struct job *job, enum job_state state) {
        assert(job_state_may_follow(job->state, state));
        agent_log(LOG_DEBUG, "attempt", "task", job->assign->task, "from", job_state_name(job->state), "to",
                job_state_name(state), NULL);
        job->state = state;
}

struct job *job_new(struct agent *agent, Devopsgenie__V1__TaskAssign *assign, const struct kind *kind) {
        struct job *job = must(calloc(1, sizeof *job));
        char name[SPOOL_NAME_SIZE];
        *job = (struct job){.agent = agent, .assign = assign, .kind = kind, .state = STATE_OFFERED};
        pthread_cond_init(&job->changed, NULL);
        atomic_store(&job->lease_stop_ms, INT64_MAX);
        job->stop_descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        for (int i = 0; i < JOB_LOGS; i++) {
                spool_name(assign->task, assign->attempt, i + 1, name);
                job->logs[i].file = spool_open(journal_folder(agent->journal), name, &job->logs[i].window.end);
        }
        if (job->stop_descriptor >= 0 && job->logs[0].file >= 0 && job->logs[1].file >= 0)
                return job;
        job->assign = NULL; // still the caller's
        job_free(job);
        return NULL;
}

void job_free(struct job *job) {
        assert(!job->has_thread);
        for (int i = 0; i < JOB_LOGS; i++)
                if (job->logs[i].file >= 0)
                        close(job->logs[i].file);
        if (job->stop_descriptor >= 0)
                close(job->stop_descriptor);
        for (struct effect *effect = job->effects, *next; effect; effect = next) {
                next = effect->next;
                free(effect->key);
                free(effect->reference);
                free(effect);
        }
        if (job->result)
                devopsgenie__v1__result__free_unpacked(job->result, NULL);
        if (job->assign)
                devopsgenie__v1__task_assign__free_unpacked(job->assign, NULL);
        free(job->failure_message);
        pthread_cond_destroy(&job->changed);
        free(job);
}

void job_stop(struct job *job, enum job_stop stop, int64_t deadline_ms) {
        static const int hardness[] = {[JOB_GO_ON] = 0,
                [JOB_SHUTDOWN] = 1,
                [JOB_CANCEL_GRACEFULLY] = 2,
                [JOB_CANCEL_NOW] = 3,
                [JOB_LEASE_LOST] = 4};
        int before = atomic_load(&job->stop);
        if (hardness[stop] > hardness[before]) {
                atomic_store(&job->stop_deadline_ms, deadline_ms);
                atomic_store(&job->stop, (int)stop);
        } else if ((int)stop == before && deadline_ms < atomic_load(&job->stop_deadline_ms)) {
                atomic_store(&job->stop_deadline_ms, deadline_ms);
        }
        if (eventfd_write(job->stop_descriptor, 1) < 0 && errno != EAGAIN) // EAGAIN: it is readable already
                abort();
        pthread_cond_broadcast(&job->changed);
}

// A text as the proto has it, in UTF-8 and not longer: else the platform would take none of the message.
static char *bounded(const char *text, size_t most) {
        char *copy = must(strndup(text ? text : "", most));
        utf8_mend(copy);
        return copy;
}

static void put_outputs(Devopsgenie__V1__Result *message, const struct job_result *result) {
        message->outputs = must(calloc(result->output_count + 1, sizeof *message->outputs));
        for (unsigned i = 0; i < result->output_count; i++) {
                Devopsgenie__V1__Result__OutputsEntry *entry = must(malloc(sizeof *entry));
                devopsgenie__v1__result__outputs_entry__init(entry);
                entry->key = bounded(result->outputs[i].name, REASON_MAX);
                entry->value = bounded(result->outputs[i].value, OUTPUT_MAX);
                message->outputs[message->n_outputs++] = entry;
        }
}

static void put_failure(Devopsgenie__V1__Result *message, const struct job_result *result) {
        message->failure = must(malloc(sizeof *message->failure));
        devopsgenie__v1__task_failure__init(message->failure);
        message->failure->reason = bounded(result->reason ? result->reason : "FAILED", REASON_MAX);
        message->failure->message = bounded(result->message, MESSAGE_MAX);
        message->failure->permanent = result->permanent;
        if (result->permanent || !result->retry_after_ms)
                return;
        unsigned ms = result->retry_after_ms < 3600000 ? result->retry_after_ms : 3600000;
        message->retry_after = must(malloc(sizeof *message->retry_after));
        google__protobuf__duration__init(message->retry_after);
        message->retry_after->seconds = ms / 1000;
        message->retry_after->nanos = (int32_t)(ms % 1000) * 1000000;
}

static void put_log_offsets(Devopsgenie__V1__Result *message, const struct job *job) {
        message->log_offsets = must(calloc(JOB_LOGS, sizeof(void *)));
        for (int i = 0; i < JOB_LOGS; i++) {
                Devopsgenie__V1__LogOffset *offset = must(malloc(sizeof *offset));
                devopsgenie__v1__log_offset__init(offset);
                offset->stream = (Devopsgenie__V1__LogStream)(i + 1);
                offset->offset = job->logs[i].window.end;
                message->log_offsets[message->n_log_offsets++] = offset;
        }
}

static Devopsgenie__V1__Result *make_result(const struct job *job, const struct job_result *result) {
        static const Devopsgenie__V1__Result__Status statuses[] = {
                [JOB_SUCCEEDED] = DEVOPSGENIE__V1__RESULT__STATUS__SUCCEEDED,
                [JOB_FAILED] = DEVOPSGENIE__V1__RESULT__STATUS__FAILED,
                [JOB_CANCELLED] = DEVOPSGENIE__V1__RESULT__STATUS__CANCELLED,
        };
        Devopsgenie__V1__Result *message = must(malloc(sizeof *message));
        devopsgenie__v1__result__init(message);
        message->task = bounded(job->assign->task, 1000);
        message->attempt = job->assign->attempt;
        message->fence = job->assign->fence;
        message->result_id = must(malloc(UUID_SIZE));
        random_uuid(message->result_id);
        message->status = statuses[result->status];
        if (result->status == JOB_FAILED)
                put_failure(message, result);
        put_outputs(message, result);
        put_log_offsets(message, job);
        return message;
}

// Writes down how it ended. Where the disk does not take it, the platform still gets it: what it has accepted is known
// to it, whatever becomes of this agent.
static void keep_result(struct job *job, const Devopsgenie__V1__Result *result) {
        bool logs_kept = fdatasync(job->logs[0].file) == 0 && fdatasync(job->logs[1].file) == 0 &&
                         fsync(journal_folder(job->agent->journal)) == 0;
        if (!logs_kept ||
                !journal_append(job->agent->journal, JOURNAL_RESULT, result->task, result->attempt, &result->base))
                agent_log(LOG_ERROR, "the result is not on disk", "task", result->task, "error", strerror(errno), NULL);
}

// With the lock.
static void ended(struct job *job, Devopsgenie__V1__Result *result) {
        bool stopped = result->status == DEVOPSGENIE__V1__RESULT__STATUS__CANCELLED;
        job->result = result;
        job_set_state(job, STATE_ENDED);
        job->result_due = true;
        job->logs[0].window.closed = job->logs[1].window.closed = true;
        if (job->cancelled)
                job->answer_due = stopped ? DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__STOPPED
                                          : DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__TOO_LATE;
        agent_log(LOG_INFO, "task ended", "task", job->assign->task, "reason",
                result->failure ? result->failure->reason
                : stopped       ? "CANCELLED"
                                : "SUCCEEDED",
                "message", result->failure ? result->failure->message : "", NULL);
}

// What is told of a job that its kind has left, where the core knows more.
static void correct(struct job *job, enum job_stop stop, struct job_result *result) {
        if (job->failure) {
                job_fail(result, /* permanent= */ false, job->failure, "%s", job->failure_message);
        } else if (result->status == JOB_UNFINISHED && stop != JOB_SHUTDOWN && stop != JOB_LEASE_LOST) {
                job_fail(result, /* permanent= */ false, "INTERNAL", "the task was left unfinished");
        }
}

// On the job's thread: how it ended is written down before it is said.
static void finish(struct job *job, struct job_result *result) {
        struct agent *agent = job->agent;
        enum job_stop stop = job_stopping(job);
        Devopsgenie__V1__Result *message = NULL;

        pthread_mutex_lock(&agent->lock);
        correct(job, stop, result);
        bool lost = job->state == STATE_LOST || (result->status == JOB_UNFINISHED && stop == JOB_LEASE_LOST);
        if (lost && job->state == STATE_RUNNING)
                agent_log(LOG_WARNING, "the lease was not renewed in time: the task was stopped", "task",
                        job->assign->task, NULL);
        if (!lost && result->status != JOB_UNFINISHED)
                message = make_result(job, result);
        pthread_mutex_unlock(&agent->lock);
        if (message)
                keep_result(job, message);

        pthread_mutex_lock(&agent->lock);
        if (message && job->state == STATE_RUNNING) {
                ended(job, message);
        } else {
                if (message)
                        devopsgenie__v1__result__free_unpacked(message, NULL);
                if (job->state == STATE_RUNNING)
                        job_set_state(job, lost ? STATE_LOST : STATE_RECOVERED);
        }
        job->thread_ended = true;
        client_loop_wake(agent->loop);
        pthread_mutex_unlock(&agent->lock);
}

static void *run(void *argument) {
        struct job *job = argument;
        struct job_result result = {0};
        job->kind->run(job, job->agent->config, &result);
        finish(job, &result);
        job_result_drop(&result);
        return NULL;
}

bool job_start(struct job *job) {
        job_set_state(job, STATE_RUNNING);
        job->has_thread = pthread_create(&job->thread, NULL, run, job) == 0;
        return job->has_thread;
}

void job_end(struct job *job, const char *reason, const char *message) {
        struct job_result result = {.status = JOB_CANCELLED};
        if (reason)
                job_fail(&result, /* permanent= */ false, reason, "%s", message);
        Devopsgenie__V1__Result *made = make_result(job, &result);
        job_result_drop(&result);
        keep_result(job, made);
        ended(job, made);
}

void job_lose(struct job *job) {
        switch (job->state) {
        case STATE_RUNNING:
                job_set_state(job, STATE_LOST);
                job_stop(job, JOB_LEASE_LOST, 0);
                break;
        case STATE_OFFERED:
        case STATE_RECOVERED:
        case STATE_ENDED:
                job_forget(job);
                break;
        case STATE_LOST:     // the loop forgets it when its thread has ended
        case STATE_REPORTED: // it has been told all but the log
        case STATE_FORGOTTEN:
        case STATES:
        default:
                break;
        }
}

void job_reported(struct job *job) {
        if (job->state == STATE_REPORTED)
                return;
        job_set_state(job, STATE_REPORTED);
        job->result_due = false;
        job->answer_due = 0;
        job->logs[0].window.closed = job->logs[1].window.closed = true;
}

void job_forget(struct job *job) {
        const Devopsgenie__V1__LeasedTask message = {PROTOBUF_C_MESSAGE_INIT(&devopsgenie__v1__leased_task__descriptor),
                .task = job->assign->task, .attempt = job->assign->attempt, .fence = job->assign->fence};
        char name[SPOOL_NAME_SIZE];
        for (int i = 0; i < JOB_LOGS; i++) {
                spool_name(job->assign->task, job->assign->attempt, i + 1, name);
                unlinkat(journal_folder(job->agent->journal), name, 0);
        }
        // Where the disk does not take it, the next process reports the attempt once more, and hears that it is known.
        if (!journal_append(job->agent->journal, JOURNAL_FORGET, message.task, message.attempt, &message.base))
                agent_log(LOG_WARNING, "the journal cannot be written", "error", strerror(errno), NULL);
        job_set_state(job, STATE_FORGOTTEN); // last: it is logged
}

bool job_log_done(const struct job *job) {
        return job->log_unwanted || (log_window_done(&job->logs[0].window) && log_window_done(&job->logs[1].window));
}

bool job_takes_slot(const struct job *job) {
        return job->has_thread || job->state == STATE_OFFERED || job->state == STATE_RECOVERED;
}

bool job_is_leased(const struct job *job) {
        return job->state == STATE_ENDED || (job->state == STATE_RUNNING && job_stopping(job) != JOB_LEASE_LOST);
}

void job_extend_lease(struct job *job, int64_t from_ms, int64_t lease_ms) {
        int64_t stop_ms = lease_stop_ms(from_ms, lease_ms);
        if (job_stopping(job) == JOB_LEASE_LOST) // for good: its thread may have seen it
                return;
        if (stop_ms > atomic_load(&job->lease_stop_ms) || atomic_load(&job->lease_stop_ms) == INT64_MAX)
                atomic_store(&job->lease_stop_ms, stop_ms);
}

void job_new_stream(struct job *job) {
        for (struct effect *effect = job->effects; effect; effect = effect->next)
                effect->due = !effect->acked;
        job->result_due = job->state == STATE_ENDED;
        job->ack_due = false;
        job->answer_due = 0;
        job->renewed_seq = 0;
        for (int i = 0; i < JOB_LOGS; i++)
                log_window_rewind(&job->logs[i].window, /* new_stream= */ true);
}
