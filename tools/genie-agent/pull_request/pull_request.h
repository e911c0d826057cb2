// Tasks of the kind PULL_REQUEST: a branch with one commit on it, and a pull request (GitLab: merge request) for it.
//
// Git runs on libgit2, in a cache of bare repositories and without a work tree; git and the REST APIs of GitHub, GitLab
// and Gitea/Forgejo both go through libcurl (http.h). Nothing is made twice, whatever happens to the agent: branch and
// commit derive from the task, each step looks before it makes, and notes in the job's journal what it is about to
// make.
//
// Tokens are read when a job begins and wiped when it ends. They are in no log, argument list, error, effect, URL or
// file of ours; curl and OpenSSL keep copies in this process's memory for as long as a connection lives.
//
// Any number of threads may run a job each, in a process that ignores SIGPIPE. pull_request_run never returns before
// all that it started has ended.
#pragma once

#include "tools/genie-agent/job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A task's identity, ORGANIZATION/KEY, in bytes: a slug, and 100 characters of UTF-8.
enum { TASK_IDENTITY_MAX = 200 + 1 + 400 };

enum forge_kind { FORGE_GITHUB, FORGE_GITLAB, FORGE_GITEA };

// A host that tasks may name. Strings live as long as the settings.
struct git_host {
        const char *name; // as in the URLs of repositories, in lower case: HOST, or HOST:PORT
        enum forge_kind forge;
        const char *api_url;        // NULL: https://api.github.com, https://NAME/api/v4, https://NAME/api/v1
        const char *token_file;     // the token is in this file,
        const char *token_variable; // or in this variable of the environment: one of the two
        const char *user;           // git's user name beside the token; NULL: the one that the forge documents
        const char *ca_file;        // PEM; NULL: the machine's certificate authorities
        bool allow_http;            // without TLS the token is readable on the way: for a host on the same machine
};

struct pull_request_settings {
        const struct git_host *hosts;
        size_t host_count;
        const char *cache_folder;   // ours alone; made where it is missing, but not its parents
        uint64_t cache_limit_bytes; // a repository that is larger is refused
        const char *author_name, *author_email;
        const char *signing_key_file; // a private key of OpenSSH without a passphrase; NULL: commits are not signed
        // In milliseconds; 0 gives the default.
        unsigned connect_limit_ms; // to reach a host: 10 seconds
        unsigned stall_limit_ms;   // without a byte: 60 seconds
        unsigned request_limit_ms; // for a REST call: 60 seconds
        unsigned time_limit_ms;    // for the whole job: 15 minutes
};

// Does the task. *ret_result is empty before. Reasons, where it fails:
//
//     permanent      INVALID_PAYLOAD, INVALID_URL, GIT_HOST_UNKNOWN, TOKEN_MISSING, TOKEN_INVALID, FORBIDDEN,
//                    REPOSITORY_NOT_FOUND, REPOSITORY_MOVED, REPOSITORY_ARCHIVED, REPOSITORY_TOO_LARGE,
//                    BASE_BRANCH_MISSING, INVALID_BRANCH, BRANCH_TAKEN, BRANCH_PROTECTED, PUSH_REJECTED, PATH_UNSAFE,
//                    INVALID_DIFF, MERGE_CONFLICT, FILE_MISSING, INVALID_YAML, HELM_VALUE_MISSING,
//                    HELM_VALUE_UNEDITABLE, INVALID_PATH, INVALID_VALUE, NOTHING_TO_CHANGE, SIGNING_FAILED,
//                    GIT_HOST_REFUSED
//     may pass       GIT_HOST_UNAVAILABLE, RATE_LIMITED, BRANCH_MOVED, TIME_LIMIT, CACHE_FAILED, OUT_OF_MEMORY
//
// Outputs, as far as they exist, whatever the status: branch, commit, pull_request_number, pull_request_url,
// pull_request_state (OPEN, MERGED, CLOSED).
void pull_request_run(struct job *job, const struct pull_request_settings *settings, struct job_result *ret_result);
