#include "tools/genie-agent/pull_request/forge.h"

#include "tools/genie-agent/pull_request/forge_json.h"
#include "tools/genie-agent/pull_request/forge_private.h"
#include "tools/genie-agent/pull_request/text.h"

#include <stdlib.h>
#include <string.h>

enum { CALL_URL_MAX = 4000, BRANCH_ENCODED_MAX = 3 * FORGE_BRANCH_MAX + 1, LOOKS = 3, LOOK_PAUSE_MS = 1000 };

static const char *default_api(enum forge_kind kind) {
        switch (kind) {
        case FORGE_GITHUB:
                return "https://api.github.com";
        case FORGE_GITLAB:
                return "/api/v4";
        case FORGE_GITEA:
                break;
        }
        return "/api/v1";
}

bool forge_init(struct forge *forge, struct http *http, const struct git_host *host, const struct repository_url *url) {
        char encoded[3 * REPOSITORY_PATH_MAX + 1];
        const char *api = host->api_url ? host->api_url : default_api(host->forge);
        *forge = (struct forge){.http = http, .kind = host->forge, .url = url};
        if (!text_format(forge->api, sizeof forge->api, "%s%s%s",
                    api[0] == '/' ? (url->http ? "http://" : "https://") : "", api[0] == '/' ? url->host : "", api))
                return false;
        for (size_t size = strlen(forge->api); size > 0 && forge->api[size - 1] == '/';)
                forge->api[--size] = '\0';
        if (host->forge != FORGE_GITLAB)
                return text_format(forge->repository, sizeof forge->repository, "%s/repos/%s/%s", forge->api,
                        url->owner, url->name);
        return text_encode(url->path, encoded, sizeof encoded) &&
               text_format(forge->repository, sizeof forge->repository, "%s/projects/%s", forge->api, encoded);
}

const char *forge_state_name(enum forge_state state) {
        switch (state) {
        case FORGE_OPEN:
                return "OPEN";
        case FORGE_MERGED:
                return "MERGED";
        case FORGE_CLOSED:
                break;
        }
        return "CLOSED";
}

enum http_end forge_call(
        struct forge *forge, const char *method, const char *url, json_t *body, struct http_response *ret_response) {
        static const char *const github[] = {"Accept: application/vnd.github+json", "X-GitHub-Api-Version: 2022-11-28",
                "Content-Type: application/json", NULL};
        static const char *const others[] = {"Accept: application/json", "Content-Type: application/json", NULL};
        char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
        bool get = strcmp(method, "GET") == 0;
        json_decref(body);
        if (!get && !text)
                return HTTP_NO_MEMORY;
        struct http_request request = {
                .url = url,
                .method = get ? NULL : method,
                .headers = forge->kind == FORGE_GITHUB ? github : others,
                .body = text,
                .body_size = text ? strlen(text) : 0,
                .changes = !get,
        };
        enum http_end end = http_do(forge->http, &request, ret_response);
        free(text);
        return end;
}

json_t *forge_said(const struct http_response *response) {
        return response->body ? json_loadb(response->body, response->size, 0, NULL) : NULL;
}

// What an API of another kind, or a page for people, says with 200.
static void not_understood(const char *doing, struct job_result *result) {
        job_fail(result, /* permanent= */ false, "GIT_HOST_UNAVAILABLE",
                "%s: what the git host says is no answer of "
                "its API",
                doing);
}

bool forge_look(struct forge *forge, struct forge_repository *ret_repository, struct job_result *result) {
        static const char doing[] = "looking at the repository";
        struct http_response response;
        enum http_end end = forge_call(forge, "GET", forge->repository, NULL, &response);
        if (end != HTTP_OK || response.status != 200) {
                answer_fail(forge->http, end, &response, ASKED_REPOSITORY, doing, result);
                if (end == HTTP_OK)
                        http_response_drop(&response);
                return false;
        }
        json_t *said = forge_said(&response);
        bool good = forge_json_repository(said, ret_repository);
        json_decref(said);
        http_response_drop(&response);
        if (!good)
                not_understood(doing, result);
        else if (ret_repository->owner[0])
                memcpy(forge->owner, ret_repository->owner, sizeof forge->owner);
        return good;
}

// Gitea passes over `head` of a list; it has a path for the one of two branches.
static bool find_url(const struct forge *forge, const char *base, const char *branch, char *ret_url) {
        char head[BRANCH_ENCODED_MAX], into[BRANCH_ENCODED_MAX], owner[3 * REPOSITORY_PATH_MAX + 1];
        if (!text_encode(forge->owner[0] ? forge->owner : forge->url->owner, owner, sizeof owner) ||
                !text_encode(branch, head, sizeof head) || !text_encode(base, into, sizeof into))
                return false;
        switch (forge->kind) {
        case FORGE_GITHUB:
                return text_format(ret_url, CALL_URL_MAX, "%s/pulls?head=%s:%s&state=all&per_page=100",
                        forge->repository, owner, head);
        case FORGE_GITLAB:
                return text_format(ret_url, CALL_URL_MAX, "%s/merge_requests?source_branch=%s&state=all&per_page=100",
                        forge->repository, head);
        case FORGE_GITEA:
                break;
        }
        return text_format(ret_url, CALL_URL_MAX, "%s/pulls/%s/%s", forge->repository, into, head);
}

static bool too_long(struct job_result *result) {
        job_fail(result, /* permanent= */ true, "INVALID_BRANCH", "a branch's name is too long");
        return false;
}

bool forge_find(struct forge *forge, const char *base, const char *branch, struct forge_pull_request *ret_found,
        struct job_result *result) {
        static const char doing[] = "looking for the pull request";
        char url[CALL_URL_MAX];
        struct http_response response;
        if (!find_url(forge, base, branch, url))
                return too_long(result);
        enum http_end end = forge_call(forge, "GET", url, NULL, &response);
        bool one = forge->kind == FORGE_GITEA, good = true;
        if (end == HTTP_OK && one && response.status == 404) {
                *ret_found = (struct forge_pull_request){.found = false};
        } else if (end == HTTP_OK && response.status == 200) {
                json_t *said = forge_said(&response);
                good = one ? forge_json_pull_request(forge->kind, said, ret_found) : json_is_array(said);
                if (good && !one)
                        forge_json_choose(forge->kind, said, ret_found);
                if (!good)
                        not_understood(doing, result);
                json_decref(said);
        } else {
                answer_fail(forge->http, end, &response, ASKED_OTHER, doing, result);
                good = false;
        }
        if (end == HTTP_OK)
                http_response_drop(&response);
        return good;
}

// Whether a pull request is there by now. What goes wrong with the looking is not told: why it was looked for is.
static bool there_is_one(struct forge *forge, const struct forge_wish *wish, struct forge_pull_request *ret_found) {
        struct job_result ignored = {.reason = NULL};
        struct forge_pull_request found;
        bool good = forge_find(forge, wish->base, wish->branch, &found, &ignored) && found.found;
        job_result_drop(&ignored);
        if (good)
                *ret_found = found;
        return good;
}

static enum http_end post(struct forge *forge, const char *url, const struct forge_wish *wish,
        struct http_response *ret_response, struct forge_pull_request *ret_made) {
        enum http_end end = forge_call(forge, "POST", url, forge_json_create(forge->kind, wish), ret_response);
        if (end != HTTP_OK || ret_response->status != 201)
                return end;
        json_t *said = forge_said(ret_response);
        if (!forge_json_pull_request(forge->kind, said, ret_made))
                ret_made->found = false;
        json_decref(said);
        return end;
}

// A refusal that a host may take back: it learns of a pushed branch some moments after it has taken it (404, 422).
static bool early(enum http_end end, const struct http_response *response) {
        return end == HTTP_OK && (response->status == 404 || response->status == 409 || response->status == 422);
}

bool forge_create(struct forge *forge, const struct forge_wish *wish, struct forge_pull_request *ret_made,
        struct job_result *result) {
        char url[CALL_URL_MAX];
        struct http_response response = {.status = 0};
        enum http_end end = HTTP_OK;
        const char *what = forge->kind == FORGE_GITLAB ? "merge_requests" : "pulls";
        ret_made->found = false;
        if (!text_format(url, sizeof url, "%s/%s", forge->repository, what))
                return too_long(result);
        for (unsigned i = 0; i < LOOKS; i++) {
                // Asks again only after a refusal, which has made nothing.
                if (i == 0 || early(end, &response)) {
                        http_response_drop(&response);
                        end = post(forge, url, wish, &response, ret_made);
                }
                if (ret_made->found || !(early(end, &response) || answer_uncertain(end, &response)))
                        break;
                job_logf(http_job(forge->http), "the git host did not say that it has made the pull request; looking");
                if (there_is_one(forge, wish, ret_made) ||
                        (i + 1 < LOOKS && !http_pause(forge->http, LOOK_PAUSE_MS << i)))
                        break;
        }
        if (!ret_made->found)
                answer_fail(forge->http, end, &response, ASKED_OTHER, "opening the pull request", result);
        http_response_drop(&response);
        return ret_made->found;
}
