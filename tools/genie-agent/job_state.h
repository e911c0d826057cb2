// The states of an attempt on this agent. job_state.dot is a drawing of the table; a test compares them.
#pragma once

#include <stdbool.h>

enum job_state {
        STATE_OFFERED,   // TaskAck was sent, or will be; waits for StartGrant
        STATE_RECOVERED, // a process before this one began it, or this one leaves it to the next
        STATE_RUNNING,   // its thread runs
        STATE_LOST,      // its thread runs, but it is no longer ours
        STATE_ENDED,     // its Result waits for ResultAck
        STATE_REPORTED,  // its Result has come; the rest of its log is on the way
        STATE_FORGOTTEN, // nothing of it is left but its memory
        STATES,
};

const char *job_state_name(enum job_state state);
bool job_state_may_follow(enum job_state from, enum job_state to);
