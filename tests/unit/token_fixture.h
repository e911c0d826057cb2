// What the suites of the token verifier share: keys, a key set file, a verifier.
#pragma once

#include "auth/token.h"
#include "cmocka_all.h"
#include "forge.h"
#include "scratch.h"

// 2027-01-15T08:00:00Z
#define NOW_TEXT "1800000000"
static const int64_t now = 1800000000;

static const char *const issuers[] = {"https://genie.local", "https://login.example", NULL};
static struct scratch scratch;
static char jwks_file[80];
static EVP_PKEY *rsa, *ec, *stranger_rsa, *stranger_ec;
static unsigned problems;

static inline void count_problem(const char *event, const char *detail) {
        assert_string_equal(event, "key_set_unusable");
        assert_ptr_equal(strstr(detail, scratch.folder), detail);
        problems++;
}

static inline void write_keys(const char *text) { scratch_write(&scratch, "jwks", text, 0644); }

static inline const char *usual_keys(void) {
        return forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), forge_jwk(ec, ",\"kid\":\"e\""), NULL);
}

static inline struct token_verifier *verifier_of(unsigned cache_size) {
        char *error = NULL;
        const struct token_settings settings = {
                .jwks_file = jwks_file,
                .issuers = issuers,
                .audience = "devopsgenie",
                .cache_size = cache_size,
                .log = count_problem,
        };
        struct token_verifier *verifier = token_verifier_new(&settings, &error);
        if (!verifier)
                fail_msg("%s", error);
        return verifier;
}

static inline enum token_status verify_at(
        struct token_verifier *verifier, const char *token, int64_t at, struct principal *ret_principal) {
        struct principal principal = {.kind = PRINCIPAL_NONE};
        enum token_status status = token_verify(verifier, token, strlen(token), at, &principal);
        if (status != TOKEN_OK)
                assert_int_equal(principal.kind, PRINCIPAL_NONE); // untouched
        if (ret_principal)
                *ret_principal = principal;
        return status;
}

#define ISS "\"iss\":\"https://genie.local\""
#define AUD "\"aud\":\"devopsgenie\""
#define SUB "\"sub\":\"ada\""
#define EXP "\"exp\":1800003600"
#define CLAIMS "{" ISS "," AUD "," SUB "," EXP "}"
#define RS256 "{\"alg\":\"RS256\",\"kid\":\"r\"}"
#define ES256 "{\"alg\":\"ES256\",\"kid\":\"e\"}"

static inline int setup(void **state) {
        (void)state;
        rsa = EVP_RSA_gen(2048);
        ec = EVP_EC_gen("P-256");
        stranger_rsa = EVP_RSA_gen(2048);
        stranger_ec = EVP_EC_gen("P-256");
        scratch_make(&scratch);
        snprintf(jwks_file, sizeof jwks_file, "%s", scratch_path(&scratch, "jwks"));
        return rsa && ec && stranger_rsa && stranger_ec ? 0 : -1;
}

static inline int teardown(void **state) {
        (void)state;
        EVP_PKEY_free(rsa);
        EVP_PKEY_free(ec);
        EVP_PKEY_free(stranger_rsa);
        EVP_PKEY_free(stranger_ec);
        scratch_drop(&scratch);
        return 0;
}

static inline int usual(void **state) {
        (void)state;
        problems = 0;
        write_keys(usual_keys());
        return 0;
}

// One test, with the usual key set in force.
#define TOKEN_TEST(function) cmocka_unit_test_setup(function, usual)
