// Turns what a statement gave into the refusal of its call: a row with a reason, a violated constraint, a database that
// is not there. On the thread that the call belongs to.
#pragma once

#include "server/rpc/call_private.h"

// Whether the result's first row is a refusal; the call is refused for it then.
bool refuse_by_row(struct core_call *call, const PGresult *result);

// Whether the statement was carried out; the call is refused where it was not.
bool call_check_outcome(struct core_call *call, enum storage_outcome outcome, const PGresult *result);
