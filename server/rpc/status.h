// A refusal as google.rpc.Status on the wire (AIP-193): what travels in `grpc-status-details-bin`.
#pragma once

#include "server/rpc/call.h"

// Packs call->refusal into the call's arena: ErrorInfo first, then BadRequest, PreconditionFailure, ResourceInfo,
// RetryInfo as the case has it. 0 where nothing could be packed; the code and message then stand alone. Kept under 4
// kB: core and proxies limit what trailers may hold.
size_t status_pack(struct call *call, const unsigned char **ret_data);

// `INVALID_ARGUMENT` and so on.
const char *code_text(enum code code);
