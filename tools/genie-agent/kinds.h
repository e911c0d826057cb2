// The kinds of tasks that this program can do, in one table.
#pragma once

#include "tools/genie-agent/config.h"
#include "tools/genie-agent/job.h"

enum { REFUSAL_SIZE = 200 };

struct kind {
        Devopsgenie__V1__TaskKind kind;
        Devopsgenie__V1__TaskPayload__KindCase payload;
        // A process that was killed left it half done: run it again, with what it noted. Else it has failed.
        bool resumable;
        // How many at a time; 0: the agent does not offer it.
        long (*slots)(const struct agent_config *config);
        // Whether such a task can be done. NULL, or the reason of a permanent TaskReject, with a text for people.
        const char *(*refusal)(const struct agent_config *config, const Devopsgenie__V1__TaskPayload *payload,
                char ret_message[static REFUSAL_SIZE]);
        // Does it; on a thread of its own.
        void (*run)(struct job *job, const struct agent_config *config, struct job_result *ret_result);
};

extern const struct kind kinds[];
extern const size_t kind_count;

const struct kind *kind_find(Devopsgenie__V1__TaskKind kind); // NULL: there is none
