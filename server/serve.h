// `genied serve`: everything put together, until a signal ends it.
#pragma once

#include "server/config.h"

int serve(const struct config *config);
