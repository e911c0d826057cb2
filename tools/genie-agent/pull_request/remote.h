// A job's Git work with the host: what is there, fetching it, pushing.
#pragma once

#include "tools/genie-agent/pull_request/cache.h"
#include "tools/genie-agent/pull_request/git_transport.h"

struct remote {
        git_repository *repository;
        const char *url;
        uint64_t limit_bytes;                 // a fetch of more is given up
        struct git_transport_context context; // with whom it is spoken
        bool broken;                          // the repository in the cache does not read or write as it should
};

// What the host has.
struct remote_heads {
        git_oid base, branch;
        bool has_base, has_branch;
};

// Looks for the two branches and fetches what of them is missing. False: the result has failed, or the job is to stop.
bool remote_fetch(struct remote *remote, const char *base, const char *branch, struct remote_heads *ret_heads,
        struct job_result *result) __attribute__((warn_unused_result));

// Makes the branch on the host, never moves one that is there.
bool remote_push(struct remote *remote, const git_oid *commit, const char *branch, struct job_result *result)
        __attribute__((warn_unused_result));

void remote_drop(struct remote *remote);
