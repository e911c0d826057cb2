#include "auth/claims.h"

#include <stdio.h>
#include <string.h>

// 9999-12-31T23:59:59Z, the last that a Timestamp can hold.
static const int64_t last_time = 253402300799;

static bool issuer_known(const json_t *claims, const char *const *issuers) {
        const char *issuer = json_string_value(json_object_get(claims, "iss"));
        for (; issuer && *issuers; issuers++)
                if (strcmp(issuer, *issuers) == 0)
                        return true;
        return false;
}

static bool string_is(const json_t *json, const char *text) {
        return json_is_string(json) && strcmp(json_string_value(json), text) == 0;
}

static bool audience_named(const json_t *claims, const char *audience) {
        const json_t *named = json_object_get(claims, "aud");
        for (size_t i = 0; i < json_array_size(named); i++)
                if (string_is(json_array_get(named, i), audience))
                        return true;
        return string_is(named, audience);
}

// A time may have a fraction (RFC 7519, NumericDate). False for what is no time between 1970 and 9999.
static bool read_time(const json_t *json, int64_t *ret_time) {
        double value = json_number_value(json);
        if (!json_is_number(json) || !(value >= 0) || value > (double)last_time)
                return false;
        *ret_time = json_is_integer(json) ? json_integer_value(json) : (int64_t)value;
        return true;
}

static enum token_status check_times(
        const json_t *claims, int64_t now, int64_t *ret_expire_time, int64_t *ret_not_before) {
        static const char *const starts[] = {"nbf", "iat"};
        int64_t not_before = INT64_MIN, expire_time;
        if (!read_time(json_object_get(claims, "exp"), &expire_time))
                return TOKEN_CLAIMS;
        if (now >= expire_time + TOKEN_SKEW)
                return TOKEN_EXPIRED;
        for (size_t i = 0; i < 2; i++) {
                const json_t *start = json_object_get(claims, starts[i]);
                int64_t time;
                if (!start)
                        continue;
                if (!read_time(start, &time))
                        return TOKEN_CLAIMS;
                if (time - TOKEN_SKEW > not_before)
                        not_before = time - TOKEN_SKEW;
        }
        if (now < not_before)
                return TOKEN_NOT_YET;
        *ret_expire_time = expire_time;
        *ret_not_before = not_before;
        return TOKEN_OK;
}

// Neither C0, DEL nor C1 (U+0080 to U+009F, in UTF-8 C2 80 to C2 9F): subjects are shown and logged.
static bool has_control(const char *text) {
        for (const unsigned char *at = (const unsigned char *)text; *at; at++)
                if (*at < 0x20 || *at == 0x7f || (*at == 0xc2 && at[1] < 0xa0))
                        return true;
        return false;
}

static enum service_role service_role_named(const char *name) {
        static const char *const names[] = {
                [SERVICE_ROLE_PLATFORM_ADMIN] = "platform-admin",
                [SERVICE_ROLE_SCANNER] = "scanner",
                [SERVICE_ROLE_ASSISTANT] = "assistant",
        };
        for (unsigned i = SERVICE_ROLE_PLATFORM_ADMIN; name && i <= SERVICE_ROLE_ASSISTANT; i++)
                if (strcmp(name, names[i]) == 0)
                        return i;
        return SERVICE_ROLE_NONE;
}

static bool read_subject(const json_t *claims, struct principal *principal) {
        const json_t *subject = json_object_get(claims, "sub");
        const json_t *role = json_object_get(claims, "genie_service_role");
        size_t length = json_string_length(subject);
        if (length == 0 || length > SUBJECT_MAX || has_control(json_string_value(subject)))
                return false;
        memcpy(principal->subject, json_string_value(subject), length + 1);
        principal->kind = role ? PRINCIPAL_SERVICE : PRINCIPAL_USER;
        principal->service_role = service_role_named(json_string_value(role));
        snprintf(principal->caller, sizeof principal->caller, "%s:%s", role ? "service" : "user", principal->subject);
        // A token for a service that we do not know must not pass as a user's.
        return !role || principal->service_role != SERVICE_ROLE_NONE;
}

// Members are found by their address, so one that is not verified, or no address, counts as none.
static void read_email(const json_t *claims, struct principal *principal) {
        const json_t *email = json_object_get(claims, "email");
        size_t length = json_string_length(email);
        if (!json_is_true(json_object_get(claims, "email_verified")) || length == 0 || length > EMAIL_MAX)
                return;
        const char *text = json_string_value(email), *at = strchr(text, '@');
        if (!at || at == text || !at[1] || strchr(at + 1, '@') || strchr(text, ' ') || has_control(text))
                return;
        for (size_t i = 0; i <= length; i++)
                principal->email[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 'a' - 'A' : text[i]);
}

enum token_status claims_check(const json_t *claims, const struct token_settings *settings, int64_t now,
        struct principal *ret_principal, int64_t *ret_not_before) {
        struct principal principal = {.kind = PRINCIPAL_NONE};
        if (!issuer_known(claims, settings->issuers))
                return TOKEN_ISSUER;
        if (!audience_named(claims, settings->audience))
                return TOKEN_AUDIENCE;
        enum token_status status = check_times(claims, now, &principal.expire_time, ret_not_before);
        if (status != TOKEN_OK)
                return status;
        if (!read_subject(claims, &principal))
                return TOKEN_CLAIMS;
        if (principal.kind == PRINCIPAL_USER)
                read_email(claims, &principal);
        *ret_principal = principal;
        return TOKEN_OK;
}
