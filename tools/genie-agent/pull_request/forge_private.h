// Calls of a REST API, for forge.c and forge_dress.c.
#pragma once

#include "tools/genie-agent/pull_request/answer.h"
#include "tools/genie-agent/pull_request/forge.h"

// Calls METHOD on a URL with a body, which it lets go of (NULL: none). *ret_response is to be dropped on HTTP_OK.
enum http_end forge_call(struct forge *forge, const char *method, const char *url, json_t *body,
        struct http_response *ret_response) __attribute__((warn_unused_result));

// The JSON of a response; NULL where it is none.
json_t *forge_said(const struct http_response *response);
