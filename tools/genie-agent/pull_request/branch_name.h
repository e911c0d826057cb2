// Names of branches. No I/O.
#pragma once

#include <stdbool.h>

enum { BRANCH_NAME_MAX = 240 };

// The branch of the tasks with one identity, ORGANIZATION/KEY: the prefix (empty: `devopsgenie/`), the key with `-` in
// the place of what cannot stand in a name, and 16 hexadecimal digits of the identity's SHA-256, so that no two keys
// and no two organizations have one branch. False: the prefix cannot begin a branch's name, or there is no key.
bool branch_name_make(const char *prefix, const char *identity, char ret_name[BRANCH_NAME_MAX + 1])
        __attribute__((warn_unused_result));

// Whether `git check-ref-format --branch` would take it.
bool branch_name_good(const char *name);
