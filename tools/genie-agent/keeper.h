// A process between the agent and a command, which ends the command's whole process group when the agent says so, when
// the agent is gone, when the command itself has ended, and when the attempt's lease has run out: also while the agent
// is stopped or hangs, since then another attempt may be running elsewhere.
//
// It is a fork that executes nothing but system calls. What a command leaves its own process group for is not reached.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct keeper_command {
        char *const *argv, *const *environment; // NULL-terminated
        const char *directory;
        int64_t kill_at_ms; // clock_now_ms
};

// What the descriptor `report` gives: how it ended.
struct keeper_report {
        enum { KEEPER_NOT_STARTED, KEEPER_ENDED } kind;
        int value; // errno; as waitpid gives it
};

struct keeper {
        pid_t process;
        int control, report; // the agent's ends
        int output, errors;  // of the command's standard output and error, non-blocking
};

// False with errno.
bool keeper_start(const struct keeper_command *command, struct keeper *ret_keeper) __attribute__((warn_unused_result));

// From now on the command may live so long; signal 0: none is sent to its process group.
void keeper_tell(const struct keeper *keeper, int64_t kill_at_ms, int signal);

// Ends the command where it lives, and reaps the keeper.
void keeper_drop(struct keeper *keeper);
