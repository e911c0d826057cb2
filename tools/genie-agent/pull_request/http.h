// HTTP to one git host, on libcurl: what a job sends, with time limits, stoppable at any moment. libgit2 1.5 has
// neither for its own transport, nor a certificate authority per host.
//
// One `struct http` per job, used by its thread only. TLS is verified, redirects are not followed (a token goes to the
// host that it is for), the proxy comes from the environment (https_proxy, no_proxy).
#pragma once

#include "tools/genie-agent/pull_request/pull_request.h"

#include <stdint.h>

struct http;

enum http_end {
        HTTP_OK,          // there is an answer, whatever its status
        HTTP_UNREACHABLE, // none, or not all of it; the request may have had its effect
        HTTP_STOPPED,     // the job is to stop
        HTTP_TOO_LATE,    // the job's time is over
        HTTP_TOO_LARGE,   // the answer has more than was to be
        HTTP_NO_MEMORY,
};

struct http_request {
        const char *url;
        const char *method;         // NULL: GET, or POST where there is a body
        const char *const *headers; // ended by NULL; or NULL
        const char *body;           // NULL: none; lives until the exchange is closed
        size_t body_size;
        bool git;     // authenticate as git does (Basic), not as the REST API does; no limit but job's and stall's
        bool changes; // it makes something: a graceful stop lets it end
};

// What was answered. Texts are the response's.
struct http_response {
        long status;
        bool limited;            // it is a rate limit's refusal
        unsigned retry_after_ms; // 0: not said
        char *body;              // with a NUL behind it
        size_t size;
};

// NULL: no memory. `token` is copied, and wiped by http_free.
struct http *http_new(
        struct job *job, const struct pull_request_settings *settings, const struct git_host *host, const char *token);
void http_free(struct http *http);

const char *http_token(const struct http *http); // to keep it out of texts
struct job *http_job(const struct http *http);

// Sends a request and takes the whole answer, of at most HTTP_BODY_MAX bytes. The response is to be dropped where this
// returns HTTP_OK.
enum { HTTP_BODY_MAX = 8 << 20 };
enum http_end http_do(struct http *http, const struct http_request *request, struct http_response *ret_response)
        __attribute__((warn_unused_result));
void http_response_drop(struct http_response *response);

// The same piece by piece: begins to send; reads some bytes, 0 at the end, waiting for them; closes, in any state. One
// exchange at a time. The status is known after the first read.
struct http_exchange *http_begin(struct http *http, const struct http_request *request);
enum http_end http_read(struct http_exchange *exchange, void *ret_data, size_t capacity, size_t *ret_size)
        __attribute__((warn_unused_result));
void http_answer(struct http_exchange *exchange, struct http_response *ret_response); // all but the body
void http_close(struct http_exchange *exchange);

// Why the last exchange that was HTTP_UNREACHABLE was so, for people.
const char *http_trouble(const struct http *http);

// Waits; false where the job is to stop or its time is over.
bool http_pause(struct http *http, unsigned milliseconds) __attribute__((warn_unused_result));
bool http_time_over(const struct http *http);
