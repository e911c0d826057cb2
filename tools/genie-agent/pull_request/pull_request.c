#include "tools/genie-agent/pull_request/pull_request.h"

#include "tools/genie-agent/pull_request/branch_name.h"
#include "tools/genie-agent/pull_request/change.h"
#include "tools/genie-agent/pull_request/commit.h"
#include "tools/genie-agent/pull_request/forge.h"
#include "tools/genie-agent/pull_request/remote.h"
#include "tools/genie-agent/pull_request/repository_url.h"
#include "tools/genie-agent/pull_request/secret.h"
#include "tools/genie-agent/pull_request/text.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// What is noted in the job's journal. A note that something is about to be made is also the proof that the attempt is
// still ours.
#define NOTE_TIME "commit_time"          // Unix seconds: of the first attempt
#define NOTE_BRANCH "branch"             // BRANCH COMMIT, before it is pushed
#define NOTE_PULL_REQUEST "pull_request" // `opening BRANCH` before, `NUMBER URL` behind

enum { NOTE_MAX = 2000, OBJECTS_MEMORY_MAX = 32 << 20 };

// A job on its way. What is found or made stays here for the outputs.
struct work {
        struct job *job;
        const struct pull_request_settings *settings;
        const Devopsgenie__V1__PullRequest *request;
        struct job_result *result;
        struct repository_url url;
        const struct git_host *host;
        struct http *http;
        struct forge forge;
        struct forge_wish wish;
        struct cache_entry cache;
        struct remote remote;
        struct remote_heads heads;
        char identity[TASK_IDENTITY_MAX + 1]; // ORGANIZATION/KEY: what is the same for all attempts, and no other's
        char branch[BRANCH_NAME_MAX + 1], base[FORGE_BRANCH_MAX + 1];
        git_oid tree, commit;
        bool pushed;  // the branch is there, with our commit
        bool pushing; // it may be
        struct forge_pull_request pull_request;
};

static void libraries_init(void) {
        git_libgit2_init();
        curl_global_init(CURL_GLOBAL_DEFAULT);
        // What a person's or the machine's configuration of git says (other URLs, proxies, helpers) is not for us.
        for (int level = GIT_CONFIG_LEVEL_PROGRAMDATA; level <= GIT_CONFIG_LEVEL_GLOBAL; level++)
                git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, level, "");
        git_libgit2_opts(GIT_OPT_SET_CACHE_MAX_SIZE, (ssize_t)OBJECTS_MEMORY_MAX);
}

static bool refuse(struct work *work, const char *reason, const char *text) {
        job_fail(work->result, /* permanent= */ true, reason, "%s", text);
        return false;
}

static bool no_memory(struct work *work) {
        job_fail(work->result, /* permanent= */ false, "OUT_OF_MEMORY", "out of memory");
        return false;
}

static const struct git_host *host_find(const struct pull_request_settings *settings, const char *name) {
        for (size_t i = 0; i < settings->host_count; i++)
                if (strcasecmp(settings->hosts[i].name, name) == 0)
                        return &settings->hosts[i];
        return NULL;
}

static bool find_host(struct work *work) {
        const char *problem = repository_url_parse(work->request->repository_url, &work->url);
        char text[TEXT_SHORT + REPOSITORY_HOST_MAX];
        if (problem) {
                snprintf(text, sizeof text, "the repository's URL is not good: %s", problem);
                return refuse(work, "INVALID_URL", text);
        }
        work->host = host_find(work->settings, work->url.host);
        if (!work->host) {
                snprintf(text, sizeof text, "this agent has no token for %s", work->url.host);
                return refuse(work, "GIT_HOST_UNKNOWN", text);
        }
        if (work->url.http && !work->host->allow_http)
                return refuse(work, "INVALID_URL", "the repository's URL is not good: it is not https");
        return true;
}

static bool read_identity(struct work *work) {
        const char *organization = strchr(job_task(work->job), '/'); // `organizations/…/tasks/…`
        return organization &&
               text_format(work->identity, sizeof work->identity, "%.*s/%s", (int)strcspn(organization + 1, "/"),
                       organization + 1, job_idempotency_key(work->job));
}

static bool read_request(struct work *work) {
        const Devopsgenie__V1__PullRequest *request = work->request;
        if (!request || request->title[strspn(request->title, " \t\r\n")] == '\0' ||
                !text_is_utf8(request->title, strlen(request->title)) ||
                !text_is_utf8(request->body, strlen(request->body)))
                return refuse(work, "INVALID_PAYLOAD", "the task has no title, or its texts are not UTF-8");
        if (!read_identity(work) || !branch_name_make(request->branch_prefix, work->identity, work->branch))
                return refuse(work, "INVALID_BRANCH", "prefix and idempotency key make no name of a branch");
        if (request->base_branch[0] && (!branch_name_good(request->base_branch) ||
                                               !text_format(work->base, sizeof work->base, "%s", request->base_branch)))
                return refuse(work, "INVALID_BRANCH", "the base branch's name is none");
        work->wish = (struct forge_wish){
                .title = request->title,
                .body = request->body,
                .base = work->base,
                .branch = work->branch,
                .draft = request->draft,
                .labels = request->labels,
                .label_count = request->n_labels,
                .reviewers = request->reviewers,
                .reviewer_count = request->n_reviewers,
        };
        return true;
}

static bool step_prepare(struct work *work) {
        char token[SECRET_MAX + 1];
        if (!read_request(work) || !find_host(work))
                return false;
        if (secret_read(work->host, token, work->result)) {
                work->http = http_new(work->job, work->settings, work->host, token);
                if (!work->http)
                        no_memory(work);
        }
        explicit_bzero(token, sizeof token);
        if (!work->http)
                return false;
        if (!forge_init(&work->forge, work->http, work->host, &work->url))
                return refuse(work, "INVALID_URL", "the repository's URL is too long");
        job_logf(work->job, "repository %s, branch %s", work->url.url, work->branch);
        return true;
}

// Looks before it makes: an earlier attempt may have come to its end without being able to say so.
static bool step_look(struct work *work) {
        struct forge_repository repository;
        if (!forge_look(&work->forge, &repository, work->result))
                return false;
        if (!work->base[0])
                memcpy(work->base, repository.default_branch, sizeof work->base);
        if (!work->base[0])
                return refuse(work, "BASE_BRANCH_MISSING", "the repository is empty");
        if (strcmp(work->base, work->branch) == 0)
                return refuse(work, "INVALID_BRANCH", "prefix and idempotency key make the base branch's name");
        if (!forge_find(&work->forge, work->base, work->branch, &work->pull_request, work->result))
                return false;
        if (work->pull_request.found)
                job_logf(work->job, "the pull request is there already: %s (%s)", work->pull_request.url,
                        forge_state_name(work->pull_request.state));
        else if (repository.archived)
                return refuse(work, "REPOSITORY_ARCHIVED", "the repository is archived");
        return true;
}

static bool step_fetch(struct work *work) {
        if (work->pull_request.found)
                return true;
        if (!cache_open(work->http, work->settings, work->url.url, &work->cache, work->result))
                return false;
        work->remote = (struct remote){
                .repository = work->cache.repository,
                .url = work->url.url,
                .limit_bytes = work->settings->cache_limit_bytes,
                .context = {.http = work->http},
        };
        job_logf(work->job, "fetching %s", work->base);
        if (!remote_fetch(&work->remote, work->base, work->branch, &work->heads, work->result))
                return false;
        if (!work->heads.has_base)
                return refuse(work, "BASE_BRANCH_MISSING", "the repository has no such base branch");
        if (!work->heads.has_branch)
                return true;
        if (!commit_is_ours(work->cache.repository, &work->heads.branch, work->identity))
                return refuse(work, "BRANCH_TAKEN", "the branch is there, and what is on it is not this task's");
        git_oid_cpy(&work->commit, &work->heads.branch);
        work->pushed = true;
        job_logf(work->job, "the branch is there already");
        return true;
}

static bool commit_time(struct work *work, int64_t *ret_time) {
        const char *noted = job_effect(work->job, NOTE_TIME);
        char now[32];
        if (noted) {
                char *end;
                errno = 0;
                *ret_time = strtoll(noted, &end, 10);
                if (errno == 0 && end != noted && *end == '\0')
                        return true;
        }
        *ret_time = time(NULL);
        snprintf(now, sizeof now, "%lld", (long long)*ret_time);
        return job_note_effect(work->job, NOTE_TIME, now);
}

static bool step_change(struct work *work) {
        int64_t time;
        git_commit *base = NULL;
        git_tree *tree = NULL;
        if (work->pushed || work->pull_request.found)
                return true;
        bool good = git_commit_lookup(&base, work->cache.repository, &work->heads.base) == 0 &&
                    git_commit_tree(&tree, base) == 0;
        if (!good)
                job_fail(work->result, /* permanent= */ false, "CACHE_FAILED", "the base branch cannot be read");
        good = good && change_make(work->job, work->cache.repository, tree, &work->tree, work->result) &&
               commit_time(work, &time) &&
               commit_make(work->http, work->settings, work->cache.repository, work->identity, &work->heads.base,
                       &work->tree, time, &work->commit, work->result);
        git_tree_free(tree);
        git_commit_free(base);
        return good;
}

static bool step_push(struct work *work) {
        char note[NOTE_MAX], commit[GIT_OID_HEXSZ + 1];
        if (work->pushed || work->pull_request.found)
                return true;
        git_oid_tostr(commit, sizeof commit, &work->commit);
        if (!text_format(note, sizeof note, "%s %s", work->branch, commit))
                return no_memory(work);
        if (!job_note_effect(work->job, NOTE_BRANCH, note))
                return false;
        job_logf(work->job, "pushing commit %s", commit);
        work->pushing = true;
        work->pushed = remote_push(&work->remote, &work->commit, work->branch, work->result);
        work->pushing = !work->pushed && !work->result->permanent;
        return work->pushed;
}

// Notes it unless that is what is noted.
static bool note_once(struct work *work, const char *key, const char *reference) {
        const char *noted = job_effect(work->job, key);
        return (noted && strcmp(noted, reference) == 0) || job_note_effect(work->job, key, reference);
}

static bool step_open(struct work *work) {
        char opening[NOTE_MAX], opened[NOTE_MAX];
        if (!work->pull_request.found) {
                if (!text_format(opening, sizeof opening, "opening %s", work->branch))
                        return no_memory(work);
                if (!job_note_effect(work->job, NOTE_PULL_REQUEST, opening) ||
                        !forge_create(&work->forge, &work->wish, &work->pull_request, work->result))
                        return false;
                job_logf(work->job, "the pull request: %s", work->pull_request.url);
        }
        // Where it cannot be noted, the next attempt finds it by looking.
        return !text_format(opened, sizeof opened, "%lld %s", (long long)work->pull_request.number,
                       work->pull_request.url) ||
               note_once(work, NOTE_PULL_REQUEST, opened);
}

static bool step_dress(struct work *work) {
        return work->pull_request.state != FORGE_OPEN ||
               forge_dress(&work->forge, &work->wish, &work->pull_request, work->result);
}

static const struct {
        const char *name;
        int percent;
        bool (*run)(struct work *work);
} steps[] = {
        {"reading the settings", 0, step_prepare},
        {"looking", 5, step_look},
        {"fetching", 10, step_fetch},
        {"changing", 50, step_change},
        {"pushing", 60, step_push},
        {"opening the pull request", 80, step_open},
        {"setting labels and reviewers", 90, step_dress},
};

static bool run(struct work *work) {
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
                if (job_stopping(work->job) != JOB_GO_ON)
                        return false;
                job_progress(work->job, steps[i].percent, steps[i].name);
                if (!steps[i].run(work))
                        return false;
                if (work->http && http_time_over(work->http) && i + 1 < sizeof steps / sizeof steps[0]) {
                        job_fail(work->result, /* permanent= */ false, "TIME_LIMIT", "the job's time is over");
                        return false;
                }
        }
        return true;
}

static void outputs(const struct work *work) {
        char text[64];
        if (work->pushed || work->pull_request.found)
                job_output(work->result, "branch", work->branch);
        if (work->pushed)
                job_output(work->result, "commit", git_oid_tostr(text, sizeof text, &work->commit));
        else if (work->pull_request.found && work->pull_request.commit[0])
                job_output(work->result, "commit", work->pull_request.commit);
        if (!work->pull_request.found)
                return;
        snprintf(text, sizeof text, "%lld", (long long)work->pull_request.number);
        job_output(work->result, "pull_request_number", text);
        job_output(work->result, "pull_request_url", work->pull_request.url);
        job_output(work->result, "pull_request_state", forge_state_name(work->pull_request.state));
}

// Whether a job that did not get to its end was stopped: it is to stop, and nothing that will not pass is in its way.
static bool is_stopped(const struct work *work) {
        return !work->result->reason || (job_stopping(work->job) != JOB_GO_ON && !work->result->permanent);
}

// A job that is stopped has not failed; its log says what is there by now.
static void stopped(struct work *work) {
        bool cancelled = false;
        job_result_drop(work->result);
        *work->result = (struct job_result){.reason = NULL};
        switch (job_stopping(work->job)) {
        case JOB_CANCEL_GRACEFULLY:
        case JOB_CANCEL_NOW:
                cancelled = true;
                break;
        case JOB_GO_ON: // it was to stop when a note was to be made
        case JOB_LEASE_LOST:
        case JOB_SHUTDOWN:
                break;
        }
        work->result->status = cancelled ? JOB_CANCELLED : JOB_UNFINISHED;
        job_logf(work->job, "stopped; %s%s, %s",
                work->pushed    ? "there is the branch "
                : work->pushing ? "there may be the branch "
                                : "no branch was made",
                work->pushed || work->pushing ? work->branch : "",
                work->pull_request.found ? "and the pull request"
                : work->pushed           ? "and no pull request that this agent knows of"
                                         : "and no pull request");
}

void pull_request_run(struct job *job, const struct pull_request_settings *settings, struct job_result *ret_result) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        struct work *work = calloc(1, sizeof *work);
        pthread_once(&once, libraries_init);
        if (!work) {
                job_fail(ret_result, /* permanent= */ false, "OUT_OF_MEMORY", "out of memory");
                return;
        }
        work->job = job;
        work->settings = settings;
        work->result = ret_result;
        const Devopsgenie__V1__TaskPayload *payload = job_payload(job);
        if (payload->kind_case == DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_PULL_REQUEST)
                work->request = payload->pull_request;
        if (run(work))
                job_succeed(ret_result);
        else if (is_stopped(work))
                stopped(work);
        outputs(work);
        cache_close(&work->cache, settings, work->remote.broken);
        remote_drop(&work->remote);
        http_free(work->http);
        free(work);
}
