#include "tools/genie-agent/keeper.h"

#include "tools/genie-agent/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct order {
        int64_t kill_at_ms;
        int signal;
};

// The keeper's own descriptors, from which on all others are closed.
enum { CONTROL = 3, REPORT = 4, FIRST_CLOSED = 5 };

// No handlers run that libraries have for forks; the child calls none of them. ThreadSanitizer does not know _Fork: its
// own locks could stay locked in the child for ever.
static pid_t fork_bare(void) {
#ifdef __SANITIZE_THREAD__
        return fork();
#else
        return _Fork();
#endif
}

struct pipes {
        int control[2], report[2], output[2], errors[2], null;
};

static void report(int to, int kind, int value) {
        const struct keeper_report said = {.kind = (unsigned)kind, .value = value};
        if (write(to, &said, sizeof said) < 0)
                _exit(1); // the agent is gone
}

// In the command's process, up to its exec. What the agent, or who has started it, ignores or blocks, it does not.
static void __attribute__((noreturn))
become(const struct keeper_command *command, const struct pipes *pipes, pid_t keeper) {
        sigset_t none;
        sigemptyset(&none);
        for (int number = 1; number < NSIG; number++)
                signal(number, SIG_DFL); // fails for those that cannot be ignored
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == keeper && dup2(pipes->null, 0) >= 0 &&
                dup2(pipes->output[1], 1) >= 0 && dup2(pipes->errors[1], 2) >= 0 && chdir(command->directory) == 0 &&
                syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
                execve(command->argv[0], command->argv, command->environment);
        report(pipes->report[1], KEEPER_NOT_STARTED, errno);
        _exit(127);
}

// Waits until the command has ended; its status. Its group is ended before the process is reaped, while the group's
// number is still its own.
static int keep(pid_t command, int64_t kill_at_ms) {
        struct pollfd polled[] = {
                {.fd = CONTROL, .events = POLLIN}, {.fd = (int)syscall(SYS_pidfd_open, command, 0), .events = POLLIN}};
        int status = 0;
        for (;;) {
                int64_t left = kill_at_ms - clock_now_ms();
                if (left <= 0) {
                        kill(-command, SIGKILL);
                        left = INT_MAX;
                }
                if (poll(polled, 2, left > INT_MAX ? INT_MAX : (int)left) < 0 && errno != EINTR)
                        break;
                if (polled[1].revents)
                        break;
                struct order order;
                if (!polled[0].revents)
                        continue;
                if (read(CONTROL, &order, sizeof order) == sizeof order) {
                        kill_at_ms = order.kill_at_ms;
                        if (order.signal)
                                kill(-command, order.signal);
                } else { // the agent has let go, or is gone
                        kill(-command, SIGKILL);
                        polled[0].fd = -1;
                }
        }
        siginfo_t info;
        waitid(P_PID, (id_t)command, &info, WEXITED | WNOWAIT);
        kill(-command, SIGKILL);
        waitpid(command, &status, 0);
        return status;
}

static void __attribute__((noreturn)) be_keeper(const struct keeper_command *command, struct pipes *pipes) {
        pid_t self = getpid();
        setpgid(0, 0); // a terminal's Ctrl-C is for the agent
        pid_t child = fork_bare();
        if (child == 0)
                become(command, pipes, self);
        int fork_error = errno;
        setpgid(child, child); // whoever comes first
        // Through copies above all of them, since the one's place may be the other.
        int control = fcntl(pipes->control[0], F_DUPFD, 64), reports = fcntl(pipes->report[1], F_DUPFD, 64);
        if (dup2(control, CONTROL) < 0 || dup2(reports, REPORT) < 0)
                _exit(1);
        for (int i = 0; i < 3; i++)
                close(i);
        syscall(SYS_close_range, FIRST_CLOSED, ~0U, 0); // the agent's connections, files and locks
        if (child < 0)
                report(REPORT, KEEPER_NOT_STARTED, fork_error);
        else
                report(REPORT, KEEPER_ENDED, keep(child, command->kill_at_ms));
        _exit(0);
}

static void close_pipe(int *pipe) {
        for (int i = 0; i < 2; i++)
                if (pipe[i] >= 0)
                        close(pipe[i]);
}

static bool make_pipes(struct pipes *pipes) {
        *pipes = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}, -1};
        pipes->null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return pipes->null >= 0 && pipe2(pipes->control, O_CLOEXEC) == 0 && pipe2(pipes->report, O_CLOEXEC) == 0 &&
               pipe2(pipes->output, O_CLOEXEC) == 0 && pipe2(pipes->errors, O_CLOEXEC) == 0 &&
               fcntl(pipes->output[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pipes->errors[0], F_SETFL, O_NONBLOCK) == 0;
}

bool keeper_start(const struct keeper_command *command, struct keeper *ret_keeper) {
        struct pipes pipes;
        pid_t process = make_pipes(&pipes) ? fork_bare() : -1;
        if (process == 0)
                be_keeper(command, &pipes);
        int error = errno;
        if (process > 0) {
                *ret_keeper = (struct keeper){
                        process, pipes.control[1], pipes.report[0], pipes.output[0], pipes.errors[0]};
                pipes.control[1] = pipes.report[0] = pipes.output[0] = pipes.errors[0] = -1;
        }
        close_pipe(pipes.control);
        close_pipe(pipes.report);
        close_pipe(pipes.output);
        close_pipe(pipes.errors);
        if (pipes.null >= 0)
                close(pipes.null);
        errno = error;
        return process > 0;
}

void keeper_tell(const struct keeper *keeper, int64_t kill_at_ms, int signal) {
        const struct order order = {.kill_at_ms = kill_at_ms, .signal = signal};
        if (write(keeper->control, &order, sizeof order) < 0)
                return; // it has ended; its report is there
}

void keeper_drop(struct keeper *keeper) {
        close(keeper->control);
        while (waitpid(keeper->process, NULL, 0) < 0 && errno == EINTR)
                ;
        close(keeper->report);
        close(keeper->output);
        close(keeper->errors);
}
