// Pull requests by the REST APIs of GitHub, GitLab (merge requests) and Gitea/Forgejo.
#pragma once

#include "tools/genie-agent/pull_request/http.h"
#include "tools/genie-agent/pull_request/repository_url.h"

#include <jansson.h>

enum {
        FORGE_URL_MAX = 2000,
        FORGE_COMMIT_MAX = 64,
        FORGE_BRANCH_MAX = 250,
        FORGE_OWNER_MAX = 100,
        FORGE_API_MAX = 2000
};

struct forge {
        struct http *http;
        enum forge_kind kind;
        char api[FORGE_API_MAX];        // without a slash at the end
        char repository[FORGE_API_MAX]; // the repository's URL in the API
        const struct repository_url *url;
        char owner[FORGE_OWNER_MAX + 1]; // as the host writes it: GitHub finds branches by that
};

struct forge_repository {
        char owner[FORGE_OWNER_MAX + 1]; // empty: not said
        char default_branch[FORGE_BRANCH_MAX + 1];
        bool archived;
};

enum forge_state { FORGE_OPEN, FORGE_MERGED, FORGE_CLOSED };

struct forge_pull_request {
        bool found;
        int64_t number;
        enum forge_state state;
        char url[FORGE_URL_MAX + 1];
        char commit[FORGE_COMMIT_MAX + 1]; // its head
};

// What a pull request is to be.
struct forge_wish {
        const char *title, *body, *base, *branch;
        bool draft;
        char *const *labels, *const *reviewers;
        size_t label_count, reviewer_count;
};

// False: the URL names no repository of such a host.
bool forge_init(struct forge *forge, struct http *http, const struct git_host *host, const struct repository_url *url)
        __attribute__((warn_unused_result));

const char *forge_state_name(enum forge_state state);

// All of these: false where the result has failed or the job is to stop.
bool forge_look(struct forge *forge, struct forge_repository *ret_repository, struct job_result *result)
        __attribute__((warn_unused_result));

// The branch's pull request, whoever made it: an open one, else one that was merged, else one that was closed.
bool forge_find(struct forge *forge, const char *base, const char *branch, struct forge_pull_request *ret_found,
        struct job_result *result) __attribute__((warn_unused_result));

// Makes it. Where it is not certain that it was not made (no answer, a fault, "there is one"), looks again first.
bool forge_create(struct forge *forge, const struct forge_wish *wish, struct forge_pull_request *ret_made,
        struct job_result *result) __attribute__((warn_unused_result));

// Labels and reviewers. What the host refuses is logged and left out.
bool forge_dress(struct forge *forge, const struct forge_wish *wish, const struct forge_pull_request *to,
        struct job_result *result) __attribute__((warn_unused_result));
