// Checking requests: what the suites of server/rpc/validate.h share.
#pragma once

#include "server/rpc/validate.h"
#include "tests/unit/call_fixture.h"

#include <stdlib.h>

#define ID "018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f"
#define TEXT(literal) ((char[]){literal})

// Checks that the call's request is refused for one field, and why.
static inline void assert_refused(struct call *call, const char *field, const char *why) {
        assert_false(validate(call));
        assert_int_equal(call->refusal.code, CODE_INVALID_ARGUMENT);
        assert_string_equal(call->refusal.reason, "FIELD_INVALID");
        assert_int_equal(call->refusal.violation_count, 1);
        assert_string_equal(call->refusal.violations[0].name, field);
        if (!strstr(call->refusal.violations[0].value, why))
                fail_msg("%s: %s", field, call->refusal.violations[0].value);
        call_forgive(call);
}

static inline void assert_valid(struct call *call) {
        if (!validate(call))
                fail_msg("%s", call->refusal.message);
}

// A text of `count` times `part`; freed with free.
static inline char *repeat(const char *part, size_t count) {
        size_t size = strlen(part);
        char *text = malloc(size * count + 1);
        assert_non_null(text);
        for (size_t i = 0; i < count; i++)
                memcpy(text + i * size, part, size);
        text[size * count] = 0;
        return text;
}
