// Forged, confused and malformed tokens.
#include "auth/jws.h"
#include "token_fixture.h"

static const struct {
        const char *name, *header;
        enum forge_signature signature;
        EVP_PKEY **key;
        enum token_status status;
} headers[] = {
        {"RS256", RS256, SIGN_RS256, &rsa, TOKEN_OK},
        {"ES256", ES256, SIGN_ES256, &ec, TOKEN_OK},
        {"typ JWT", "{\"alg\":\"ES256\",\"kid\":\"e\",\"typ\":\"JWT\"}", SIGN_ES256, &ec, TOKEN_OK},
        {"typ at+jwt", "{\"alg\":\"ES256\",\"kid\":\"e\",\"typ\":\"at+jwt\"}", SIGN_ES256, &ec, TOKEN_OK},
        {"typ with media type", "{\"alg\":\"ES256\",\"kid\":\"e\",\"typ\":\"application/at+JWT\"}", SIGN_ES256, &ec,
                TOKEN_OK},
        {"typ of another kind", "{\"alg\":\"ES256\",\"kid\":\"e\",\"typ\":\"logout+jwt\"}", SIGN_ES256, &ec,
                TOKEN_MALFORMED},
        {"typ no text", "{\"alg\":\"ES256\",\"kid\":\"e\",\"typ\":1}", SIGN_ES256, &ec, TOKEN_MALFORMED},
        {"no kid, one key of the algorithm", "{\"alg\":\"ES256\"}", SIGN_ES256, &ec, TOKEN_OK},
        {"a stranger's key, no kid", "{\"alg\":\"ES256\"}", SIGN_ES256, &stranger_ec, TOKEN_SIGNATURE},
        {"a stranger's RSA key", RS256, SIGN_RS256, &stranger_rsa, TOKEN_SIGNATURE},
        {"a stranger's EC key", ES256, SIGN_ES256, &stranger_ec, TOKEN_SIGNATURE},
        {"unknown kid", "{\"alg\":\"ES256\",\"kid\":\"x\"}", SIGN_ES256, &ec, TOKEN_UNKNOWN_KEY},
        {"empty kid", "{\"alg\":\"ES256\",\"kid\":\"\"}", SIGN_ES256, &ec, TOKEN_UNKNOWN_KEY},
        {"kid no text", "{\"alg\":\"ES256\",\"kid\":null}", SIGN_ES256, &ec, TOKEN_MALFORMED},
        {"kid with a NUL", "{\"alg\":\"ES256\",\"kid\":\"e\\u0000\"}", SIGN_ES256, &ec, TOKEN_MALFORMED},
        // Confusion.
        {"none", "{\"alg\":\"none\"}", SIGN_EMPTY, NULL, TOKEN_ALGORITHM},
        {"none with a kid", "{\"alg\":\"none\",\"kid\":\"e\"}", SIGN_EMPTY, NULL, TOKEN_ALGORITHM},
        {"None", "{\"alg\":\"None\",\"kid\":\"e\"}", SIGN_EMPTY, NULL, TOKEN_ALGORITHM},
        {"none with a good signature", "{\"alg\":\"none\",\"kid\":\"e\"}", SIGN_ES256, &ec, TOKEN_ALGORITHM},
        {"HS256 with the public RSA key", "{\"alg\":\"HS256\",\"kid\":\"r\"}", SIGN_HS256_WITH_PEM, &rsa,
                TOKEN_ALGORITHM},
        {"HS256 with the public EC key", "{\"alg\":\"HS256\",\"kid\":\"e\"}", SIGN_HS256_WITH_PEM, &ec,
                TOKEN_ALGORITHM},
        {"said to be RS256, is HS256", RS256, SIGN_HS256_WITH_PEM, &rsa, TOKEN_SIGNATURE},
        {"RS256 for the EC key's kid", "{\"alg\":\"RS256\",\"kid\":\"e\"}", SIGN_RS256, &rsa, TOKEN_ALGORITHM},
        {"ES256 for the RSA key's kid", "{\"alg\":\"ES256\",\"kid\":\"r\"}", SIGN_ES256, &ec, TOKEN_ALGORITHM},
        {"RS384", "{\"alg\":\"RS384\",\"kid\":\"r\"}", SIGN_RS256, &rsa, TOKEN_ALGORITHM},
        {"PS256", "{\"alg\":\"PS256\",\"kid\":\"r\"}", SIGN_RS256, &rsa, TOKEN_ALGORITHM},
        {"rs256", "{\"alg\":\"rs256\",\"kid\":\"r\"}", SIGN_RS256, &rsa, TOKEN_ALGORITHM},
        {"no alg", "{\"kid\":\"r\"}", SIGN_RS256, &rsa, TOKEN_ALGORITHM},
        {"alg no text", "{\"alg\":[\"RS256\"],\"kid\":\"r\"}", SIGN_RS256, &rsa, TOKEN_ALGORITHM},
        {"alg twice", "{\"alg\":\"RS256\",\"alg\":\"RS256\",\"kid\":\"r\"}", SIGN_RS256, &rsa, TOKEN_MALFORMED},
        // Signatures of the wrong form.
        {"no signature, RS256", RS256, SIGN_EMPTY, NULL, TOKEN_SIGNATURE},
        {"no signature, ES256", ES256, SIGN_EMPTY, NULL, TOKEN_SIGNATURE},
        {"zeros, ES256 (CVE-2022-21449)", ES256, SIGN_ZEROS, NULL, TOKEN_SIGNATURE},
        {"zeros, RS256", RS256, SIGN_ZEROS, NULL, TOKEN_SIGNATURE},
        {"DER, ES256", ES256, SIGN_ES256_AS_DER, &ec, TOKEN_SIGNATURE},
        // What a header may not bring.
        {"crit", "{\"alg\":\"ES256\",\"kid\":\"e\",\"crit\":[\"exp\"]}", SIGN_ES256, &ec, TOKEN_MALFORMED},
        {"header no object", "[]", SIGN_ES256, &ec, TOKEN_MALFORMED},
        {"header no JSON", "alg=ES256", SIGN_ES256, &ec, TOKEN_MALFORMED},
        {"header empty", "", SIGN_ES256, &ec, TOKEN_MALFORMED},
        {"two headers", ES256 ES256, SIGN_ES256, &ec, TOKEN_MALFORMED},
};

static void headers_and_signatures(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(16);
        for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
                const char *token = forge_token(
                        headers[i].header, CLAIMS, headers[i].signature, headers[i].key ? *headers[i].key : NULL);
                enum token_status status = verify_at(verifier, token, now, NULL);
                if (status != headers[i].status)
                        fail_msg("%s: %s, not %s", headers[i].name, token_status_text(status),
                                token_status_text(headers[i].status));
        }
        token_verifier_free(verifier);
}

// A key that its bearer brings along, in whatever way the RFC has for it, is not looked at.
static void keys_in_the_header_are_not_used(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(0);
        char header[4096];
        snprintf(header, sizeof header, "{\"alg\":\"ES256\",\"kid\":\"e\",\"jku\":\"https://evil.example\",\"jwk\":%s}",
                forge_jwk(stranger_ec, ",\"kid\":\"e\""));
        assert_int_equal(
                verify_at(verifier, forge_token(header, CLAIMS, SIGN_ES256, stranger_ec), now, NULL), TOKEN_SIGNATURE);
        token_verifier_free(verifier);
}

static void changed_tokens_are_refused(void **state) {
        (void)state;
        static const char others[] = "Aa-=+/. \n\x80";
        struct token_verifier *verifier = verifier_of(16);
        char token[1024];
        snprintf(token, sizeof token, "%s", forge_token(ES256, CLAIMS, SIGN_ES256, ec));
        size_t size = strlen(token);
        assert_int_equal(verify_at(verifier, token, now, NULL), TOKEN_OK);
        for (size_t i = 0; i < size; i++) {
                struct principal principal;
                char kept = token[i];
                assert_int_not_equal(token_verify(verifier, token, i, now, &principal), TOKEN_OK);
                for (size_t j = 0; j < sizeof others; j++) {
                        token[i] = others[j];
                        if (others[j] != kept)
                                assert_int_not_equal(token_verify(verifier, token, size, now, &principal), TOKEN_OK);
                }
                token[i] = kept;
        }
        static const char *const tails[] = {"A", "AA", "=", "==", ".", ".AAAA", "\n", " "};
        for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
                snprintf(token + size, sizeof token - size, "%s", tails[i]);
                assert_int_not_equal(verify_at(verifier, token, now, NULL), TOKEN_OK);
        }
        token_verifier_free(verifier);
}

static void garbage_is_malformed(void **state) {
        (void)state;
        static const char *const garbage[] = {"", ".", "..", "...", "a.b.c", "a..", "!.!.!", "Bearer x", "e30",
                "e30.e30", "eyJhbGciOiJFUzI1NiJ9", "\xff\xff.\xff.\xff"};
        struct token_verifier *verifier = verifier_of(16);
        for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++)
                assert_int_equal(verify_at(verifier, garbage[i], now, NULL), TOKEN_MALFORMED);
        token_verifier_free(verifier);
}

// A header or claims of brackets alone must not take the stack with it.
static void deep_nesting_is_survived(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(0);
        static char deep[12000];
        memset(deep, '[', sizeof deep - 1);
        char *token = strdup(forge_token(deep, CLAIMS, SIGN_EMPTY, NULL));
        assert_non_null(token);
        assert_true(strlen(token) > JWS_MAX - 400 && strlen(token) <= JWS_MAX);
        assert_int_equal(verify_at(verifier, token, now, NULL), TOKEN_MALFORMED);
        free(token);
        deep[11000] = 0;
        assert_int_equal(verify_at(verifier, forge_token(ES256, deep, SIGN_ES256, ec), now, NULL), TOKEN_MALFORMED);
        token_verifier_free(verifier);
}

static void sixteen_kilobytes_and_no_more(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(0);
        static char claims[14000];
        size_t fixed = strlen(forge_token(ES256, "", SIGN_ES256, ec)), room = (JWS_MAX - fixed) / 4 * 3;
        for (int over = 0; over < 2; over++) {
                snprintf(claims, sizeof claims, "%.*s,\"pad\":\"", (int)strlen(CLAIMS) - 1, CLAIMS);
                size_t at = strlen(claims), end = room - 2 + 3 * (size_t)over;
                memset(claims + at, 'x', end - at);
                snprintf(claims + end, sizeof claims - end, "\"}");
                const char *token = forge_token(ES256, claims, SIGN_ES256, ec);
                assert_true(over ? strlen(token) > JWS_MAX : strlen(token) > JWS_MAX - 4);
                assert_int_equal(verify_at(verifier, token, now, NULL), over ? TOKEN_MALFORMED : TOKEN_OK);
        }
        token_verifier_free(verifier);
}

// Neither from the cache when its time is over, nor when the clock was set back.
int main(void) {
        const struct CMUnitTest tests[] = {
                TOKEN_TEST(headers_and_signatures),
                TOKEN_TEST(keys_in_the_header_are_not_used),
                TOKEN_TEST(changed_tokens_are_refused),
                TOKEN_TEST(garbage_is_malformed),
                TOKEN_TEST(deep_nesting_is_survived),
                TOKEN_TEST(sixteen_kilobytes_and_no_more),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
