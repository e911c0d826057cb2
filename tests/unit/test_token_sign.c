// Development tokens: what `genie token` makes, the server takes.
#include "auth/token.h"
#include "cmocka_all.h"
#include "scratch.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

static const int64_t now = 1800000000;
static const char *const issuers[] = {"https://genie.local", NULL};
static struct scratch scratch;
static char private_key[64 + 16], jwks[64 + 16];

static int setup(void **state) {
        (void)state;
        char *error = NULL;
        scratch_make(&scratch);
        snprintf(private_key, sizeof private_key, "%s", scratch_path(&scratch, "key.pem"));
        snprintf(jwks, sizeof jwks, "%s", scratch_path(&scratch, "jwks.json"));
        return token_keys_make(private_key, jwks, &error) ? 0 : -1;
}

static int teardown(void **state) {
        (void)state;
        scratch_drop(&scratch);
        return 0;
}

static struct token_claims usual(void) {
        return (struct token_claims){.issuer = "https://genie.local",
                .audience = "devopsgenie",
                .subject = "ada",
                .issued = now,
                .expires = now + 3600};
}

static struct principal verify(const char *token) {
        char *error = NULL;
        const struct token_settings settings = {
                .jwks_file = jwks, .issuers = issuers, .audience = "devopsgenie", .cache_size = 4};
        struct token_verifier *verifier = token_verifier_new(&settings, &error);
        struct principal principal;
        assert_non_null(verifier);
        assert_int_equal(token_verify(verifier, token, strlen(token), now, &principal), TOKEN_OK);
        token_verifier_free(verifier);
        return principal;
}

static char *sign(const struct token_claims *claims) {
        char *error = NULL, *token = token_sign(private_key, claims, &error);
        if (!token)
                fail_msg("%s", error);
        return token;
}

static void a_users_token_is_taken(void **state) {
        (void)state;
        struct token_claims claims = usual();
        claims.email = "Ada@acme.example";
        char *token = sign(&claims);
        struct principal principal = verify(token);
        assert_int_equal(principal.kind, PRINCIPAL_USER);
        assert_string_equal(principal.caller, "user:ada");
        assert_string_equal(principal.email, "ada@acme.example");
        assert_int_equal(principal.expire_time, now + 3600);
        free(token);
}

static void a_services_token_is_taken(void **state) {
        (void)state;
        struct token_claims claims = usual();
        claims.subject = "quote\" and \\";
        claims.service_role = "platform-admin";
        char *token = sign(&claims);
        struct principal principal = verify(token);
        assert_int_equal(principal.kind, PRINCIPAL_SERVICE);
        assert_int_equal(principal.service_role, SERVICE_ROLE_PLATFORM_ADMIN);
        assert_string_equal(principal.caller, "service:quote\" and \\");
        free(token);
}

static void the_files_are_as_they_should_be(void **state) {
        (void)state;
        struct stat status;
        assert_int_equal(stat(private_key, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
        json_t *set = json_load_file(jwks, 0, NULL);
        const json_t *key = json_array_get(json_object_get(set, "keys"), 0);
        assert_int_equal(json_array_size(json_object_get(set, "keys")), 1);
        assert_null(json_object_get(key, "d")); // the private number
        assert_string_equal(json_string_value(json_object_get(key, "alg")), "ES256");
        assert_string_equal(json_string_value(json_object_get(key, "use")), "sig");
        json_decref(set);
}

// Neither file of a pair is written over, and half a pair is not left.
static void pairs_are_whole(void **state) {
        (void)state;
        char *error = NULL;
        const char *other = scratch_path(&scratch, "other.pem");
        assert_false(token_keys_make(private_key, scratch_path(&scratch, "other.json"), &error));
        assert_non_null(strstr(error, strerror(EEXIST)));
        free(error);
        assert_int_equal(access(scratch_path(&scratch, "other.json"), F_OK), -1);
        assert_false(token_keys_make(other, jwks, &error));
        free(error);
        assert_int_equal(access(other, F_OK), -1);
        struct token_claims claims = usual();
        char *token = sign(&claims);
        verify(token);
        free(token);
}

static void write_pem(const char *path, EVP_PKEY *key, const char *passphrase) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(PEM_write_PKCS8PrivateKey(file, key, passphrase ? EVP_aes_256_cbc() : NULL, NULL, 0, NULL,
                                 (void *)(uintptr_t)passphrase),
                1);
        fclose(file);
        EVP_PKEY_free(key);
}

static void other_keys_are_refused(void **state) {
        (void)state;
        const char *const files[] = {"missing", "jwks.json", "p384", "secp256k1", "rsa", "locked"};
        struct token_claims claims = usual();
        write_pem(scratch_path(&scratch, "p384"), EVP_EC_gen("P-384"), NULL);
        write_pem(scratch_path(&scratch, "secp256k1"), EVP_EC_gen("secp256k1"), NULL);
        write_pem(scratch_path(&scratch, "rsa"), EVP_RSA_gen(2048), NULL);
        write_pem(scratch_path(&scratch, "locked"), EVP_EC_gen("P-256"), "open sesame");
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
                char *error = NULL;
                const char *path = scratch_path(&scratch, files[i]);
                assert_null(token_sign(path, &claims, &error));
                assert_ptr_equal(strstr(error, path), error);
                free(error);
        }
}

static void claims_that_are_no_text_are_refused(void **state) {
        (void)state;
        struct token_claims claims = usual();
        char *error = NULL;
        claims.subject = "\xff";
        assert_null(token_sign(private_key, &claims, &error));
        free(error);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_users_token_is_taken),
                cmocka_unit_test(a_services_token_is_taken),
                cmocka_unit_test(the_files_are_as_they_should_be),
                cmocka_unit_test(pairs_are_whole),
                cmocka_unit_test(other_keys_are_refused),
                cmocka_unit_test(claims_that_are_no_text_are_refused),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
