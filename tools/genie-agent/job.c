#include "server/utf8.h"
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/spool.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WAIT_MS = 1000, FULL_DISK_POLL_MS = 200, LOG_PIECE_MAX = 64 << 10, PROGRESS_STEP = 200 };

// The seam.

const char *job_task(const struct job *job) { return job->assign->task; }
int job_attempt(const struct job *job) { return job->assign->attempt; }
const char *job_idempotency_key(const struct job *job) { return job->assign->idempotency_key; }
const Devopsgenie__V1__TaskPayload *job_payload(const struct job *job) { return job->assign->payload; }
int job_stop_descriptor(const struct job *job) { return job->stop_descriptor; }

static struct job *writable(const struct job *job) { return (struct job *)(uintptr_t)job; }

enum job_stop job_stopping(const struct job *job) {
        int64_t now = clock_now_ms();
        enum job_stop stop = (enum job_stop)atomic_load(&job->stop);
        if (now >= atomic_load(&job->lease_stop_ms)) {
                atomic_store(&writable(job)->stop, JOB_LEASE_LOST); // for good, even if a renewal is heard of now
                return JOB_LEASE_LOST;
        }
        if (stop == JOB_CANCEL_GRACEFULLY && now >= atomic_load(&job->stop_deadline_ms))
                return JOB_CANCEL_NOW;
        return stop;
}

int job_stop_grace_ms(const struct job *job) {
        enum job_stop stop = job_stopping(job);
        int64_t left = atomic_load(&job->stop_deadline_ms) - clock_now_ms();
        if ((stop != JOB_CANCEL_GRACEFULLY && stop != JOB_SHUTDOWN) || left <= 0)
                return 0;
        return left > INT32_MAX ? INT32_MAX : (int)left;
}

const char *job_effect(const struct job *job, const char *key) {
        const char *reference = NULL;
        pthread_mutex_lock(&job->agent->lock);
        for (const struct effect *effect = job->effects; effect && !reference; effect = effect->next)
                if (!strcmp(effect->key, key))
                        reference = effect->reference;
        pthread_mutex_unlock(&job->agent->lock);
        for (size_t i = job->assign->n_side_effects; !reference && i > 0; i--)
                if (!strcmp(job->assign->side_effects[i - 1]->key, key))
                        reference = job->assign->side_effects[i - 1]->reference;
        return reference;
}

// With the lock. Waits for a change, or a while.
static void wait_for_change(struct job *job, int64_t ms) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += ms / 1000;
        until.tv_nsec += ms % 1000 * 1000000;
        if (until.tv_nsec >= 1000000000) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000;
        }
        pthread_cond_clockwait(&job->changed, &job->agent->lock, CLOCK_MONOTONIC, &until);
}

// With the lock. The core lets the job fail, whatever its kind says of it.
static void fail(struct job *job, const char *reason, const char *message) {
        if (!job->failure) {
                job->failure = reason;
                job->failure_message = must(strdup(message));
        }
        job_stop(job, JOB_CANCEL_NOW, 0);
}

// The disk was full. Waits a little for room; false: it has waited long enough, or the job is to stop.
static bool wait_for_room(struct job *job, int64_t since_ms) {
        bool go_on;
        pthread_mutex_lock(&job->agent->lock);
        if (job_stopping(job) == JOB_GO_ON && clock_now_ms() - since_ms > job->agent->config->full_disk_wait_ms)
                fail(job, "JOURNAL_FULL", "the disk under the agent's state directory is full");
        go_on = job_stopping(job) == JOB_GO_ON;
        if (go_on)
                wait_for_change(job, FULL_DISK_POLL_MS);
        pthread_mutex_unlock(&job->agent->lock);
        return go_on;
}

struct effect *job_add_effect(struct job *job, const char *key, const char *reference) {
        struct effect *effect = must(calloc(1, sizeof *effect));
        *effect = (struct effect){
                .next = job->effects, .key = must(strdup(key)), .reference = must(strdup(reference)), .due = true};
        // What was said of the key before is void, but its text stays: the kind may hold it.
        for (struct effect *old = job->effects; old; old = old->next)
                if (!strcmp(old->key, key)) {
                        old->acked = true;
                        old->due = false;
                }
        job->effects = effect;
        return effect;
}

static bool too_many_effects(struct job *job) {
        size_t count = 0;
        pthread_mutex_lock(&job->agent->lock);
        for (const struct effect *effect = job->effects; effect; effect = effect->next)
                count++;
        if (count >= JOB_EFFECTS_MAX)
                fail(job, "TOO_MANY_EFFECTS", "the task has made more than an agent notes");
        pthread_mutex_unlock(&job->agent->lock);
        return count >= JOB_EFFECTS_MAX;
}

bool job_note_effect(struct job *job, const char *key, const char *reference) {
        const Devopsgenie__V1__SideEffect message = {PROTOBUF_C_MESSAGE_INIT(&devopsgenie__v1__side_effect__descriptor),
                .task = job->assign->task, .attempt = job->assign->attempt, .fence = job->assign->fence,
                .key = unconst(key), .reference = unconst(reference)};
        int64_t begin_ms = clock_now_ms();

        if (too_many_effects(job))
                return false;
        while (!journal_append(job->agent->journal, JOURNAL_EFFECT, message.task, message.attempt, &message.base))
                if (!wait_for_room(job, begin_ms))
                        return false;
        pthread_mutex_lock(&job->agent->lock);
        const struct effect *effect = job_add_effect(job, key, reference);
        client_loop_wake(job->agent->loop);
        while (!effect->acked && job_stopping(job) == JOB_GO_ON)
                wait_for_change(job, WAIT_MS);
        bool good = effect->acked && job_stopping(job) == JOB_GO_ON;
        pthread_mutex_unlock(&job->agent->lock);
        return good;
}

static int64_t log_room(const struct job *job, unsigned index) {
        const struct log_window *window = &job->logs[index].window;
        return job->agent->config->log_spool_bytes - (window->end - window->durable);
}

static unsigned log_index(Devopsgenie__V1__LogStream stream) {
        return stream == DEVOPSGENIE__V1__LOG_STREAM__STDERR ? 1 : 0;
}

size_t job_log_room(const struct job *job, Devopsgenie__V1__LogStream stream) {
        pthread_mutex_lock(&job->agent->lock);
        int64_t room = job->log_unwanted ? LOG_PIECE_MAX : log_room(job, log_index(stream));
        pthread_mutex_unlock(&job->agent->lock);
        return room > 0 ? (size_t)room : 0;
}

static bool log_is_dropped(const struct job *job, unsigned index) {
        return job->log_unwanted || job->logs[index].cut || job_stopping(job) == JOB_LEASE_LOST;
}

// Writes a piece, of at most `size` bytes. How many; 0: it is dropped; -1: the disk is full.
static ssize_t log_piece(struct job *job, unsigned index, const void *data, size_t size) {
        struct log_window *window = &job->logs[index].window;
        ssize_t taken = 0;
        pthread_mutex_lock(&job->agent->lock);
        while (!log_is_dropped(job, index) && job_stopping(job) != JOB_CANCEL_NOW && log_room(job, index) <= 0)
                wait_for_change(job, WAIT_MS);
        int64_t room = log_room(job, index);
        if (!log_is_dropped(job, index) && room > 0) {
                size_t piece = size < LOG_PIECE_MAX ? size : LOG_PIECE_MAX;
                if ((int64_t)piece > room)
                        piece = (size_t)room;
                taken = spool_write(job->logs[index].file, window->end, data, piece) ? (ssize_t)piece : -1;
                if (taken > 0)
                        window->end += taken;
                client_loop_wake(job->agent->loop);
        }
        pthread_mutex_unlock(&job->agent->lock);
        return taken;
}

void job_log(struct job *job, Devopsgenie__V1__LogStream stream, const void *data, size_t size) {
        unsigned index = log_index(stream);
        int64_t full_since_ms = 0;
        size_t done = 0;
        for (ssize_t taken; done < size && (taken = log_piece(job, index, (const char *)data + done, size - done));) {
                if (taken > 0) {
                        done += (size_t)taken;
                        full_since_ms = 0;
                        continue;
                }
                if (!full_since_ms)
                        full_since_ms = clock_now_ms();
                if (!wait_for_room(job, full_since_ms))
                        break;
        }
        if (done == size)
                return;
        pthread_mutex_lock(&job->agent->lock);
        job->logs[index].cut = true;
        pthread_mutex_unlock(&job->agent->lock);
}

void job_logf(struct job *job, const char *format, ...) {
        va_list arguments;
        char *text = NULL;
        va_start(arguments, format);
        int size = vasprintf(&text, format, arguments);
        va_end(arguments);
        if (size < 0)
                return;
        text[size] = '\n'; // in the place of its NUL
        job_log(job, DEVOPSGENIE__V1__LOG_STREAM__STDOUT, text, (size_t)size + 1);
        free(text);
}

void job_progress(struct job *job, int percent, const char *step) {
        pthread_mutex_lock(&job->agent->lock);
        job->percent = percent < 0 ? 0 : percent > 100 ? 100 : percent;
        snprintf(job->step, PROGRESS_STEP, "%s", step);
        utf8_mend(job->step);
        job->progress_due = true;
        client_loop_wake(job->agent->loop);
        pthread_mutex_unlock(&job->agent->lock);
}

void job_succeed(struct job_result *result) { result->status = JOB_SUCCEEDED; }

void job_fail(struct job_result *result, bool permanent, const char *reason, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        free(result->reason);
        free(result->message);
        result->status = JOB_FAILED;
        result->permanent = permanent;
        result->reason = strdup(reason);
        if (vasprintf(&result->message, format, arguments) < 0)
                result->message = NULL;
        va_end(arguments);
}

void job_output(struct job_result *result, const char *name, const char *value) {
        if (!name || !value || result->output_count == sizeof result->outputs / sizeof *result->outputs)
                return;
        char *name_copy = strdup(name), *value_copy = strdup(value);
        if (!name_copy || !value_copy) {
                free(name_copy);
                free(value_copy);
                return;
        }
        result->outputs[result->output_count].name = name_copy;
        result->outputs[result->output_count++].value = value_copy;
}

void job_result_drop(struct job_result *result) {
        free(result->reason);
        free(result->message);
        for (unsigned i = 0; i < result->output_count; i++) {
                free(result->outputs[i].name);
                free(result->outputs[i].value);
        }
        *result = (struct job_result){0};
}
