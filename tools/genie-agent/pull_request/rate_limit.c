#include "tools/genie-agent/pull_request/rate_limit.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SECONDARY_MS = 60 * 1000 };

static bool number(const char *text, int64_t *ret_number) {
        if (!text || *text < '0' || *text > '9')
                return false;
        char *end;
        errno = 0;
        long long value = strtoll(text, &end, 10);
        if (errno != 0 || end[strspn(end, " \t")] != '\0')
                return false;
        *ret_number = value;
        return true;
}

static int64_t host_now(const struct rate_headers *headers) {
        int64_t now = headers->date ? curl_getdate(headers->date, NULL) : -1;
        return now >= 0 ? now : time(NULL);
}

static unsigned wait_ms(int64_t seconds) {
        int64_t most = RATE_LIMIT_MAX_MS / 1000;
        return (unsigned)((seconds < 0 ? 0 : seconds > most ? most : seconds) * 1000);
}

static unsigned after_ms(const struct rate_headers *headers) {
        int64_t value;
        if (number(headers->retry_after, &value))
                return wait_ms(value);
        if (headers->retry_after && (value = curl_getdate(headers->retry_after, NULL)) >= 0)
                return wait_ms(value - host_now(headers));
        if (headers->remaining && strcmp(headers->remaining, "0") == 0 && number(headers->reset, &value))
                return wait_ms(value < host_now(headers) ? 1 : value - host_now(headers) + 1); // seconds are cut
        return 0;
}

bool rate_limited(long status, const struct rate_headers *headers, unsigned *ret_after_ms) {
        int64_t remaining;
        *ret_after_ms = after_ms(headers);
        if (status == 429 ||
                (status == 403 && (headers->retry_after || (number(headers->remaining, &remaining) && remaining == 0))))
                return true;
        if (status != 403 || !headers->body || !strcasestr(headers->body, "rate limit"))
                return false;
        *ret_after_ms = SECONDARY_MS;
        return true;
}
