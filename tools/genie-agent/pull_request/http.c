#include "tools/genie-agent/pull_request/http.h"

#include "tools/genie-agent/pull_request/rate_limit.h"
#include "tools/genie-agent/pull_request/text.h"

#include <curl/curl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
        BUFFER_MAX = 512 << 10, // received and not read; curl is paused above
        TICK_MS = 200,          // how often a stop is looked for where its descriptor cannot be waited for
        CONNECT_LIMIT_MS = 10 * 1000,
        STALL_LIMIT_MS = 60 * 1000,
        REQUEST_LIMIT_MS = 60 * 1000,
        TIME_LIMIT_MS = 15 * 60 * 1000,
};

struct http {
        struct job *job;
        const struct git_host *host;
        CURLM *multi;
        char *token;
        int64_t end_ms;
        unsigned connect_ms, stall_ms, request_ms;
        char trouble[TEXT_SHORT];
};

struct http_exchange {
        struct http *http;
        CURL *easy;
        struct curl_slist *headers;
        bool changes, paused, done;
        CURLcode code;
        char *buffer;
        size_t begin, end, capacity;
        char error[CURL_ERROR_SIZE];
};

static int64_t now_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct http *http_new(
        struct job *job, const struct pull_request_settings *settings, const struct git_host *host, const char *token) {
        struct http *http = calloc(1, sizeof *http);
        if (!http)
                return NULL;
        *http = (struct http){
                .job = job,
                .host = host,
                .multi = curl_multi_init(),
                .token = strdup(token),
                .end_ms = now_ms() + (settings->time_limit_ms ? settings->time_limit_ms : TIME_LIMIT_MS),
                .connect_ms = settings->connect_limit_ms ? settings->connect_limit_ms : CONNECT_LIMIT_MS,
                .stall_ms = settings->stall_limit_ms ? settings->stall_limit_ms : STALL_LIMIT_MS,
                .request_ms = settings->request_limit_ms ? settings->request_limit_ms : REQUEST_LIMIT_MS,
        };
        if (http->multi && http->token)
                return http;
        http_free(http);
        return NULL;
}

void http_free(struct http *http) {
        if (!http)
                return;
        if (http->multi)
                curl_multi_cleanup(http->multi);
        if (http->token)
                explicit_bzero(http->token, strlen(http->token));
        free(http->token);
        free(http);
}

const char *http_token(const struct http *http) { return http->token; }
struct job *http_job(const struct http *http) { return http->job; }
const char *http_trouble(const struct http *http) { return http->trouble; }
bool http_time_over(const struct http *http) { return now_ms() >= http->end_ms; }

// Whether to give up now what is under way.
static bool must_stop(const struct http *http, bool changes) {
        switch (job_stopping(http->job)) {
        case JOB_GO_ON:
                return false;
        case JOB_CANCEL_GRACEFULLY:
                return !changes || job_stop_grace_ms(http->job) <= 0;
        case JOB_CANCEL_NOW:
        case JOB_LEASE_LOST:
        case JOB_SHUTDOWN:
                break;
        }
        return true;
}

bool http_pause(struct http *http, unsigned milliseconds) {
        struct pollfd stop = {.fd = job_stop_descriptor(http->job), .events = POLLIN};
        int64_t left = http->end_ms - now_ms();
        if (left > 0 && !must_stop(http, /* changes= */ false))
                poll(&stop, 1, (int)(left < milliseconds ? left : milliseconds));
        return !must_stop(http, /* changes= */ false) && !http_time_over(http);
}

static size_t receive(char *data, size_t one, size_t size, void *context) {
        struct http_exchange *exchange = context;
        (void)one;
        if (exchange->begin == exchange->end)
                exchange->begin = exchange->end = 0;
        if (exchange->end > BUFFER_MAX) {
                exchange->paused = true;
                return CURL_WRITEFUNC_PAUSE;
        }
        if (exchange->end + size > exchange->capacity) {
                size_t capacity = exchange->end + size + (64 << 10);
                char *buffer = realloc(exchange->buffer, capacity);
                if (!buffer)
                        return CURL_WRITEFUNC_ERROR;
                exchange->buffer = buffer;
                exchange->capacity = capacity;
        }
        memcpy(exchange->buffer + exchange->end, data, size);
        exchange->end += size;
        return size;
}

static const char *git_user(const struct git_host *host) {
        if (host->user)
                return host->user;
        switch (host->forge) {
        case FORGE_GITHUB:
                return "x-access-token";
        case FORGE_GITLAB:
        case FORGE_GITEA:
                break;
        }
        return "oauth2";
}

static bool authenticate(const struct http *http, CURL *easy, bool git) {
        if (git)
                return curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC) == CURLE_OK &&
                       curl_easy_setopt(easy, CURLOPT_USERNAME, git_user(http->host)) == CURLE_OK &&
                       curl_easy_setopt(easy, CURLOPT_PASSWORD, http->token) == CURLE_OK;
        return curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, http->token) == CURLE_OK;
}

// A transfer of git's may take as long as the job has; what no byte comes of is given up all the same.
static bool limit(const struct http *http, CURL *easy, bool git) {
        int64_t left = http->end_ms - now_ms();
        long most = (long)(left > 1 ? left : 1);
        if (!git && most > (long)http->request_ms)
                most = (long)http->request_ms;
        return curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->connect_ms) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, most) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(http->stall_ms + 999) / 1000) == CURLE_OK;
}

static bool secure(const struct http *http, CURL *easy) {
        const char *protocols = http->host->allow_http ? "https,http" : "https";
        return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, protocols) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
               // A host that has an authority of its own is not vouched for by the machine's.
               (!http->host->ca_file || (curl_easy_setopt(easy, CURLOPT_CAINFO, http->host->ca_file) == CURLE_OK &&
                                                curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK));
}

static bool header_add(struct http_exchange *exchange, const char *header) {
        struct curl_slist *list = curl_slist_append(exchange->headers, header);
        if (!list)
                return false;
        exchange->headers = list;
        return true;
}

static bool describe(struct http_exchange *exchange, const struct http_request *request) {
        CURL *easy = exchange->easy;
        bool good = header_add(exchange, "Expect:");
        for (const char *const *header = request->headers; good && header && *header; header++)
                good = header_add(exchange, *header);
        if (good && request->body)
                good = curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body) == CURLE_OK &&
                       curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size) == CURLE_OK;
        if (good && request->method)
                good = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK;
        return good && curl_easy_setopt(easy, CURLOPT_URL, request->url) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers) == CURLE_OK &&
               // Some hosts know git by its name.
               curl_easy_setopt(easy, CURLOPT_USERAGENT,
                       request->git ? "git/2.0 (genie-agent " GENIE_VERSION ")" : "genie-agent/" GENIE_VERSION) ==
                       CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->error) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receive) == CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange) == CURLE_OK;
}

struct http_exchange *http_begin(struct http *http, const struct http_request *request) {
        struct http_exchange *exchange = calloc(1, sizeof *exchange);
        if (!exchange)
                return NULL;
        exchange->http = http;
        exchange->changes = request->changes;
        exchange->easy = curl_easy_init();
        if (exchange->easy && describe(exchange, request) && secure(http, exchange->easy) &&
                limit(http, exchange->easy, request->git) && authenticate(http, exchange->easy, request->git) &&
                curl_multi_add_handle(http->multi, exchange->easy) == CURLM_OK)
                return exchange;
        http_close(exchange);
        return NULL;
}

static void trouble_note(struct http_exchange *exchange) {
        const char *said = exchange->error[0] ? exchange->error : curl_easy_strerror(exchange->code);
        text_show(said, strlen(said), exchange->http->token, exchange->http->trouble, sizeof exchange->http->trouble);
}

// Lets curl work once; waits for it where there is nothing yet.
static enum http_end turn(struct http_exchange *exchange) {
        struct http *http = exchange->http;
        int running, left;
        if (exchange->paused) {
                exchange->paused = false;
                curl_easy_pause(exchange->easy, CURLPAUSE_CONT);
        }
        if (curl_multi_perform(http->multi, &running) != CURLM_OK)
                return HTTP_NO_MEMORY;
        for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left));)
                if (message->msg == CURLMSG_DONE && message->easy_handle == exchange->easy) {
                        exchange->done = true;
                        exchange->code = message->data.result;
                }
        if (exchange->done || exchange->begin < exchange->end)
                return HTTP_OK;
        struct curl_waitfd stop = {.fd = job_stop_descriptor(http->job), .events = CURL_WAIT_POLLIN};
        bool going = job_stopping(http->job) == JOB_GO_ON;
        curl_multi_poll(http->multi, &stop, going ? 1 : 0, going ? 1000 : TICK_MS, NULL);
        return HTTP_OK;
}

enum http_end http_read(struct http_exchange *exchange, void *ret_data, size_t capacity, size_t *ret_size) {
        while (exchange->begin == exchange->end && !exchange->done) {
                if (must_stop(exchange->http, exchange->changes))
                        return HTTP_STOPPED;
                if (http_time_over(exchange->http))
                        return HTTP_TOO_LATE;
                enum http_end end = turn(exchange);
                if (end != HTTP_OK)
                        return end;
        }
        size_t size = exchange->end - exchange->begin;
        if (size == 0 && exchange->code != CURLE_OK) {
                trouble_note(exchange);
                return exchange->code == CURLE_OUT_OF_MEMORY ? HTTP_NO_MEMORY
                       : http_time_over(exchange->http)      ? HTTP_TOO_LATE
                                                             : HTTP_UNREACHABLE;
        }
        size = size < capacity ? size : capacity;
        if (size > 0)
                memcpy(ret_data, exchange->buffer + exchange->begin, size);
        exchange->begin += size;
        *ret_size = size;
        return HTTP_OK;
}

static const char *header(CURL *easy, const char *name) {
        struct curl_header *found;
        return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value : NULL;
}

static void answer(struct http_exchange *exchange, char *body, size_t size, struct http_response *ret_response) {
        struct rate_headers headers = {
                .retry_after = header(exchange->easy, "retry-after"),
                .remaining = header(exchange->easy, "x-ratelimit-remaining"),
                .reset = header(exchange->easy, "x-ratelimit-reset"),
                .date = header(exchange->easy, "date"),
                .body = body,
        };
        *ret_response = (struct http_response){.body = body, .size = size};
        curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &ret_response->status);
        ret_response->limited = rate_limited(ret_response->status, &headers, &ret_response->retry_after_ms);
}

void http_answer(struct http_exchange *exchange, struct http_response *ret_response) {
        answer(exchange, NULL, 0, ret_response);
}

void http_close(struct http_exchange *exchange) {
        if (!exchange)
                return;
        if (exchange->easy) {
                curl_multi_remove_handle(exchange->http->multi, exchange->easy);
                curl_easy_cleanup(exchange->easy);
        }
        curl_slist_free_all(exchange->headers);
        free(exchange->buffer);
        free(exchange);
}

static enum http_end read_all(struct http_exchange *exchange, char **ret_body, size_t *ret_size) {
        size_t size = 0, got = 1, capacity = 0;
        char *body = NULL;
        enum http_end end = HTTP_OK;
        while (end == HTTP_OK && got > 0) {
                if (capacity - size < 2) {
                        capacity = capacity ? 2 * capacity : 16 << 10;
                        char *larger = size >= HTTP_BODY_MAX ? NULL : realloc(body, capacity);
                        if (!larger) {
                                end = size >= HTTP_BODY_MAX ? HTTP_TOO_LARGE : HTTP_NO_MEMORY;
                                break;
                        }
                        body = larger;
                }
                end = http_read(exchange, body + size, capacity - size - 1, &got);
                size += end == HTTP_OK ? got : 0;
        }
        if (end != HTTP_OK) {
                free(body);
                return end;
        }
        body[size] = '\0';
        *ret_body = body;
        *ret_size = size;
        return HTTP_OK;
}

enum http_end http_do(struct http *http, const struct http_request *request, struct http_response *ret_response) {
        struct http_exchange *exchange = http_begin(http, request);
        char *body;
        size_t size;
        if (!exchange)
                return HTTP_NO_MEMORY;
        enum http_end end = read_all(exchange, &body, &size);
        if (end == HTTP_OK)
                answer(exchange, body, size, ret_response);
        http_close(exchange);
        return end;
}

void http_response_drop(struct http_response *response) {
        free(response->body);
        response->body = NULL;
}
