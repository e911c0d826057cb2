// How git hosts say that there was too much of us.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/rate_limit.h"

#define DATE "Wed, 21 Oct 2015 07:28:00 GMT" // 1445412480

static void answers(void **state) {
        (void)state;
        static const struct {
                long status;
                struct rate_headers headers;
                bool limited;
                unsigned after_ms;
        } answers[] = {
                {429, {.date = DATE}, true, 0},
                {429, {.retry_after = "0"}, true, 0},
                {429, {.retry_after = "7"}, true, 7000},
                {429, {.retry_after = "7 "}, true, 7000},
                {429, {.retry_after = "Wed, 21 Oct 2015 07:29:00 GMT", .date = DATE}, true, 60000},
                {429, {.retry_after = "Wed, 21 Oct 2015 07:20:00 GMT", .date = DATE}, true, 0},
                {429, {.retry_after = "99999999999999999999"}, true, 0},
                {429, {.retry_after = "999999999"}, true, RATE_LIMIT_MAX_MS},
                {429, {.retry_after = "-7"}, true, 0},
                {429, {.retry_after = "soon"}, true, 0},
                {429, {.retry_after = ""}, true, 0},
                {403, {.date = DATE}, false, 0},
                {403, {.remaining = "12", .reset = "1445412500", .date = DATE}, false, 0},
                {403, {.remaining = "0", .reset = "1445412500", .date = DATE}, true, 21000},
                {403, {.remaining = "0", .reset = "1445412400", .date = DATE}, true, 1000},
                {403, {.remaining = "0", .reset = "1545412500", .date = DATE}, true, RATE_LIMIT_MAX_MS},
                {403, {.remaining = "0", .date = DATE}, true, 0},
                {403, {.remaining = "x", .date = DATE}, false, 0},
                {403, {.retry_after = "60", .remaining = "0", .reset = "1445412500", .date = DATE}, true, 60000},
                {403, {.retry_after = "60"}, true, 60000}, // GitHub's secondary limit
                {403, {.body = "{\"message\": \"You have exceeded a secondary rate limit.\"}"}, true, 60000},
                {403, {.retry_after = "7", .body = "You have exceeded a secondary rate limit."}, true, 7000},
                {403, {.body = "Resource not accessible by personal access token"}, false, 0},
                {200, {.body = "a file about the rate limit"}, false, 0},
                {503, {.retry_after = "5"}, false, 5000},
                {200, {.remaining = "0", .reset = "1445412500", .date = DATE}, false, 21000},
        };
        for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
                unsigned after_ms = 1;
                bool limited = rate_limited(answers[i].status, &answers[i].headers, &after_ms);
                if (limited != answers[i].limited || after_ms != answers[i].after_ms)
                        fail_msg("row %zu: limited %d, after %u ms", i, limited, after_ms);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(answers)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
