#include "tools/genie-agent/kinds.h"

#include "tools/genie-agent/command.h"

static long command_slots(const struct agent_config *config) {
        return config->commands.count ? config->command_slots : 0;
}

#ifdef GENIE_PULL_REQUEST
static long pull_request_slots(const struct agent_config *config) {
        return config->pull_request.host_count ? config->pull_request_slots : 0;
}

// What is wrong with a task is found by its job, which can say it in the log.
static const char *pull_request_refusal(
        const struct agent_config *, const Devopsgenie__V1__TaskPayload *, char[static REFUSAL_SIZE]) {
        return NULL;
}

static void run_pull_request(struct job *job, const struct agent_config *config, struct job_result *ret_result) {
        pull_request_run(job, &config->pull_request, ret_result);
}
#endif

const struct kind kinds[] = {
        {DEVOPSGENIE__V1__TASK_KIND__COMMAND, DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_COMMAND, /* resumable= */ false,
                command_slots, command_refusal, command_run},
#ifdef GENIE_PULL_REQUEST
        {DEVOPSGENIE__V1__TASK_KIND__PULL_REQUEST, DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_PULL_REQUEST,
                /* resumable= */ true, pull_request_slots, pull_request_refusal, run_pull_request},
#endif
};
const size_t kind_count = sizeof kinds / sizeof *kinds;
