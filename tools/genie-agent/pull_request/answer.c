#include "tools/genie-agent/pull_request/answer.h"

#include "tools/genie-agent/pull_request/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *json_said(const struct http_response *response) {
        return response->body ? json_loadb(response->body, response->size, 0, NULL) : NULL;
}

// GitHub has `errors` beside `message`, whose parts say what `Validation Failed` means; GitLab has both spellings of
// an `error`, and arrays.
static char *json_message(const json_t *object) {
        const json_t *message = json_object_get(object, "message");
        if (!message)
                message = json_object_get(object, "error");
        json_t *all = json_array();
        const json_t *parts[] = {message, json_object_get(object, "errors")};
        for (size_t i = 0; i < 2; i++)
                if (parts[i] && json_array_append_new(all, json_deep_copy(parts[i])) != 0)
                        break;
        bool alone = json_array_size(all) == 1 && json_is_string(json_array_get(all, 0));
        char *text = alone ? strdup(json_string_value(json_array_get(all, 0))) : json_dumps(all, JSON_COMPACT);
        json_decref(all);
        return text;
}

void answer_message(const struct http *http, const struct http_response *response, char *ret_text, size_t capacity) {
        ret_text[0] = '\0';
        json_t *said = json_said(response);
        if (json_is_object(said)) {
                char *text = json_message(said);
                if (text)
                        text_show(text, strlen(text), http_token(http), ret_text, capacity);
                free(text);
        } else if (response->body && response->body[strspn(response->body, " \r\n\t")] != '<') {
                text_show(response->body, response->size, http_token(http), ret_text, capacity);
        }
        json_decref(said);
}

struct meaning {
        const char *reason;
        bool permanent;
        const char *text;
};

static struct meaning meaning_of(const struct http_response *response, enum asked asked, const char *message) {
        if (response->limited)
                return (struct meaning){"RATE_LIMITED", false, "there were too many requests"};
        switch (response->status) {
        case 401:
                return (struct meaning){"TOKEN_INVALID", true, "the git host does not know the token, or no longer"};
        case 403:
                if (!strcasestr(message, "archived"))
                        return (struct meaning){"FORBIDDEN", true, "the token may not do this"};
                // fall through
        case 423:
                return (struct meaning){"REPOSITORY_ARCHIVED", true, "the repository is archived"};
        case 404:
        case 410:
                if (asked == ASKED_REPOSITORY)
                        return (struct meaning){
                                "REPOSITORY_NOT_FOUND", true, "there is no such repository that the token may see"};
                return (struct meaning){"FORBIDDEN", true, "the git host hides this from the token"};
        case 408:
                return (struct meaning){"GIT_HOST_UNAVAILABLE", false, "the git host took too long"};
        default:
                break;
        }
        if (response->status >= 300 && response->status < 400)
                return (struct meaning){"REPOSITORY_MOVED", true, "the repository is at another URL now"};
        if (response->status >= 500)
                return (struct meaning){"GIT_HOST_UNAVAILABLE", false, "the git host has a fault"};
        return (struct meaning){"GIT_HOST_REFUSED", true, "the git host refuses"};
}

static void refused(struct http *http, const struct http_response *response, enum asked asked, const char *doing,
        struct job_result *result) {
        char message[TEXT_SHORT];
        answer_message(http, response, message, sizeof message);
        struct meaning meaning = meaning_of(response, asked, message);
        job_fail(result, meaning.permanent, meaning.reason, "%s: %s (%ld%s%s)", doing, meaning.text, response->status,
                message[0] ? ": " : "", message);
        if (!meaning.permanent)
                result->retry_after_ms = response->retry_after_ms;
}

void answer_fail(struct http *http, enum http_end end, const struct http_response *response, enum asked asked,
        const char *doing, struct job_result *result) {
        switch (end) {
        case HTTP_OK:
                refused(http, response, asked, doing, result);
                return;
        case HTTP_UNREACHABLE:
                job_fail(result, /* permanent= */ false, "GIT_HOST_UNAVAILABLE", "%s: %s", doing, http_trouble(http));
                return;
        case HTTP_STOPPED:
                return;
        case HTTP_TOO_LATE:
                job_fail(result, /* permanent= */ false, "TIME_LIMIT", "%s: the job's time is over", doing);
                return;
        case HTTP_TOO_LARGE:
                job_fail(result, /* permanent= */ true, "GIT_HOST_REFUSED", "%s: the answer is too large", doing);
                return;
        case HTTP_NO_MEMORY:
                job_fail(result, /* permanent= */ false, "OUT_OF_MEMORY", "%s: out of memory", doing);
                return;
        }
}

bool answer_uncertain(enum http_end end, const struct http_response *response) {
        if (end != HTTP_OK)
                return end == HTTP_UNREACHABLE || end == HTTP_TOO_LARGE;
        return response->status >= 500 || response->status == 408 || response->status == 201;
}
