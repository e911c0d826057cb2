// The kinds of the agent that tests/agent drives: COMMAND as it is, and in the place of PULL_REQUEST a kind whose task
// says in its body, a line each, what to do: note effects, write logs, wait, fail. So every rule of the core can be
// tried without a git host.
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/command.h"
#include "tools/genie-agent/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

enum { WORD_SIZE = 300 };

// In place of write(2), by the linker: the agent is killed when it has just said SCRIPTED_LAST_WORDS, and does no more.
ssize_t __real_write(int, const void *, size_t);
ssize_t __wrap_write(int, const void *, size_t);

ssize_t __wrap_write(int file, const void *data, size_t size) {
        const char *last_words = getenv("SCRIPTED_LAST_WORDS");
        ssize_t written = __real_write(file, data, size);
        if (file == STDERR_FILENO && last_words && memmem(data, size, last_words, strlen(last_words)))
                raise(SIGKILL);
        return written;
}

static long command_slots(const struct agent_config *config) { return config->command_slots; }
static long scripted_slots(const struct agent_config *config) { return config->pull_request_slots; }

static const char *scripted_refusal(const struct agent_config *, const Devopsgenie__V1__TaskPayload *payload,
        char ret_message[static REFUSAL_SIZE]) {
        snprintf(ret_message, REFUSAL_SIZE, "the script says so");
        return strcmp(payload->pull_request->title, "refuse") ? NULL : "REFUSED";
}

static void append(const struct job *job, const char *path) {
        char line[WORD_SIZE];
        int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        int size = snprintf(
                line, sizeof line, "%s %d %lld\n", job_task(job), job_attempt(job), (long long)clock_now_ms());
        if (file < 0 || write(file, line, (size_t)size) != size)
                abort();
        close(file);
}

static void pause_ms(const struct job *job, int ms) {
        struct pollfd polled = {.fd = job_stop_descriptor(job), .events = POLLIN};
        poll(&polled, 1, ms);
}

static void log_bytes(struct job *job, Devopsgenie__V1__LogStream stream, long count) {
        uint8_t piece[1000];
        for (long at = 0; at < count; at += (long)sizeof piece) {
                long size = count - at < (long)sizeof piece ? count - at : (long)sizeof piece;
                for (long i = 0; i < size; i++)
                        piece[i] = (uint8_t)((at + i) * 31 % 251);
                job_log(job, stream, piece, (size_t)size);
        }
}

// Does a line. False: it was told to stop, or has failed.
static bool step(struct job *job, const char *verb, const char *first, const char *second, struct job_result *result) {
        if (!strcmp(verb, "log")) {
                job_logf(job, "%s", first);
        } else if (!strcmp(verb, "bytes")) {
                log_bytes(job, DEVOPSGENIE__V1__LOG_STREAM__STDOUT, strtol(first, NULL, 10));
        } else if (!strcmp(verb, "error-bytes")) {
                log_bytes(job, DEVOPSGENIE__V1__LOG_STREAM__STDERR, strtol(first, NULL, 10));
        } else if (!strcmp(verb, "effect")) { // looks before it makes
                return job_effect(job, first) || job_note_effect(job, first, second);
        } else if (!strcmp(verb, "stamp")) { // the same, with a value that no other run has
                char stamp[UUID_SIZE];
                random_uuid(stamp);
                return job_effect(job, first) || job_note_effect(job, first, stamp);
        } else if (!strcmp(verb, "note")) {
                return job_note_effect(job, first, second);
        } else if (!strcmp(verb, "touch")) {
                append(job, first);
        } else if (!strcmp(verb, "await")) {
                while (access(first, F_OK) != 0 && job_stopping(job) == JOB_GO_ON)
                        pause_ms(job, 10);
        } else if (!strcmp(verb, "closing")) { // waits until it is to stop, and has a last word
                while (job_stopping(job) == JOB_GO_ON)
                        pause_ms(job, 1000);
                job_logf(job, "%s", first);
        } else if (!strcmp(verb, "stubborn")) {
                while (access(first, F_OK) != 0)
                        usleep(10000);
        } else if (!strcmp(verb, "note-late")) { // without a look whether it is to stop, and then it stays
                while (access(first, F_OK) != 0)
                        usleep(10000);
                bool noted = job_note_effect(job, "late", "v");
                while (access(second, F_OK) != 0)
                        usleep(10000);
                return noted;
        } else if (!strcmp(verb, "tick")) {
                while (job_stopping(job) == JOB_GO_ON) {
                        append(job, first);
                        pause_ms(job, 20);
                }
        } else if (!strcmp(verb, "progress")) {
                job_progress(job, (int)strtol(first, NULL, 10), second);
        } else if (!strcmp(verb, "output")) {
                job_output(result, first, second);
        } else if (!strcmp(verb, "fail")) {
                job_fail(result, /* permanent= */ false, first, "%s", second);
                return false;
        }
        return true;
}

static void scripted_run(struct job *job, const struct agent_config *, struct job_result *ret_result) {
        char *script = must(strdup(job_payload(job)->pull_request->body)), *state = NULL;
        bool good = true;
        job_succeed(ret_result);
        for (char *line = strtok_r(script, "\n", &state); line && good; line = strtok_r(NULL, "\n", &state)) {
                char verb[WORD_SIZE] = "", first[WORD_SIZE] = "", second[WORD_SIZE] = "";
                if (job_stopping(job) == JOB_GO_ON && sscanf(line, "%299s %299s %299s", verb, first, second) > 0)
                        good = step(job, verb, first, second, ret_result);
                else
                        good = false;
        }
        free(script);
        enum job_stop stop = job_stopping(job);
        if (stop == JOB_LEASE_LOST || stop == JOB_SHUTDOWN)
                ret_result->status = JOB_UNFINISHED;
        else if (stop != JOB_GO_ON && !strcmp(job_payload(job)->pull_request->title, "too late"))
                job_succeed(ret_result); // it was done before it looked
        else if (stop != JOB_GO_ON)
                ret_result->status = JOB_CANCELLED;
}

const struct kind kinds[] = {
        {DEVOPSGENIE__V1__TASK_KIND__COMMAND, DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_COMMAND, /* resumable= */ false,
                command_slots, command_refusal, command_run},
        {DEVOPSGENIE__V1__TASK_KIND__PULL_REQUEST, DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_PULL_REQUEST,
                /* resumable= */ true, scripted_slots, scripted_refusal, scripted_run},
};
const size_t kind_count = sizeof kinds / sizeof *kinds;
