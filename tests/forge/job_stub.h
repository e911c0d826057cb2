// job.h without an agent: log and journal in files, stops by signals. What a task does outside is not touched.
//
// SIGUSR1 cancels now, SIGUSR2 gracefully, SIGHUP takes the lease, SIGTERM shuts down. A trigger is "note KEY N
// before", "note KEY N after" (the N-th note of that key in this process) or "step NAME"; at it the process kills
// itself, as kill -9 would, or stops.
#pragma once

#include "tools/genie-agent/job.h"

#include <jansson.h>

// From the driver's JSON: task, idempotency_key, attempt, log, effects (files), crash_at, stop_at, stop, grace_ms.
struct job *job_stub_make(const json_t *settings, const Devopsgenie__V1__TaskPayload *payload);
