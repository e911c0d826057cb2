#include "tools/genie-agent/pull_request/forge_json.h"

#include "tools/genie-agent/pull_request/text.h"

#include <stdio.h>
#include <string.h>

enum { TITLE_BYTES = 1000 };

static bool take(const json_t *json, const char *name, char *ret_text, size_t capacity) {
        const char *text = json_string_value(json_object_get(json, name));
        return text && text_format(ret_text, capacity, "%s", text);
}

static bool is_link(const char *url) {
        if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
                return false;
        for (const char *c = url; *c; c++)
                if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '@' || *c == '"' || *c == '<' || *c == '>')
                        return false;
        return true;
}

static bool is_commit(const char *text) {
        size_t size = strlen(text);
        return (size == 40 || size == 64) && strspn(text, "0123456789abcdef") == size;
}

static enum forge_state state_of(enum forge_kind kind, const json_t *json) {
        const char *state = json_string_value(json_object_get(json, "state"));
        const json_t *merged = json_object_get(json, kind == FORGE_GITHUB ? "merged_at" : "merged");
        if (kind == FORGE_GITLAB ? state && strcmp(state, "merged") == 0
                                 : json_is_string(merged) || json_is_true(merged))
                return FORGE_MERGED;
        return state && strcmp(state, "closed") == 0 ? FORGE_CLOSED : FORGE_OPEN;
}

bool forge_json_pull_request(enum forge_kind kind, const json_t *json, struct forge_pull_request *ret_found) {
        struct forge_pull_request found = {.found = true, .state = state_of(kind, json)};
        bool gitlab = kind == FORGE_GITLAB;
        found.number = json_integer_value(json_object_get(json, gitlab ? "iid" : "number"));
        if (found.number <= 0 || !take(json, gitlab ? "web_url" : "html_url", found.url, sizeof found.url) ||
                !is_link(found.url))
                return false;
        if (!take(gitlab ? json : json_object_get(json, "head"), "sha", found.commit, sizeof found.commit) ||
                !is_commit(found.commit))
                found.commit[0] = '\0'; // an old one of a branch that is gone
        if (gitlab &&
                !json_equal(json_object_get(json, "source_project_id"), json_object_get(json, "target_project_id")))
                return false;
        *ret_found = found;
        return true;
}

void forge_json_choose(enum forge_kind kind, const json_t *list, struct forge_pull_request *ret_found) {
        struct forge_pull_request best = {.found = false}, found;
        size_t i;
        json_t *json;
        json_array_foreach(list, i, json) {
                if (!forge_json_pull_request(kind, json, &found))
                        continue;
                if (!best.found || found.state < best.state ||
                        (found.state == best.state && found.number > best.number))
                        best = found;
        }
        *ret_found = best;
}

bool forge_json_repository(const json_t *json, struct forge_repository *ret_repository) {
        struct forge_repository repository = {.archived = json_is_true(json_object_get(json, "archived"))};
        const json_t *branch = json_object_get(json, "default_branch");
        if (!json_is_object(json) ||
                (branch && !json_is_null(branch) &&
                        !take(json, "default_branch", repository.default_branch, sizeof repository.default_branch)))
                return false;
        if (!take(json_object_get(json, "owner"), "login", repository.owner, sizeof repository.owner))
                repository.owner[0] = '\0';
        *ret_repository = repository;
        return true;
}

json_t *forge_json_create(enum forge_kind kind, const struct forge_wish *wish) {
        char title[TITLE_BYTES], line[TITLE_BYTES];
        text_show(wish->title, strlen(wish->title), NULL, line, sizeof line);
        // GitLab and Gitea know a draft by its title.
        const char *prefix = !wish->draft ? "" : kind == FORGE_GITLAB ? "Draft: " : kind == FORGE_GITEA ? "WIP: " : "";
        if (!text_format(title, sizeof title, "%s%s", prefix, line))
                return NULL;
        switch (kind) {
        case FORGE_GITHUB:
                return json_pack("{ss ss ss ss sb}", "title", title, "body", wish->body, "head", wish->branch, "base",
                        wish->base, "draft", (int)wish->draft);
        case FORGE_GITLAB:
                return json_pack("{ss ss ss ss}", "title", title, "description", wish->body, "source_branch",
                        wish->branch, "target_branch", wish->base);
        case FORGE_GITEA:
                break;
        }
        return json_pack("{ss ss ss ss}", "title", title, "body", wish->body, "head", wish->branch, "base", wish->base);
}
