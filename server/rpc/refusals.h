// What the refusals of statements mean: a row per reason that a `refusal` column or a violated constraint can give.
#pragma once

#include "server/rpc/call.h"

struct refusal_rule {
        const char *reason; // UPPER_SNAKE_CASE; of a constraint, its name in capitals
        enum code code;
        const char *message;      // `{state}` stands for the column `refusal_state`
        const char *precondition; // the type of a PreconditionFailure; NULL: none
        const char *field;        // INVALID_ARGUMENT: the field's path; NULL: none
        bool about_resource;      // ResourceInfo of the resource named
        unsigned retry_ms;        // RetryInfo; 0: none
};

extern const struct refusal_rule refusal_rules[]; // ends with a NULL reason
