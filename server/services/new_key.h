// A new key for what a Create or a rotation makes: its text goes into the answer, all else into the statement.
#pragma once

#include "server/rpc/call.h"

// Makes a key of a scheme (auth/api_key.h). Its text waits in call->state and is wiped with the call; its hash and its
// prefix are given[0] and given[1]. False with the call failed.
bool give_new_key(struct call *call, const char *scheme);
