// genie-agent: keeps a stream to the platform, takes tasks, runs each on a thread of its own, and loses nothing of
// them.
//
// One thread has the loop: it owns the streams and all timers, and moves the jobs from state to state. Jobs' threads
// meet it under one lock. All times are clock_now_ms: they pass while the machine sleeps, and nobody can set them.
#pragma once

#include "tools/genie-agent/config.h"

// Runs until SIGTERM or SIGINT; a second one ends at once. The exit status: 0 after an orderly end, 1 where it cannot
// begin, which was said on standard error.
int agent_run(const struct agent_config *config);
