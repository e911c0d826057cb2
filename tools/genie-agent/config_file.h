// The configuration file of genie-agent; helps config.c.
#pragma once

#include "tools/genie-agent/config.h"

// Says in a line on standard error what is wrong; returns false, so that a function can end with it.
bool config_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool config_file_read(struct agent_config *config, const char *path) __attribute__((warn_unused_result));

// Of config.c: sets an option by its name.
bool config_set_from_file(struct agent_config *config, const char *name, const json_t *value, bool *ret_known)
        __attribute__((warn_unused_result));
bool config_add_label(struct agent_config *config, const char *name, const char *value)
        __attribute__((warn_unused_result));
bool config_set_labels(struct agent_config *config, const json_t *value) __attribute__((warn_unused_result));
