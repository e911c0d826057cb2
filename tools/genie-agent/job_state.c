#include "tools/genie-agent/job_state.h"

#define TO(state) (1U << STATE_##state)

static const struct {
        const char *name;
        unsigned next;
} states[STATES] = {
        [STATE_OFFERED] = {"OFFERED", TO(RUNNING) | TO(ENDED) | TO(FORGOTTEN)},
        [STATE_RECOVERED] = {"RECOVERED", TO(RUNNING) | TO(ENDED) | TO(REPORTED) | TO(FORGOTTEN)},
        [STATE_RUNNING] = {"RUNNING", TO(RECOVERED) | TO(LOST) | TO(ENDED)},
        [STATE_LOST] = {"LOST", TO(FORGOTTEN)},
        [STATE_ENDED] = {"ENDED", TO(REPORTED) | TO(FORGOTTEN)},
        [STATE_REPORTED] = {"REPORTED", TO(FORGOTTEN)},
        [STATE_FORGOTTEN] = {"FORGOTTEN", 0},
};

const char *job_state_name(enum job_state state) { return states[state].name; }

bool job_state_may_follow(enum job_state from, enum job_state to) { return states[from].next >> to & 1; }
