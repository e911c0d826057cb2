// From credentials to a principal: verifies tokens, looks keys and memberships up, and remembers both for at most a
// second, so that a revocation holds on every replica within that, whatever else fails.
#pragma once

#include "auth/token.h"
#include "server/rpc/call.h"

struct identity;

// `tokens` may be NULL: then no JWT is accepted.
struct identity *identity_new(struct token_verifier *tokens);
void identity_free(struct identity *identity);

enum identity_status {
        IDENTITY_KNOWN,   // call->principal says who, PRINCIPAL_NONE where there are no credentials
        IDENTITY_WAIT,    // a look-up is under way; ask again when the call runs again
        IDENTITY_REFUSED, // the call is refused
};

// Who calls, from the values of `authorization` and `x-api-key` (NULL: not sent).
enum identity_status identity_authenticate(struct identity *identity, struct call *call, const char *authorization,
        size_t authorization_size, const char *api_key, size_t api_key_size);

// What the principal is in the organization that the call names: fills its organization fields.
enum identity_status identity_locate(struct identity *identity, struct call *call);

// Forgets every look-up: access has changed.
void identity_forget(struct identity *identity);

// The API keys used since the last time whose day of last use is not written yet: their organizations and their ids as
// two PostgreSQL arrays of UUIDs in text form, each of at most `size` bytes. False where there is none.
bool identity_take_used_keys(struct identity *identity, char *ret_organizations, char *ret_keys, size_t size);
