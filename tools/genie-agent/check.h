// `genie-agent check`: tries what `run` needs and says in a line each what is well, or what is wrong and what to do.
#pragma once

#include "tools/genie-agent/config.h"

// The exit status: 0 where all is well, else 1.
int check_all(const struct agent_config *config);
