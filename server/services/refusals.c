#include "server/rpc/refusals.h"

const struct refusal_rule refusal_rules[] = {
        {0},
};
