// Asks a git host who the token belongs to; helps check.c.
#pragma once

#include "tools/genie-agent/config.h"

struct git_host_finding {
        char text[400];
        bool has_date;    // the host said what time it is
        long long skew_s; // of this machine's clock: positive where it is ahead
};

bool check_git_host(const struct git_host *host, struct git_host_finding *ret_finding);
