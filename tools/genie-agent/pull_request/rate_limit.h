// How git hosts say that there was too much of us. No I/O.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { RATE_LIMIT_MAX_MS = 3600 * 1000 };

// What an answer says; NULL where it does not.
struct rate_headers {
        const char *retry_after;       // seconds or a date (RFC 9110, section 10.2.3)
        const char *remaining, *reset; // GitHub: x-ratelimit-remaining, and -reset in Unix seconds
        const char *date;              // the host's clock, which -reset and a date go by
        const char *body;
};

// Whether an answer is one: 429 always; GitHub's 403 where Retry-After is there, nothing remains, or the body speaks of
// it. *ret_after_ms is how long to wait, 0 where the host does not say, at most an hour; a minute where only the body
// says it, as GitHub's documentation has it. A host that is unavailable (503) may say it too.
bool rate_limited(long status, const struct rate_headers *headers, unsigned *ret_after_ms);
