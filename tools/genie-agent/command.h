// Tasks of the kind COMMAND: a command of the allow-list, run without a shell, with a minimal environment, in a process
// group of its own that does not outlive the agent, the attempt's lease or the command itself (keeper.h).
#pragma once

#include "tools/genie-agent/kinds.h"

// Of struct kind. Reasons: COMMAND_NOT_ALLOWED, ARGUMENT_NOT_ALLOWED.
const char *command_refusal(const struct agent_config *config, const Devopsgenie__V1__TaskPayload *payload,
        char ret_message[static REFUSAL_SIZE]);

// Of struct kind. Output: exit_status, which is 128 and the signal's number where one ended it. Reasons where it fails:
//
//     permanent      COMMAND_NOT_ALLOWED, ARGUMENT_NOT_ALLOWED, COMMAND_NOT_STARTED, COMMAND_FAILED, TIME_LIMIT
//     may pass       AGENT_RESTARTED
void command_run(struct job *job, const struct agent_config *config, struct job_result *ret_result);
