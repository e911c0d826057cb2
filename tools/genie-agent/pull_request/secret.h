// The token for a git host, read anew for each job: it may have been rotated.
#pragma once

#include "tools/genie-agent/pull_request/pull_request.h"

enum { SECRET_MAX = 4096 };

// From the host's file or variable, without the white space around it. The caller wipes it, also on false.
bool secret_read(const struct git_host *host, char ret_token[SECRET_MAX + 1], struct job_result *result)
        __attribute__((warn_unused_result));
