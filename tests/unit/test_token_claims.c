// Claims: which are refused, and whom the others make.
#include "token_fixture.h"

#define LONG_50 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LONG_255 LONG_50 LONG_50 LONG_50 LONG_50 LONG_50 "aaaaa"

static const struct {
        const char *name, *claims;
        enum token_status status;
} claims_rows[] = {
        {"usual", CLAIMS, TOKEN_OK},
        {"second issuer", "{\"iss\":\"https://login.example\"," AUD "," SUB "," EXP "}", TOKEN_OK},
        {"unknown issuer", "{\"iss\":\"https://evil.example\"," AUD "," SUB "," EXP "}", TOKEN_ISSUER},
        {"issuer with a slash", "{\"iss\":\"https://genie.local/\"," AUD "," SUB "," EXP "}", TOKEN_ISSUER},
        {"no issuer", "{" AUD "," SUB "," EXP "}", TOKEN_ISSUER},
        {"issuer no text", "{\"iss\":[\"https://genie.local\"]," AUD "," SUB "," EXP "}", TOKEN_ISSUER},
        {"audiences", "{" ISS ",\"aud\":[\"x\",\"devopsgenie\"]," SUB "," EXP "}", TOKEN_OK},
        {"wrong audience", "{" ISS ",\"aud\":\"devopsgenie2\"," SUB "," EXP "}", TOKEN_AUDIENCE},
        {"wrong audiences", "{" ISS ",\"aud\":[\"x\",7,null,[\"devopsgenie\"]]," SUB "," EXP "}", TOKEN_AUDIENCE},
        {"no audiences", "{" ISS ",\"aud\":[]," SUB "," EXP "}", TOKEN_AUDIENCE},
        {"audience an object", "{" ISS ",\"aud\":{\"devopsgenie\":\"devopsgenie\"}," SUB "," EXP "}", TOKEN_AUDIENCE},
        {"no audience", "{" ISS "," SUB "," EXP "}", TOKEN_AUDIENCE},
        // Times, with 60 s of skew.
        {"no exp", "{" ISS "," AUD "," SUB "}", TOKEN_CLAIMS},
        {"exp no number", "{" ISS "," AUD "," SUB ",\"exp\":\"1800003600\"}", TOKEN_CLAIMS},
        {"exp null", "{" ISS "," AUD "," SUB ",\"exp\":null}", TOKEN_CLAIMS},
        {"exp below zero", "{" ISS "," AUD "," SUB ",\"exp\":-1}", TOKEN_CLAIMS},
        {"exp after the year 9999", "{" ISS "," AUD "," SUB ",\"exp\":253402300800}", TOKEN_CLAIMS},
        {"exp at the end of int64", "{" ISS "," AUD "," SUB ",\"exp\":9223372036854775807}", TOKEN_CLAIMS},
        {"exp beyond int64", "{" ISS "," AUD "," SUB ",\"exp\":9223372036854775808}", TOKEN_MALFORMED},
        {"exp far beyond", "{" ISS "," AUD "," SUB ",\"exp\":1e300}", TOKEN_CLAIMS},
        {"exp zero", "{" ISS "," AUD "," SUB ",\"exp\":0}", TOKEN_EXPIRED},
        {"exp 60 s ago", "{" ISS "," AUD "," SUB ",\"exp\":1799999940}", TOKEN_EXPIRED},
        {"exp 59 s ago", "{" ISS "," AUD "," SUB ",\"exp\":1799999941}", TOKEN_OK},
        {"exp with a fraction", "{" ISS "," AUD "," SUB ",\"exp\":1800003600.5}", TOKEN_OK},
        {"nbf in 60 s", "{" ISS "," AUD "," SUB "," EXP ",\"nbf\":1800000060}", TOKEN_OK},
        {"nbf in 61 s", "{" ISS "," AUD "," SUB "," EXP ",\"nbf\":1800000061}", TOKEN_NOT_YET},
        {"nbf no number", "{" ISS "," AUD "," SUB "," EXP ",\"nbf\":true}", TOKEN_CLAIMS},
        {"iat in 60 s", "{" ISS "," AUD "," SUB "," EXP ",\"iat\":1800000060}", TOKEN_OK},
        {"iat in 61 s", "{" ISS "," AUD "," SUB "," EXP ",\"iat\":1800000061}", TOKEN_NOT_YET},
        {"iat in 61 s, nbf past", "{" ISS "," AUD "," SUB "," EXP ",\"nbf\":1,\"iat\":1800000061}", TOKEN_NOT_YET},
        {"nbf in 61 s, iat past", "{" ISS "," AUD "," SUB "," EXP ",\"iat\":1,\"nbf\":1800000061}", TOKEN_NOT_YET},
        {"iat no number", "{" ISS "," AUD "," SUB "," EXP ",\"iat\":\"x\"}", TOKEN_CLAIMS},
        // Subjects.
        {"no subject", "{" ISS "," AUD "," EXP "}", TOKEN_CLAIMS},
        {"empty subject", "{" ISS "," AUD ",\"sub\":\"\"," EXP "}", TOKEN_CLAIMS},
        {"subject no text", "{" ISS "," AUD ",\"sub\":7," EXP "}", TOKEN_CLAIMS},
        {"subject of 255 bytes", "{" ISS "," AUD ",\"sub\":\"" LONG_255 "\"," EXP "}", TOKEN_OK},
        {"subject of 256 bytes", "{" ISS "," AUD ",\"sub\":\"" LONG_255 "b\"," EXP "}", TOKEN_CLAIMS},
        {"subject with a letter of two bytes", "{" ISS "," AUD ",\"sub\":\"\u00e4da\u00a0\"," EXP "}", TOKEN_OK},
        {"subject with a line feed", "{" ISS "," AUD ",\"sub\":\"a\\nb\"," EXP "}", TOKEN_CLAIMS},
        {"subject with DEL", "{" ISS "," AUD ",\"sub\":\"a\\u007f\"," EXP "}", TOKEN_CLAIMS},
        {"subject with C1", "{" ISS "," AUD ",\"sub\":\"a\\u009bb\"," EXP "}", TOKEN_CLAIMS},
        {"subject with NUL", "{" ISS "," AUD ",\"sub\":\"a\\u0000b\"," EXP "}", TOKEN_MALFORMED},
        {"subject of invalid UTF-8", "{" ISS "," AUD ",\"sub\":\"a\xff\"," EXP "}", TOKEN_MALFORMED},
        // Services.
        {"service", "{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":\"scanner\"}", TOKEN_OK},
        {"unknown service", "{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":\"root\"}", TOKEN_CLAIMS},
        {"empty service", "{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":\"\"}", TOKEN_CLAIMS},
        {"service null", "{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":null}", TOKEN_CLAIMS},
        {"service by number", "{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":1}", TOKEN_CLAIMS},
        {"services", "{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":[\"scanner\"]}", TOKEN_CLAIMS},
        // Forms.
        {"sub twice", "{" ISS "," AUD "," SUB "," EXP ",\"sub\":\"root\"}", TOKEN_MALFORMED},
        {"exp twice", "{" ISS "," AUD "," SUB ",\"exp\":1," EXP "}", TOKEN_MALFORMED},
        {"no claims", "{}", TOKEN_ISSUER},
        {"no object", "[" CLAIMS "]", TOKEN_MALFORMED},
        {"no JSON", "iss", TOKEN_MALFORMED},
        {"nothing", "", TOKEN_MALFORMED},
};

static void claims_are_checked(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(16);
        for (size_t i = 0; i < sizeof claims_rows / sizeof *claims_rows; i++) {
                const char *token = forge_token(ES256, claims_rows[i].claims, SIGN_ES256, ec);
                for (int round = 0; round < 2; round++) { // the second from the cache, where it is in there
                        enum token_status status = verify_at(verifier, token, now, NULL);
                        if (status != claims_rows[i].status)
                                fail_msg("%s: %s, not %s", claims_rows[i].name, token_status_text(status),
                                        token_status_text(claims_rows[i].status));
                }
        }
        token_verifier_free(verifier);
}

static const struct {
        const char *claims;
        enum principal_kind kind;
        enum service_role service_role;
        const char *caller, *email;
} principals[] = {
        {"{" ISS "," AUD "," SUB "," EXP "}", PRINCIPAL_USER, SERVICE_ROLE_NONE, "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"Ada@Acme.Example\",\"email_verified\":true}", PRINCIPAL_USER,
                SERVICE_ROLE_NONE, "user:ada", "ada@acme.example"},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"ada@acme.example\"}", PRINCIPAL_USER, SERVICE_ROLE_NONE,
                "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"ada@acme.example\",\"email_verified\":false}", PRINCIPAL_USER,
                SERVICE_ROLE_NONE, "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"ada@acme.example\",\"email_verified\":\"true\"}", PRINCIPAL_USER,
                SERVICE_ROLE_NONE, "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"ada\",\"email_verified\":true}", PRINCIPAL_USER,
                SERVICE_ROLE_NONE, "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"a@b@c\",\"email_verified\":true}", PRINCIPAL_USER,
                SERVICE_ROLE_NONE, "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":\"" LONG_255 "@b\",\"email_verified\":true}", PRINCIPAL_USER,
                SERVICE_ROLE_NONE, "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"email\":7,\"email_verified\":true}", PRINCIPAL_USER, SERVICE_ROLE_NONE,
                "user:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":\"platform-admin\"}", PRINCIPAL_SERVICE,
                SERVICE_ROLE_PLATFORM_ADMIN, "service:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP ",\"genie_service_role\":\"scanner\"}", PRINCIPAL_SERVICE,
                SERVICE_ROLE_SCANNER, "service:ada", ""},
        {"{" ISS "," AUD "," SUB "," EXP
         ",\"genie_service_role\":\"assistant\",\"email\":\"a@b\",\"email_verified\":true}",
                PRINCIPAL_SERVICE, SERVICE_ROLE_ASSISTANT, "service:ada", ""},
};

static void tokens_become_principals(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(64);
        for (size_t i = 0; i < sizeof principals / sizeof *principals; i++) {
                const char *token = forge_token(RS256, principals[i].claims, SIGN_RS256, rsa);
                for (int round = 0; round < 2; round++) {
                        struct principal principal;
                        assert_int_equal(verify_at(verifier, token, now, &principal), TOKEN_OK);
                        assert_int_equal(principal.kind, principals[i].kind);
                        assert_int_equal(principal.service_role, principals[i].service_role);
                        assert_string_equal(principal.caller, principals[i].caller);
                        assert_string_equal(principal.subject, "ada");
                        assert_string_equal(principal.email, principals[i].email);
                        assert_int_equal(principal.expire_time, now + 3600);
                        assert_int_equal(principal.role, ROLE_NONE);
                        assert_string_equal(principal.organization_slug, "");
                }
        }
        token_verifier_free(verifier);
}

// The caller of a subject at full length is whole, with its kind.
static void the_longest_caller_fits(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(0);
        struct principal principal;
        const char *token = forge_token(ES256,
                "{" ISS "," AUD ",\"sub\":\"" LONG_255 "\"," EXP ",\"genie_service_role\":\"scanner\"}", SIGN_ES256,
                ec);
        assert_int_equal(verify_at(verifier, token, now, &principal), TOKEN_OK);
        assert_string_equal(principal.caller, "service:" LONG_255);
        token_verifier_free(verifier);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TOKEN_TEST(claims_are_checked),
                TOKEN_TEST(tokens_become_principals),
                TOKEN_TEST(the_longest_caller_fits),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
