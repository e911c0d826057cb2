// Resource names (AIP-122): where a request has its name, and what stands in it.
#pragma once

#include "server/rpc/call.h"

// Finds the resource name in the request by the method's rule, and the organization that it begins with: as much as the
// access decision needs. False, with the call refused, where it is missing or has no organization.
bool name_locate(struct call *call);

// Splits the rest of the name into call->name_values. False, with the call refused, where it is malformed. After
// name_locate, and after the access decision: who may not see an organization learns nothing of its names (AIP-211).
bool name_check(struct call *call);

// `[a-z][a-z0-9-]{2,62}`
bool is_slug(const char *text, size_t size);
// The 36-character form, of any version, in either case.
bool is_uuid(const char *text, size_t size);
