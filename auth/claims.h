// What the claims of a token with a good signature say of its bearer.
#pragma once

#include "auth/token.h"

#include <jansson.h>
#include <stdint.h>

enum { TOKEN_SKEW = 60 };

// Checks issuer, audience, times and form, and fills caller, subject, email, service role and expiry. The token is
// good from *ret_not_before on (skew allowed for) until the principal's expire_time and the skew.
enum token_status claims_check(const json_t *claims, const struct token_settings *settings, int64_t now,
        struct principal *ret_principal, int64_t *ret_not_before);
