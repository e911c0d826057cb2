// The commands: each takes the options and returns the exit status, having printed what there is to say.
#pragma once

#include "tools/genie/options.h"

int command_token(const struct options *options);
int command_keys(const struct options *options);
int command_import(const struct options *options);
int command_findings(const struct options *options);
int command_demo(const struct options *options);
