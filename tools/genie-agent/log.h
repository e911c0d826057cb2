// The agent's own log: one JSON object a line on standard error. Any thread.
#pragma once

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_LEVELS };

// {"time": …, "level": …, "event": event, and the fields}: names and values alternate, NULL-terminated. Never a secret.
void agent_log(enum log_level level, const char *event, ...) __attribute__((sentinel));

// What is less important than this is left out; at first LOG_INFO.
void agent_log_level(enum log_level level);

// False where there is no such level.
bool agent_log_level_parse(const char *name, enum log_level *ret_level);
