// JSON Web Tokens (RFC 7519, RFC 8725; access tokens per RFC 9068), verified against a JSON Web Key Set (RFC 7517).
//
// Accepted: RS256 and ES256, with the algorithm of the key itself (`kty`, `crv`, and `alg` where the key set has
// it); `typ` JWT, at+jwt or none; issuer, audience and exp required; exp, nbf, iat within 60 s of skew. A service
// role comes from the claim `genie_service_role` (`platform-admin`, `scanner`, `assistant`): a token with it is a
// service, without it a user. An e-mail address counts only with `email_verified` true.
#pragma once

#include "auth/principal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct token_verifier;

// Its texts stay the caller's and outlive the verifier.
struct token_settings {
        const char *jwks_file;      // the key set; read at start and when it changes
        const char *const *issuers; // NULL-terminated; `iss` must be one of them
        const char *audience;       // must be in `aud`
        unsigned cache_size;        // verified tokens that are remembered by hash
        // Called by whichever thread looked when a changed key set cannot be used: once for each change, or at each
        // look while it cannot be read. May be NULL.
        void (*log)(const char *event, const char *detail);
};

// Why a token is refused. The caller of the API sees one answer for all of them; the log has the reason.
enum token_status {
        TOKEN_OK,
        TOKEN_MALFORMED,
        TOKEN_ALGORITHM,
        TOKEN_UNKNOWN_KEY,
        TOKEN_SIGNATURE,
        TOKEN_EXPIRED,
        TOKEN_NOT_YET,
        TOKEN_ISSUER,
        TOKEN_AUDIENCE,
        TOKEN_CLAIMS,
        TOKEN_FAILURE /* ours: memory, OpenSSL */
};

// Reads the key set. NULL with *ret_error (malloc'ed) when the file cannot be read or has no usable key.
struct token_verifier *token_verifier_new(const struct token_settings *settings, char **ret_error);
void token_verifier_free(struct token_verifier *verifier);

// Verifies a token at `now` (Unix seconds). Any thread. Looks at most once a second whether the key set file has
// changed; a changed file that cannot be used leaves the last good set in force. Verified tokens are cached by
// SHA-256, never past exp or the key's removal.
enum token_status token_verify(
        struct token_verifier *verifier, const char *token, size_t size, int64_t now, struct principal *ret_principal);

// The word for the log.
const char *token_status_text(enum token_status status);

// For `genie token`: an EC P-256 key pair; the private key as a PEM file (0600) and the public one as a JWKS file.
bool token_keys_make(const char *private_key_file, const char *jwks_file, char **ret_error);

struct token_claims {
        const char *issuer, *audience, *subject, *email, *service_role; // email, service_role: NULL for none
        int64_t issued, expires;
};

// Signs a token with a private key file that token_keys_make wrote. malloc'ed; NULL with *ret_error.
char *token_sign(const char *private_key_file, const struct token_claims *claims, char **ret_error);
