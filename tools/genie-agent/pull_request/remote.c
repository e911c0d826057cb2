#include "tools/genie-agent/pull_request/remote.h"

#include "tools/genie-agent/pull_request/answer.h"
#include "tools/genie-agent/pull_request/branch_name.h"
#include "tools/genie-agent/pull_request/text.h"

#include <stdio.h>
#include <string.h>

enum { SAID_MAX = 2000, REFERENCE_MAX = BRANCH_NAME_MAX + 64 };

#define LOCAL_BASE "refs/devopsgenie/base"
#define LOCAL_PUSH "refs/devopsgenie/push"

void remote_drop(struct remote *remote) { git_transport_forget(&remote->context); }

// What is wrong here rather than there.
static bool is_ours(const git_error *error) {
        switch (error ? error->klass : GIT_ERROR_NET) {
        case GIT_ERROR_NET:
        case GIT_ERROR_HTTP:
        case GIT_ERROR_SSL:
        case GIT_ERROR_CALLBACK:
                return false;
        default:
                return true;
        }
}

static void fail(struct remote *remote, enum asked asked, const char *doing, struct job_result *result) {
        if (remote->context.end != HTTP_OK || remote->context.response.status != 0) {
                answer_fail(remote->context.http, remote->context.end, &remote->context.response, asked, doing, result);
                return;
        }
        const git_error *error = git_error_last();
        const char *said = error && error->message ? error->message : "it cannot be understood";
        char shown[TEXT_SHORT];
        text_show(said, strlen(said), http_token(remote->context.http), shown, sizeof shown);
        remote->broken = is_ours(error);
        job_fail(result, /* permanent= */ false, remote->broken ? "CACHE_FAILED" : "GIT_HOST_UNAVAILABLE", "%s: %s",
                doing, shown);
}

static int transferred(const git_indexer_progress *progress, void *context) {
        struct remote *remote = context;
        if (job_stopping(http_job(remote->context.http)) != JOB_GO_ON)
                remote->context.end = HTTP_STOPPED;
        else if (http_time_over(remote->context.http))
                remote->context.end = HTTP_TOO_LATE;
        else if (progress->received_bytes > remote->limit_bytes)
                remote->context.end = HTTP_TOO_LARGE;
        return remote->context.end == HTTP_OK ? 0 : -1;
}

static bool find_head(const git_remote_head **heads, size_t count, const char *branch, git_oid *ret_id) {
        char name[REFERENCE_MAX];
        if (!text_format(name, sizeof name, "refs/heads/%s", branch))
                return false;
        for (size_t i = 0; i < count; i++)
                if (strcmp(heads[i]->name, name) == 0) {
                        git_oid_cpy(ret_id, &heads[i]->oid);
                        return true;
                }
        return false;
}

static int make_transport(git_transport **ret_transport, git_remote *owner, void *context) {
        struct remote *remote = context;
        return git_transport_make(ret_transport, owner, &remote->context);
}

// Fetches what of the branches is not here, on a connection that is open.
static int download(git_remote *connection, const git_remote_callbacks *callbacks, const char *base, const char *branch,
        const struct remote_heads *heads) {
        char names[2][REFERENCE_MAX];
        char *list[] = {names[0], names[1]};
        git_strarray wanted = {.strings = list};
        git_fetch_options options = {.version = GIT_FETCH_OPTIONS_VERSION,
                .callbacks = *callbacks,
                .download_tags = GIT_REMOTE_DOWNLOAD_TAGS_NONE,
                .proxy_opts = {.version = GIT_PROXY_OPTIONS_VERSION}};
        if (heads->has_base && text_format(names[wanted.count], REFERENCE_MAX, "refs/heads/%s", base))
                wanted.count++;
        if (heads->has_branch && text_format(names[wanted.count], REFERENCE_MAX, "refs/heads/%s", branch))
                wanted.count++;
        return wanted.count > 0 ? git_remote_download(connection, &wanted, &options) : 0;
}

// Without the configuration's other URLs (insteadOf): libgit2 1.5 loses 20 kB for each line that it looks at for them.
static int connection_make(git_remote **ret_connection, const struct remote *remote) {
        git_remote_create_options options = {.version = GIT_REMOTE_CREATE_OPTIONS_VERSION,
                .repository = remote->repository,
                .flags = GIT_REMOTE_CREATE_SKIP_INSTEADOF};
        return git_remote_create_with_opts(ret_connection, remote->url, &options);
}

// The next fetch tells the host from here what need not be sent again.
static int keep(git_repository *repository, const char *name, const git_oid *id) {
        git_reference *reference = NULL;
        int status = git_reference_create(&reference, repository, name, id, /* force= */ 1, NULL);
        git_reference_free(reference);
        return status;
}

static int fetch(git_remote *connection, struct remote *remote, const char *base, const char *branch,
        struct remote_heads *ret_heads) {
        git_remote_callbacks callbacks = {.version = GIT_REMOTE_CALLBACKS_VERSION,
                .transport = make_transport,
                .transfer_progress = transferred,
                .payload = remote};
        const git_remote_head **heads;
        size_t count;
        int status = git_remote_connect(connection, GIT_DIRECTION_FETCH, &callbacks, NULL, NULL);
        if (status == 0)
                status = git_remote_ls(&heads, &count, connection);
        if (status != 0)
                return status;
        ret_heads->has_base = find_head(heads, count, base, &ret_heads->base);
        ret_heads->has_branch = find_head(heads, count, branch, &ret_heads->branch);
        status = download(connection, &callbacks, base, branch, ret_heads);
        if (status == 0 && ret_heads->has_base)
                status = keep(remote->repository, LOCAL_BASE, &ret_heads->base);
        return status;
}

bool remote_fetch(struct remote *remote, const char *base, const char *branch, struct remote_heads *ret_heads,
        struct job_result *result) {
        git_remote *connection = NULL;
        git_transport_forget(&remote->context);
        int status = connection_make(&connection, remote);
        if (status == 0)
                status = fetch(connection, remote, base, branch, ret_heads);
        git_remote_free(connection);
        if (status == 0)
                return true;
        if (remote->context.end == HTTP_TOO_LARGE)
                job_fail(result, /* permanent= */ true, "REPOSITORY_TOO_LARGE",
                        "the repository is larger than the cache of this agent");
        else
                fail(remote, ASKED_REPOSITORY, "fetching", result);
        return false;
}

// What the host says about a push: its answer for the reference, and what its hooks print.
struct push {
        struct remote *remote;
        bool rejected;
        char said[SAID_MAX];
        size_t said_size;
};

static void push_said(struct push *push, const char *text, size_t size) {
        size_t room = sizeof push->said - push->said_size;
        size = size < room ? size : room;
        memcpy(push->said + push->said_size, text, size);
        push->said_size += size;
}

static int push_progress(const char *text, int size, void *context) {
        if (size > 0)
                push_said(context, text, (size_t)size);
        return 0;
}

static int push_answer(const char *reference, const char *status, void *context) {
        struct push *push = context;
        (void)reference;
        if (!status)
                return 0;
        push->rejected = true;
        push_said(push, " ", 1);
        push_said(push, status, strlen(status));
        return 0;
}

static int push_transport(git_transport **ret_transport, git_remote *owner, void *context) {
        struct push *push = context;
        return git_transport_make(ret_transport, owner, &push->remote->context);
}

static int push(git_remote *connection, struct push *push, const char *branch) {
        char name[REFERENCE_MAX + sizeof LOCAL_PUSH];
        char *list[] = {name};
        git_strarray references = {.strings = list, .count = 1};
        git_push_options options = {.version = GIT_PUSH_OPTIONS_VERSION,
                .pb_parallelism = 1,
                .callbacks = {.version = GIT_REMOTE_CALLBACKS_VERSION,
                        .transport = push_transport,
                        .sideband_progress = push_progress,
                        .push_update_reference = push_answer,
                        .payload = push},
                .proxy_opts = {.version = GIT_PROXY_OPTIONS_VERSION}};
        if (!text_format(name, sizeof name, LOCAL_PUSH ":refs/heads/%s", branch))
                return -1;
        return git_remote_push(connection, &references, &options);
}

// Hosts say in words only why they reject; these are the words of GitHub, GitLab and Gitea.
static void rejected(const struct push *push, const char *branch, struct job_result *result) {
        static const struct {
                const char *word, *reason;
                bool permanent;
        } reasons[] = {
                {"protected", "BRANCH_PROTECTED", true},
                {"archived", "REPOSITORY_ARCHIVED", true},
                {"denied", "FORBIDDEN", true},
                {"not allowed", "FORBIDDEN", true},
                {"already exists", "BRANCH_MOVED", false},
                {"fast-forward", "BRANCH_MOVED", false},
                {"fetch first", "BRANCH_MOVED", false},
                {"stale info", "BRANCH_MOVED", false},
                {"lock", "BRANCH_MOVED", false},
                {"", "PUSH_REJECTED", true},
        };
        char shown[TEXT_SHORT];
        text_show(push->said, push->said_size, http_token(push->remote->context.http), shown, sizeof shown);
        size_t i = 0;
        while (!strcasestr(shown, reasons[i].word))
                i++;
        job_fail(result, reasons[i].permanent, reasons[i].reason, "the git host rejects branch %s: %s", branch, shown);
}

bool remote_push(struct remote *remote, const git_oid *commit, const char *branch, struct job_result *result) {
        struct push state = {.remote = remote};
        git_remote *connection = NULL;
        git_transport_forget(&remote->context);
        int status = keep(remote->repository, LOCAL_PUSH, commit);
        if (status == 0)
                status = connection_make(&connection, remote);
        if (status == 0)
                status = push(connection, &state, branch);
        git_remote_free(connection);
        if (status == 0 && !state.rejected)
                return true;
        // libgit2 refuses by itself what is no fast forward: the branch has come into being since it was looked for.
        if (state.rejected)
                rejected(&state, branch, result);
        else if (status == GIT_ENONFASTFORWARD)
                job_fail(result, /* permanent= */ false, "BRANCH_MOVED", "branch %s has come into being", branch);
        else
                fail(remote, ASKED_OTHER, "pushing", result);
        return false;
}
