// Labels and reviewers of a pull request.
#include "tools/genie-agent/pull_request/forge_private.h"
#include "tools/genie-agent/pull_request/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CALL_URL_MAX = 4000, LABEL_PAGES_MAX = 20, NAMES_MAX = 20, LABELS_TEXT = 100 * 4 * NAMES_MAX };

// Calls; true where the host did it, or refuses it, which is logged (*ret_done false). `what` and `name` are what it is
// about. *ret_said is the answer's JSON, NULL without one; the caller lets go of it.
static bool ask(struct forge *forge, const char *method, const char *url, json_t *body, const char *what,
        const char *name, bool *ret_done, json_t **ret_said, struct job_result *result) {
        struct http_response response;
        enum http_end end = forge_call(forge, method, url, body, &response);
        char doing[TEXT_SHORT], message[TEXT_SHORT], shown[TEXT_SHORT];
        text_show(name, strlen(name), NULL, shown, sizeof shown);
        snprintf(doing, sizeof doing, "setting %s %.200s", what, shown);
        *ret_done = end == HTTP_OK && response.status >= 200 && response.status < 300;
        *ret_said = *ret_done ? forge_said(&response) : NULL;
        bool refused = end == HTTP_OK && !*ret_done && !response.limited && response.status >= 400 &&
                       response.status < 500 && response.status != 401 && response.status != 408;
        if (refused) {
                answer_message(forge->http, &response, message, sizeof message);
                job_logf(http_job(forge->http), "%s is left out: the git host refuses (%ld %s)", doing, response.status,
                        message);
        } else if (!*ret_done) {
                answer_fail(forge->http, end, &response, ASKED_OTHER, doing, result);
        }
        if (end == HTTP_OK)
                http_response_drop(&response);
        return *ret_done || refused;
}

// As `ask`, where the answer does not matter.
static bool tell(struct forge *forge, const char *method, const char *url, json_t *body, const char *what,
        const char *name, struct job_result *result) {
        bool done;
        json_t *said;
        bool good = ask(forge, method, url, body, what, name, &done, &said, result);
        json_decref(said);
        return good;
}

static bool url_make(char *ret_url, const struct forge *forge, int64_t number, const char *kind, const char *rest) {
        return text_format(ret_url, CALL_URL_MAX, "%s/%s/%lld%s", forge->repository, kind, (long long)number, rest);
}

static json_t *texts(char *const *list, size_t count) {
        json_t *array = json_array();
        for (size_t i = 0; array && i < count; i++)
                json_array_append_new(array, json_string(list[i]));
        return array;
}

// GitHub makes the labels that are missing.
static bool labels_github(
        struct forge *forge, const struct forge_wish *wish, int64_t number, struct job_result *result) {
        char url[CALL_URL_MAX];
        return url_make(url, forge, number, "issues", "/labels") &&
               tell(forge, "POST", url, json_pack("{so}", "labels", texts(wish->labels, wish->label_count)), "labels",
                       "", result);
}

// So does GitLab; a label's name has no comma there.
static bool labels_gitlab(
        struct forge *forge, const struct forge_wish *wish, int64_t number, struct job_result *result) {
        char url[CALL_URL_MAX], all[LABELS_TEXT + NAMES_MAX] = "";
        for (size_t i = 0; i < wish->label_count; i++) {
                size_t size = strlen(all);
                if (strchr(wish->labels[i], ','))
                        job_logf(http_job(forge->http), "a label with a comma is left out: GitLab knows none");
                else if (!text_format(all + size, sizeof all - size, "%s%s", size ? "," : "", wish->labels[i]))
                        break;
        }
        return url_make(url, forge, number, "merge_requests", "") &&
               tell(forge, "PUT", url, json_pack("{ss}", "add_labels", all), "labels", all, result);
}

// Gitea wants numbers. `ids` has one for each label, 0 where it is not known yet.
static void ids_take(const json_t *list, const struct forge_wish *wish, json_int_t *ids) {
        size_t k;
        json_t *label;
        json_array_foreach(list, k, label) {
                const char *name = json_string_value(json_object_get(label, "name"));
                for (size_t i = 0; name && i < wish->label_count; i++)
                        if (ids[i] == 0 && strcasecmp(name, wish->labels[i]) == 0)
                                ids[i] = json_integer_value(json_object_get(label, "id"));
        }
}

static bool ids_missing(const struct forge_wish *wish, const json_int_t *ids) {
        for (size_t i = 0; i < wish->label_count; i++)
                if (ids[i] == 0)
                        return true;
        return false;
}

// Reads a list of labels, page by page; a list that is not there (an owner that is no organization) is empty.
static bool ids_find(struct forge *forge, const struct forge_wish *wish, const char *owner, json_int_t *ids,
        struct job_result *result) {
        for (int page = 1; page <= LABEL_PAGES_MAX && ids_missing(wish, ids); page++) {
                char url[CALL_URL_MAX];
                struct http_response response;
                if (!text_format(url, sizeof url, "%s/labels?limit=50&page=%d", owner, page))
                        return true;
                enum http_end end = forge_call(forge, "GET", url, NULL, &response);
                bool absent = end == HTTP_OK && (response.status == 404 || response.status == 403);
                if (end != HTTP_OK || (response.status != 200 && !absent)) {
                        answer_fail(forge->http, end, &response, ASKED_OTHER, "looking for labels", result);
                        if (end == HTTP_OK)
                                http_response_drop(&response);
                        return false;
                }
                json_t *said = absent ? NULL : forge_said(&response);
                bool last = json_array_size(said) == 0;
                ids_take(said, wish, ids);
                json_decref(said);
                http_response_drop(&response);
                if (last)
                        break;
        }
        return true;
}

static bool label_make(struct forge *forge, const char *name, json_int_t *ret_id, struct job_result *result) {
        char url[CALL_URL_MAX];
        bool done;
        json_t *said;
        if (!text_format(url, sizeof url, "%s/labels", forge->repository))
                return true;
        if (!ask(forge, "POST", url, json_pack("{ss ss}", "name", name, "color", "#ededed"), "label", name, &done,
                    &said, result))
                return false;
        *ret_id = json_integer_value(json_object_get(said, "id"));
        json_decref(said);
        return true;
}

static bool labels_gitea(
        struct forge *forge, const struct forge_wish *wish, int64_t number, struct job_result *result) {
        json_int_t ids[NAMES_MAX] = {0};
        char url[CALL_URL_MAX];
        if (!ids_find(forge, wish, forge->repository, ids, result))
                return false;
        if (!text_format(url, sizeof url, "%s/orgs/%s", forge->api, forge->url->owner) ||
                !ids_find(forge, wish, url, ids, result))
                return false;
        json_t *known = json_array();
        for (size_t i = 0; i < wish->label_count; i++) {
                if (ids[i] == 0 && !label_make(forge, wish->labels[i], &ids[i], result)) {
                        json_decref(known);
                        return false;
                }
                if (ids[i] != 0)
                        json_array_append_new(known, json_integer(ids[i]));
        }
        return url_make(url, forge, number, "issues", "/labels") &&
               tell(forge, "POST", url, json_pack("{so}", "labels", known), "labels", "", result);
}

// One by one: a host refuses all of them for one that it does not take.
static bool reviewers_ask(
        struct forge *forge, const struct forge_wish *wish, int64_t number, struct job_result *result) {
        char url[CALL_URL_MAX];
        if (!url_make(url, forge, number, "pulls", "/requested_reviewers"))
                return true;
        for (size_t i = 0; i < wish->reviewer_count; i++)
                if (!tell(forge, "POST", url, json_pack("{s[s]}", "reviewers", wish->reviewers[i]), "reviewer",
                            wish->reviewers[i], result))
                        return false;
        return true;
}

static bool gitlab_user(struct forge *forge, const char *name, json_int_t *ret_id, struct job_result *result) {
        char url[CALL_URL_MAX], encoded[1300];
        bool done;
        json_t *said;
        *ret_id = 0;
        if (!text_encode(name, encoded, sizeof encoded) ||
                !text_format(url, sizeof url, "%s/users?username=%s", forge->api, encoded))
                return true;
        if (!ask(forge, "GET", url, NULL, "reviewer", name, &done, &said, result))
                return false;
        *ret_id = json_integer_value(json_object_get(json_array_get(said, 0), "id"));
        if (done && *ret_id == 0)
                job_logf(http_job(forge->http), "a reviewer is left out: GitLab knows no such user");
        json_decref(said);
        return true;
}

// GitLab wants all of them at once, the ones that are there already among them.
static bool reviewers_gitlab(
        struct forge *forge, const struct forge_wish *wish, int64_t number, struct job_result *result) {
        char url[CALL_URL_MAX];
        bool done;
        json_t *said, *ids = json_array(), *reviewer;
        size_t i;
        if (!url_make(url, forge, number, "merge_requests", "") ||
                !ask(forge, "GET", url, NULL, "reviewers", "", &done, &said, result)) {
                json_decref(ids);
                return false;
        }
        json_array_foreach(json_object_get(said, "reviewers"), i, reviewer) {
                json_array_append(ids, json_object_get(reviewer, "id"));
        }
        json_decref(said);
        for (i = 0; i < wish->reviewer_count; i++) {
                json_int_t id;
                if (!gitlab_user(forge, wish->reviewers[i], &id, result)) {
                        json_decref(ids);
                        return false;
                }
                if (id != 0)
                        json_array_append_new(ids, json_integer(id));
        }
        return tell(forge, "PUT", url, json_pack("{so}", "reviewer_ids", ids), "reviewers", "", result);
}

bool forge_dress(struct forge *forge, const struct forge_wish *wish, const struct forge_pull_request *to,
        struct job_result *result) {
        static bool (*const labels[])(struct forge *, const struct forge_wish *, int64_t, struct job_result *) = {
                [FORGE_GITHUB] = labels_github, [FORGE_GITLAB] = labels_gitlab, [FORGE_GITEA] = labels_gitea};
        static bool (*const reviewers[])(struct forge *, const struct forge_wish *, int64_t, struct job_result *) = {
                [FORGE_GITHUB] = reviewers_ask, [FORGE_GITLAB] = reviewers_gitlab, [FORGE_GITEA] = reviewers_ask};
        struct forge_wish bounded = *wish;
        bounded.label_count = wish->label_count < NAMES_MAX ? wish->label_count : NAMES_MAX;
        bounded.reviewer_count = wish->reviewer_count < NAMES_MAX ? wish->reviewer_count : NAMES_MAX;
        return (bounded.label_count == 0 || labels[forge->kind](forge, &bounded, to->number, result)) &&
               (bounded.reviewer_count == 0 || reviewers[forge->kind](forge, &bounded, to->number, result));
}
