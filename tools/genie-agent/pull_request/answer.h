// What a git host's answer means for a job: one place says which reason it has, and whether it may pass.
#pragma once

#include "tools/genie-agent/pull_request/http.h"

// What was asked for, which decides what a 404 means.
enum asked { ASKED_REPOSITORY, ASKED_OTHER };

// Fails the job, with what was being done (such as "opening the pull request"). After HTTP_STOPPED the result stays
// empty: a job that is to stop has not failed.
void answer_fail(struct http *http, enum http_end end, const struct http_response *response, enum asked asked,
        const char *doing, struct job_result *result);

// Whether a request that makes something may have made it, though the answer does not say so.
bool answer_uncertain(enum http_end end, const struct http_response *response);

// What the host says, fit to be shown: `message` and `errors` of a JSON object, else the text; "" for HTML.
void answer_message(const struct http *http, const struct http_response *response, char *ret_text, size_t capacity);
