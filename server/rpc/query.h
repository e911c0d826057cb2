// Runs statements for calls: parameters from the request, the way through the storage, the response from the rows.
#pragma once

#include "server/rpc/call_private.h"

// Starts the method's own statement. False with the call refused.
bool query_method(struct core_call *call);

// On the stream thread: takes over the result of a call_query.
void query_deliver(struct core_call *call);
