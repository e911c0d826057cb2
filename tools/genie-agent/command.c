#include "tools/genie-agent/command.h"

#include "server/utf8.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/job_private.h"
#include "tools/genie-agent/keeper.h"
#include "tools/genie-agent/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
        TICK_MS = 500,              // between two looks at the lease, the time and the room in the log
        TIME_LIMIT_GRACE_MS = 5000, // from SIGTERM to SIGKILL
        DEFAULT_TIME_LIMIT_MS = 600000,
        READ_SIZE = 64 << 10,
};

const char *command_refusal(const struct agent_config *config, const Devopsgenie__V1__TaskPayload *payload,
        char ret_message[static REFUSAL_SIZE]) {
        const Devopsgenie__V1__Command *task = payload->command;
        const struct allowed_command *command = allow_list_find(&config->commands, task->name);
        int wrong = command ? allow_list_match(command, task->arguments, task->n_arguments) : -1;
        if (command && wrong < 0)
                return NULL;
        if (command)
                snprintf(ret_message, REFUSAL_SIZE,
                        "argument %d of %.100s is missing, or not one that this agent's allow-list permits", wrong + 1,
                        command->name);
        else
                snprintf(ret_message, REFUSAL_SIZE, "the command %.100s is not in this agent's allow-list", task->name);
        utf8_mend(ret_message);
        return command ? "ARGUMENT_NOT_ALLOWED" : "COMMAND_NOT_ALLOWED";
}

struct run {
        struct job *job;
        struct keeper keeper;
        int64_t time_limit_ms, kill_at_ms;       // when; kill_at: as the keeper knows it
        enum { UNTOUCHED, ASKED, KILLED } force; // what was done to end it
        bool over_time, reported;
        struct keeper_report report;
};

static char **make_argv(const struct allowed_command *command, const Devopsgenie__V1__Command *task) {
        char **argv = must(calloc(command->argv_count + task->n_arguments + 1, sizeof *argv));
        for (size_t i = 0; i < command->argv_count; i++)
                argv[i] = unconst(command->argv[i]);
        for (size_t i = 0; i < task->n_arguments; i++)
                argv[command->argv_count + i] = task->arguments[i];
        return argv;
}

static char **make_environment(const struct allowed_command *command) {
        char **environment = must(calloc(command->environment_count + 1, sizeof *environment));
        size_t count = 0;
        for (size_t i = 0; i < command->environment_count; i++) {
                const char *value = getenv(command->environment[i]);
                if (value && asprintf(&environment[count], "%s=%s", command->environment[i], value) >= 0)
                        count++;
        }
        environment[count] = NULL;
        return environment;
}

// Passes on what has come; false: nothing will come any more.
static bool pass_on(struct job *job, int from, Devopsgenie__V1__LogStream stream, size_t room) {
        char data[READ_SIZE];
        ssize_t size = read(from, data, room < sizeof data ? room : sizeof data);
        if (size > 0)
                job_log(job, stream, data, (size_t)size);
        return size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR));
}

static void use_force(struct run *run, int number) {
        keeper_tell(&run->keeper, run->kill_at_ms, number);
        run->force = number == SIGKILL ? KILLED : ASKED;
}

// Keeps the keeper's knowledge of the lease, and ends the command when it is time.
static void look(struct run *run) {
        enum job_stop stop = job_stopping(run->job);
        int64_t now = clock_now_ms(), lease_stop_ms = atomic_load(&run->job->lease_stop_ms);
        bool over_time = now >= run->time_limit_ms;
        bool kill = stop == JOB_CANCEL_NOW || stop == JOB_LEASE_LOST ||
                    (stop == JOB_SHUTDOWN && job_stop_grace_ms(run->job) == 0) ||
                    now >= run->time_limit_ms + TIME_LIMIT_GRACE_MS;
        if (lease_stop_ms != run->kill_at_ms && stop != JOB_LEASE_LOST) {
                run->kill_at_ms = lease_stop_ms;
                keeper_tell(&run->keeper, lease_stop_ms, 0);
        }
        if (over_time && run->force == UNTOUCHED && stop == JOB_GO_ON)
                run->over_time = true;
        if (kill && run->force != KILLED)
                use_force(run, SIGKILL);
        else if ((stop != JOB_GO_ON || over_time) && run->force == UNTOUCHED)
                use_force(run, SIGTERM);
}

// One turn: waits for output, the end, or a reason to stop.
static void turn(struct run *run, int *output, int *errors) {
        size_t output_room = job_log_room(run->job, DEVOPSGENIE__V1__LOG_STREAM__STDOUT),
               errors_room = job_log_room(run->job, DEVOPSGENIE__V1__LOG_STREAM__STDERR);
        // A negative descriptor is passed over: what has ended, has no room, or has been heeded.
        struct pollfd polled[] = {
                {.fd = run->keeper.report, .events = POLLIN},
                {.fd = run->force == UNTOUCHED ? job_stop_descriptor(run->job) : -1, .events = POLLIN},
                {.fd = output_room ? *output : -1, .events = POLLIN},
                {.fd = errors_room ? *errors : -1, .events = POLLIN},
        };
        int64_t left = run->time_limit_ms - clock_now_ms();
        int timeout = left > 0 && left < TICK_MS ? (int)left : TICK_MS;
        if (poll(polled, sizeof polled / sizeof *polled, timeout) < 0)
                return;
        if (polled[2].revents && !pass_on(run->job, *output, DEVOPSGENIE__V1__LOG_STREAM__STDOUT, output_room))
                *output = -1;
        if (polled[3].revents && !pass_on(run->job, *errors, DEVOPSGENIE__V1__LOG_STREAM__STDERR, errors_room))
                *errors = -1;
        if (polled[0].revents)
                run->reported = read(run->keeper.report, &run->report, sizeof run->report) == sizeof run->report ||
                                polled[0].revents & POLLHUP;
}

// What the command had written before it ended is in the pipes; what is more than they hold is another process's, which
// the command has let out of its group.
static void drain(struct job *job, int from, Devopsgenie__V1__LogStream stream) {
        char data[READ_SIZE];
        ssize_t size;
        for (int left = from >= 0 ? fcntl(from, F_GETPIPE_SZ) : 0;
                left > 0 && (size = read(from, data, left < READ_SIZE ? (size_t)left : READ_SIZE)) > 0;
                left -= (int)size)
                job_log(job, stream, data, (size_t)size);
}

static void watch(struct run *run) {
        int output = run->keeper.output, errors = run->keeper.errors;
        run->report = (struct keeper_report){KEEPER_ENDED, SIGKILL}; // where the keeper itself was killed
        while (!run->reported) {
                turn(run, &output, &errors);
                look(run);
        }
        drain(run->job, output, DEVOPSGENIE__V1__LOG_STREAM__STDOUT);
        drain(run->job, errors, DEVOPSGENIE__V1__LOG_STREAM__STDERR);
}

static void conclude(const struct run *run, const char *name, struct job_result *result) {
        char text[16];
        enum job_stop stop = job_stopping(run->job);
        int status = run->report.value;
        if (run->report.kind == KEEPER_NOT_STARTED) {
                job_fail(result, /* permanent= */ true, "COMMAND_NOT_STARTED", "%s cannot be started: %s", name,
                        strerror(status));
                return;
        }
        int exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        snprintf(text, sizeof text, "%d", exit_status);
        if (stop == JOB_LEASE_LOST) {
                result->status = JOB_UNFINISHED;
        } else if (run->over_time) {
                job_fail(result, /* permanent= */ true, "TIME_LIMIT", "%s took longer than its time limit", name);
                job_output(result, "exit_status", text);
        } else if (run->force != UNTOUCHED && stop == JOB_SHUTDOWN) {
                job_fail(result, /* permanent= */ false, "AGENT_RESTARTED", "the agent was told to end while %s ran",
                        name);
        } else if (run->force != UNTOUCHED) {
                result->status = JOB_CANCELLED;
                job_output(result, "exit_status", text);
        } else {
                if (exit_status == 0)
                        job_succeed(result);
                else
                        job_fail(result, /* permanent= */ true, "COMMAND_FAILED", "%s ended with status %d", name,
                                exit_status);
                job_output(result, "exit_status", text);
        }
}

static int64_t time_limit_ms(const Devopsgenie__V1__Command *task) {
        const Google__Protobuf__Duration *limit = task->time_limit;
        if (!limit || limit->seconds < 0 || limit->seconds > 86400)
                return DEFAULT_TIME_LIMIT_MS;
        return limit->seconds * 1000 + limit->nanos / 1000000;
}

void command_run(struct job *job, const struct agent_config *config, struct job_result *ret_result) {
        const Devopsgenie__V1__Command *task = job_payload(job)->command;
        char message[REFUSAL_SIZE];
        const char *reason = command_refusal(config, job_payload(job), message);
        if (reason) { // the allow-list has changed since the offer was taken
                job_fail(ret_result, /* permanent= */ true, reason, "%s", message);
                return;
        }
        const struct allowed_command *command = allow_list_find(&config->commands, task->name);
        struct run run = {.job = job,
                .kill_at_ms = atomic_load(&job->lease_stop_ms),
                .time_limit_ms = clock_now_ms() + time_limit_ms(task)};
        char **argv = make_argv(command, task), **environment = make_environment(command);
        const struct keeper_command kept = {argv, environment, command->directory, run.kill_at_ms};
        enum job_stop stop = job_stopping(job);
        if (stop != JOB_GO_ON) { // before anything was done
                ret_result->status = stop == JOB_LEASE_LOST || stop == JOB_SHUTDOWN ? JOB_UNFINISHED : JOB_CANCELLED;
        } else if (keeper_start(&kept, &run.keeper)) {
                watch(&run);
                keeper_drop(&run.keeper);
                conclude(&run, command->name, ret_result);
        } else {
                job_fail(ret_result, /* permanent= */ false, "AGENT_OVERLOADED", "%s cannot be started: %s",
                        command->name, strerror(errno));
        }
        for (char **each = environment; *each; each++) {
                explicit_bzero(*each, strlen(*each));
                free(*each);
        }
        free(environment);
        free(argv);
}
