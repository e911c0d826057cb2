#include "tests/forge/job_stub.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 10 * 1000 };

struct job {
        const json_t *settings;
        const Devopsgenie__V1__TaskPayload *payload;
        json_t *effects, *counts;
        FILE *log;
        int64_t stop_ms;
};

static volatile sig_atomic_t stop_now = JOB_GO_ON;
static int stop_event;

static int64_t now_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void stop(enum job_stop how) {
        uint64_t one = 1;
        stop_now = (sig_atomic_t)how;
        if (write(stop_event, &one, sizeof one) < 0)
                _exit(2);
}

static void on_signal(int number) {
        stop(number == SIGUSR1      ? JOB_CANCEL_NOW
                : number == SIGUSR2 ? JOB_CANCEL_GRACEFULLY
                : number == SIGHUP  ? JOB_LEASE_LOST
                                    : JOB_SHUTDOWN);
}

static const char *setting(const struct job *job, const char *name) {
        return json_string_value(json_object_get(job->settings, name));
}

static void trigger(const char *what, const struct job *job) {
        static const char *const names[] = {[JOB_CANCEL_GRACEFULLY] = "CANCEL_GRACEFULLY",
                [JOB_CANCEL_NOW] = "CANCEL_NOW",
                [JOB_LEASE_LOST] = "LEASE_LOST",
                [JOB_SHUTDOWN] = "SHUTDOWN"};
        const char *crash_at = setting(job, "crash_at"), *stop_at = setting(job, "stop_at");
        if (crash_at && strcmp(crash_at, what) == 0)
                raise(SIGKILL);
        for (int how = JOB_CANCEL_GRACEFULLY; stop_at && strcmp(stop_at, what) == 0 && how <= JOB_SHUTDOWN; how++)
                if (strcmp(names[how], setting(job, "stop")) == 0)
                        stop((enum job_stop)how);
}

struct job *job_stub_make(const json_t *settings, const Devopsgenie__V1__TaskPayload *payload) {
        static struct job job;
        job = (struct job){.settings = settings, .payload = payload, .counts = json_object()};
        struct sigaction action = {.sa_handler = on_signal};
        stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        for (int i = 0; i < 4; i++)
                sigaction((int[]){SIGUSR1, SIGUSR2, SIGHUP, SIGTERM}[i], &action, NULL);
        job.effects = json_load_file(setting(&job, "effects"), 0, NULL);
        if (!job.effects)
                job.effects = json_object();
        job.log = fopen(setting(&job, "log"), "a");
        return job.log ? &job : NULL;
}

const char *job_task(const struct job *job) { return setting(job, "task"); }
int job_attempt(const struct job *job) { return (int)json_integer_value(json_object_get(job->settings, "attempt")); }
const char *job_idempotency_key(const struct job *job) { return setting(job, "idempotency_key"); }
const Devopsgenie__V1__TaskPayload *job_payload(const struct job *job) { return job->payload; }
const char *job_effect(const struct job *job, const char *key) {
        return json_string_value(json_object_get(job->effects, key));
}

bool job_note_effect(struct job *job, const char *key, const char *reference) {
        char what[200];
        json_int_t count = json_integer_value(json_object_get(job->counts, key)) + 1;
        json_object_set_new(job->counts, key, json_integer(count));
        snprintf(what, sizeof what, "note %s %lld before", key, (long long)count);
        trigger(what, job);
        if (stop_now != JOB_GO_ON)
                return false;
        json_object_set_new(job->effects, key, json_string(reference));
        if (json_dump_file(job->effects, setting(job, "effects"), 0) != 0)
                abort();
        snprintf(what, sizeof what, "note %s %lld after", key, (long long)count);
        trigger(what, job);
        return true;
}

void job_log(struct job *job, Devopsgenie__V1__LogStream stream, const void *data, size_t size) {
        (void)stream;
        fwrite(data, 1, size, job->log);
        fflush(job->log);
}

void job_logf(struct job *job, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        vfprintf(job->log, format, arguments);
        va_end(arguments);
        fputc('\n', job->log);
        fflush(job->log);
}

void job_progress(struct job *job, int percent, const char *step) {
        char what[200];
        (void)percent;
        snprintf(what, sizeof what, "step %s", step);
        trigger(what, job);
}

enum job_stop job_stopping(const struct job *job) {
        (void)job;
        return (enum job_stop)stop_now;
}

int job_stop_descriptor(const struct job *job) {
        (void)job;
        return stop_event;
}

int job_stop_grace_ms(const struct job *job) {
        static int64_t since;
        const json_t *grace = json_object_get(job->settings, "grace_ms");
        if (stop_now == JOB_GO_ON)
                return 0;
        since = since ? since : now_ms();
        int64_t left = since + (grace ? json_integer_value(grace) : GRACE_MS) - now_ms();
        return left > 0 ? (int)left : 0;
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
                abort();
        va_end(arguments);
}

void job_output(struct job_result *result, const char *name, const char *value) {
        result->outputs[result->output_count].name = strdup(name);
        result->outputs[result->output_count++].value = strdup(value);
}

void job_result_drop(struct job_result *result) {
        free(result->reason);
        free(result->message);
        for (unsigned i = 0; i < result->output_count; i++) {
                free(result->outputs[i].name);
                free(result->outputs[i].value);
        }
        *result = (struct job_result){.reason = NULL};
}
