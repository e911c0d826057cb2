// What the APIs say and want to hear, as JSON. No I/O.
#pragma once

#include "tools/genie-agent/pull_request/forge.h"

// One pull request; false where it is none, or one of a fork's branch.
bool forge_json_pull_request(enum forge_kind kind, const json_t *json, struct forge_pull_request *ret_found)
        __attribute__((warn_unused_result));

// The one of a list that counts: open before merged before closed, then the newest. Not found in an empty list.
void forge_json_choose(enum forge_kind kind, const json_t *list, struct forge_pull_request *ret_found);

bool forge_json_repository(const json_t *json, struct forge_repository *ret_repository)
        __attribute__((warn_unused_result));

// The body of the request that makes one; NULL: no memory, or not UTF-8.
json_t *forge_json_create(enum forge_kind kind, const struct forge_wish *wish);
