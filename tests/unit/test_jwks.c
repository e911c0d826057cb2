// Key sets, and a signature that others made: the ES256 example of RFC 7515.
#include "auth/jwks.h"
#include "auth/jws.h"
#include "cmocka_all.h"
#include "forge.h"

#include <string.h>

static EVP_PKEY *rsa, *rsa_weak, *ec, *ec_p384;

static int setup(void **state) {
        (void)state;
        rsa = EVP_RSA_gen(2048);
        rsa_weak = EVP_RSA_gen(2040);
        ec = EVP_EC_gen("P-256");
        ec_p384 = EVP_EC_gen("P-384");
        return rsa && rsa_weak && ec && ec_p384 ? 0 : -1;
}

static int teardown(void **state) {
        (void)state;
        EVP_PKEY_free(rsa);
        EVP_PKEY_free(rsa_weak);
        EVP_PKEY_free(ec);
        EVP_PKEY_free(ec_p384);
        return 0;
}

static struct jwks *parse(const char *text) {
        char *error = NULL;
        struct jwks *set = jwks_parse(text, strlen(text), &error);
        if (!set)
                fail_msg("%s: %s", error, text);
        return set;
}

static void refused(const char *text, const char *word) {
        char *error = NULL;
        if (jwks_parse(text, strlen(text), &error))
                fail_msg("taken: %s", text);
        if (!strstr(error, word))
                fail_msg("\"%s\" does not say \"%s\": %s", error, word, text);
        free(error);
}

static void found(const struct jwks *set, const char *kid, enum jws_algorithm algorithm, const EVP_PKEY *expected) {
        EVP_PKEY *key = NULL;
        assert_int_equal(jwks_find(set, kid, algorithm, &key), TOKEN_OK);
        assert_int_equal(EVP_PKEY_eq(key, expected), 1);
        EVP_PKEY_free(key);
}

static void not_found(
        const struct jwks *set, const char *kid, enum jws_algorithm algorithm, enum token_status expected) {
        EVP_PKEY *key = NULL;
        assert_int_equal(jwks_find(set, kid, algorithm, &key), expected);
        assert_null(key);
}

static void keys_are_found_by_kid_and_algorithm(void **state) {
        (void)state;
        struct jwks *set = parse(forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), forge_jwk(ec, ",\"kid\":\"e\""), NULL));
        found(set, "r", JWS_RS256, rsa);
        found(set, "e", JWS_ES256, ec);
        not_found(set, "e", JWS_RS256, TOKEN_ALGORITHM);
        not_found(set, "r", JWS_ES256, TOKEN_ALGORITHM);
        not_found(set, "R", JWS_RS256, TOKEN_UNKNOWN_KEY);
        not_found(set, "", JWS_RS256, TOKEN_UNKNOWN_KEY);
        found(set, NULL, JWS_RS256, rsa);
        found(set, NULL, JWS_ES256, ec);
        jwks_free(set);
}

static void without_kid_there_must_be_no_choice(void **state) {
        (void)state;
        EVP_PKEY *second = EVP_EC_gen("P-256");
        struct jwks *set = parse(forge_set(forge_jwk(ec, ",\"kid\":\"1\""), forge_jwk(second, ",\"kid\":\"2\""), NULL));
        not_found(set, NULL, JWS_ES256, TOKEN_UNKNOWN_KEY);
        not_found(set, NULL, JWS_RS256, TOKEN_UNKNOWN_KEY);
        found(set, "2", JWS_ES256, second);
        jwks_free(set);
        // A key without a name is not the one that a token names.
        set = parse(forge_set(forge_jwk(ec, ""), NULL, NULL));
        not_found(set, "1", JWS_ES256, TOKEN_UNKNOWN_KEY);
        not_found(set, "", JWS_ES256, TOKEN_UNKNOWN_KEY);
        found(set, NULL, JWS_ES256, ec);
        jwks_free(set);
        EVP_PKEY_free(second);
}

// A found key stays good when its set goes, as it does when the file changes in the middle of a call.
static void keys_outlive_their_set(void **state) {
        (void)state;
        EVP_PKEY *key = NULL;
        struct jwks *set = parse(forge_set(forge_jwk(ec, ""), NULL, NULL));
        assert_int_equal(jwks_find(set, NULL, JWS_ES256, &key), TOKEN_OK);
        jwks_free(set);
        assert_int_equal(EVP_PKEY_eq(key, ec), 1);
        EVP_PKEY_free(key);
}

static void keys_for_other_uses_are_passed_over(void **state) {
        (void)state;
        static const char *const foreign[] = {
                ",\"use\":\"enc\"",
                ",\"use\":7",
                ",\"alg\":\"PS256\"",
                ",\"alg\":\"HS256\"",
                ",\"alg\":\"ES256\"",
                ",\"alg\":\"RS512\"",
                ",\"alg\":null",
                ",\"key_ops\":[\"sign\"]",
                ",\"key_ops\":\"verify\"",
                ",\"key_ops\":[]",
                ",\"kid\":7",
        };
        for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
                refused(forge_set(forge_jwk(rsa, foreign[i]), NULL, NULL), "no key");
        static const char *const ours[] = {
                ",\"use\":\"sig\"", ",\"alg\":\"RS256\"", ",\"key_ops\":[\"sign\",\"verify\"]", ",\"x5t\":\"abc\""};
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
                struct jwks *set = parse(forge_set(forge_jwk(rsa, ours[i]), NULL, NULL));
                found(set, NULL, JWS_RS256, rsa);
                jwks_free(set);
        }
        // They do no harm to the ones that are ours, not even with the same name.
        struct jwks *set = parse(forge_set("{\"kty\":\"oct\",\"k\":\"c2VjcmV0\",\"kid\":\"r\"}",
                forge_jwk(ec, ",\"kid\":\"r\",\"use\":\"enc\""), forge_jwk(rsa, ",\"kid\":\"r\"")));
        found(set, "r", JWS_RS256, rsa);
        jwks_free(set);
}

#define X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC_JWK(x, y) "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" x "\",\"y\":\"" y "\"}"

static void weak_and_malformed_keys_are_passed_over(void **state) {
        (void)state;
        static const char *const malformed[] = {
                EC_JWK(X, X), // not on the curve
                EC_JWK("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
                EC_JWK(X, ""),
                EC_JWK(X, "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0A"),
                EC_JWK(X, "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a"),
                EC_JWK(X, "x/FEzRu9m36HLN/tue659LNpXW6pCyStikYjKIWI5a0"),
                "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X "\"}",
                "{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":\"" X "\",\"y\":\"" Y "\"}",
                "{\"kty\":\"EC\",\"x\":\"" X "\",\"y\":\"" Y "\"}",
                "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
                "{\"kty\":\"RSA\",\"e\":\"AQAB\"}",
                "{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}",
                "{}",
                "7",
                "null",
        };
        for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
                refused(forge_set(malformed[i], NULL, NULL), "no key");
        refused(forge_set(forge_jwk(rsa_weak, ""), NULL, NULL), "no key");
        refused(forge_set(forge_jwk(ec_p384, ""), NULL, NULL), "no key");
}

static void sane_numbers_only(void **state) {
        (void)state;
        static const char *const exponents[] = {"AQ", "Ag", "AA", "", "AQABAQAB", "AQAA"};
        char n[1400], jwk[2048];
        forge_member(rsa, OSSL_PKEY_PARAM_RSA_N, 0, n);
        for (size_t i = 0; i < sizeof exponents / sizeof *exponents; i++) {
                snprintf(jwk, sizeof jwk, "{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"}", n, exponents[i]);
                refused(forge_set(jwk, NULL, NULL), "no key");
        }
        // An even modulus is no product of two large primes.
        n[strlen(n) - 1] = 'A';
        n[strlen(n) - 2] = 'A';
        snprintf(jwk, sizeof jwk, "{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}", n);
        refused(forge_set(jwk, NULL, NULL), "no key");
}

static void duplicate_kids_are_refused(void **state) {
        (void)state;
        refused(forge_set(forge_jwk(rsa, ",\"kid\":\"k\""), forge_jwk(ec, ",\"kid\":\"k\""), NULL), "\"k\"");
        refused(forge_set(forge_jwk(rsa, ",\"kid\":\"\""), forge_jwk(ec, ",\"kid\":\"\""), NULL), "kid");
        jwks_free(parse(forge_set(forge_jwk(rsa, ""), forge_jwk(ec, ""), NULL)));
}

static void what_is_no_key_set_is_refused(void **state) {
        (void)state;
        refused("", "line 1");
        refused("{", "line 1");
        refused("[]", "\"keys\"");
        refused("{\"keys\":{}}", "\"keys\"");
        refused("{\"keys\":[]}", "no key");
        refused("{\"keys\":[],\"keys\":[]}", "duplicate");
        char *text;
        size_t size;
        FILE *stream = open_memstream(&text, &size);
        assert_non_null(stream);
        fputs("{\"keys\":[", stream);
        for (int i = 0; i < 65; i++)
                fputs(i ? "," EC_JWK(X, Y) : EC_JWK(X, Y), stream);
        fputs("]}", stream);
        fclose(stream);
        refused(text, "more than 64");
        free(text);
}

// Appendix A.3.
#define CLAIMS "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
#define ES256_EXAMPLE                                                                                                  \
        "eyJhbGciOiJFUzI1NiJ9." CLAIMS                                                                                 \
        ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"

static void the_rfc_example_verifies(void **state) {
        (void)state;
        struct jwks *set = parse(forge_set(EC_JWK(X, Y), NULL, NULL));
        struct jws jws;
        EVP_PKEY *key = NULL;
        assert_int_equal(jws_parse(ES256_EXAMPLE, strlen(ES256_EXAMPLE), &jws), TOKEN_OK);
        assert_int_equal(jws.algorithm, JWS_ES256);
        assert_false(jws.named);
        assert_int_equal(jwks_find(set, NULL, jws.algorithm, &key), TOKEN_OK);
        assert_int_equal(jws_verify(&jws, key), TOKEN_OK);
        json_t *claims = jws_claims(&jws);
        assert_string_equal(json_string_value(json_object_get(claims, "iss")), "joe");
        json_decref(claims);
        jws.signature[63] ^= 1;
        assert_int_equal(jws_verify(&jws, key), TOKEN_SIGNATURE);
        EVP_PKEY_free(key);
        jwks_free(set);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(keys_are_found_by_kid_and_algorithm),
                cmocka_unit_test(without_kid_there_must_be_no_choice),
                cmocka_unit_test(keys_outlive_their_set),
                cmocka_unit_test(keys_for_other_uses_are_passed_over),
                cmocka_unit_test(weak_and_malformed_keys_are_passed_over),
                cmocka_unit_test(sane_numbers_only),
                cmocka_unit_test(duplicate_kids_are_refused),
                cmocka_unit_test(what_is_no_key_set_is_refused),
                cmocka_unit_test(the_rfc_example_verifies),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
