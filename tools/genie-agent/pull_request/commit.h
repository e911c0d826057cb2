// The one commit of a task. It is the same, byte for byte, whenever the task is done again on the same base: its time
// is that of the first attempt.
#pragma once

#include "tools/genie-agent/pull_request/http.h"

#include <git2.h>

// Whether a commit's message ends with the trailer of the task's identity, `DevOps-Genie-Task: ORGANIZATION/KEY`.
bool commit_is_ours(git_repository *repository, const git_oid *commit, const char *identity);

// Makes it, signed where a key is configured (ssh-keygen, as git does with gpg.format=ssh).
bool commit_make(struct http *http, const struct pull_request_settings *settings, git_repository *repository,
        const char *identity, const git_oid *parent, const git_oid *tree, int64_t time, git_oid *ret_commit,
        struct job_result *result) __attribute__((warn_unused_result));
