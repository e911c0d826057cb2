// The key that the platform offered in the channel: kept in the state folder (mode 0600, on disk when key_store_keep
// returns true) and used in the place of the configured one, for as long as that is the one that was configured when
// the offer came: an operator who changes it means it.
#pragma once

#include "tools/genie-agent/config.h"

bool key_store_keep(int folder, const char *configured, const char *offered) __attribute__((warn_unused_result));

// False: there is none that belongs to this configured key. The caller wipes ret_key.
bool key_store_find(int folder, const char *configured, char ret_key[static KEY_SIZE]);
