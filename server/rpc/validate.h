// Checks a request against the field rules of the proto files.
#pragma once

#include "server/rpc/call.h"

// False, with the call refused and all violations (up to VIOLATIONS_MAX) named, where a field breaks a rule. For an
// Update it also settles the mask: the one that the request has, checked, or one made of what the resource sets.
bool validate(struct call *call);

// The same for one message of a stream.
bool validate_message(struct call *call, const struct message_rules *rules, const ProtobufCMessage *message);
