// Names of branches from idempotency keys. No I/O.
#pragma once

#include <stdbool.h>

enum { BRANCH_NAME_MAX = 240 };

// The prefix (empty: `devopsgenie/`) and the key, as `git check-ref-format` has it. What cannot stand in a name becomes
// `-`, and then 16 hexadecimal digits of the key's SHA-256 follow, so that two keys never have one branch. False: the
// prefix cannot begin a branch's name, or all is too long.
bool branch_name_make(const char *prefix, const char *key, char ret_name[BRANCH_NAME_MAX + 1])
        __attribute__((warn_unused_result));

// Whether `git check-ref-format --branch` would take it.
bool branch_name_good(const char *name);
