// Key sets that change under the verifier, and time that passes.
#include "token_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

static void time_passes_for_cached_tokens(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(16);
        const char *token = forge_token(
                ES256, "{" ISS "," AUD "," SUB "," EXP ",\"nbf\":" NOW_TEXT "}", SIGN_ES256, ec);
        assert_int_equal(verify_at(verifier, token, now, NULL), TOKEN_OK);
        assert_int_equal(verify_at(verifier, token, now - 60, NULL), TOKEN_OK);
        assert_int_equal(verify_at(verifier, token, now - 61, NULL), TOKEN_NOT_YET);
        assert_int_equal(verify_at(verifier, token, now + 3659, NULL), TOKEN_OK);
        assert_int_equal(verify_at(verifier, token, now + 3660, NULL), TOKEN_EXPIRED);
        assert_int_equal(verify_at(verifier, token, now, NULL), TOKEN_OK);
        token_verifier_free(verifier);
}

static void a_removed_key_takes_its_tokens_along(void **state) {
        (void)state;
        struct token_verifier *verifier = verifier_of(16);
        char *by_rsa = strdup(forge_token(RS256, CLAIMS, SIGN_RS256, rsa));
        char *by_ec = strdup(forge_token(ES256, CLAIMS, SIGN_ES256, ec));
        assert_int_equal(verify_at(verifier, by_rsa, now, NULL), TOKEN_OK);
        assert_int_equal(verify_at(verifier, by_ec, now, NULL), TOKEN_OK);
        write_keys(forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), NULL, NULL));
        // One look a second: this second's is over.
        assert_int_equal(verify_at(verifier, by_ec, now, NULL), TOKEN_OK);
        assert_int_equal(verify_at(verifier, by_ec, now + 1, NULL), TOKEN_UNKNOWN_KEY);
        assert_int_equal(verify_at(verifier, by_rsa, now + 1, NULL), TOKEN_OK);
        // Another key under the old name.
        write_keys(forge_set(forge_jwk(stranger_rsa, ",\"kid\":\"r\""), NULL, NULL));
        assert_int_equal(verify_at(verifier, by_rsa, now + 2, NULL), TOKEN_SIGNATURE);
        write_keys(usual_keys());
        assert_int_equal(verify_at(verifier, by_rsa, now + 3, NULL), TOKEN_OK);
        assert_int_equal(verify_at(verifier, by_ec, now + 3, NULL), TOKEN_OK);
        // A clock that was set back looks again, too.
        write_keys(forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), NULL, NULL));
        assert_int_equal(verify_at(verifier, by_ec, now - 30, NULL), TOKEN_UNKNOWN_KEY);
        assert_int_equal(problems, 0);
        token_verifier_free(verifier);
        free(by_rsa);
        free(by_ec);
}

static void the_last_good_set_stays(void **state) {
        (void)state;
        static const char *const broken[] = {"", "{\"keys\":[", "{\"keys\":[]}", "not found"};
        struct token_verifier *verifier = verifier_of(0);
        char *token = strdup(forge_token(ES256, CLAIMS, SIGN_ES256, ec));
        int64_t at = now;
        for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
                write_keys(broken[i]);
                assert_int_equal(verify_at(verifier, token, ++at, NULL), TOKEN_OK);
                assert_int_equal(verify_at(verifier, token, ++at, NULL), TOKEN_OK);
                assert_int_equal(problems, i + 1); // said once
        }
        assert_int_equal(unlink(scratch_path(&scratch, "jwks")), 0);
        assert_int_equal(verify_at(verifier, token, ++at, NULL), TOKEN_OK);
        write_keys(forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), NULL, NULL));
        assert_int_equal(verify_at(verifier, token, ++at, NULL), TOKEN_UNKNOWN_KEY);
        free(token);
        token_verifier_free(verifier);
}

static void no_start_without_keys(void **state) {
        (void)state;
        struct token_settings settings = {.issuers = issuers, .audience = "devopsgenie", .cache_size = 16};
        const char *const files[] = {"missing", ".", "jwks"};
        write_keys("{\"keys\":[]}");
        for (size_t i = 0; i < 3; i++) {
                char *error = NULL;
                settings.jwks_file = scratch_path(&scratch, files[i]);
                assert_null(token_verifier_new(&settings, &error));
                assert_ptr_equal(strstr(error, settings.jwks_file), error);
                free(error);
        }
}

struct worker {
        struct token_verifier *verifier;
        const char *token;
        bool may_be_unknown;
        _Atomic int64_t *clock;
        _Atomic bool *stop;
        unsigned wrong, verified;
};

static void *verify_until_stopped(void *argument) {
        struct worker *worker = argument;
        while (!atomic_load(worker->stop) || !worker->verified) {
                struct principal principal;
                enum token_status status = token_verify(
                        worker->verifier, worker->token, strlen(worker->token), atomic_load(worker->clock), &principal);
                if (status == TOKEN_OK)
                        worker->verified++;
                else if (status != TOKEN_UNKNOWN_KEY || !worker->may_be_unknown)
                        worker->wrong++;
        }
        return NULL;
}

// Keys come and go while calls are under way.
static void keys_rotate_under_load(void **state) {
        (void)state;
        enum { WORKERS = 4, ROTATIONS = 40 };
        struct token_verifier *verifier = verifier_of(4);
        char *stays = strdup(forge_token(RS256, CLAIMS, SIGN_RS256, rsa));
        char *comes_and_goes = strdup(forge_token(ES256, CLAIMS, SIGN_ES256, ec));
        _Atomic int64_t clock = now;
        _Atomic bool stop = false;
        struct worker workers[WORKERS];
        pthread_t threads[WORKERS];
        for (unsigned i = 0; i < WORKERS; i++) {
                workers[i] = (struct worker){verifier, i % 2 ? comes_and_goes : stays, i % 2, &clock, &stop, 0, 0};
                assert_int_equal(pthread_create(&threads[i], NULL, verify_until_stopped, &workers[i]), 0);
        }
        for (int i = 0; i < ROTATIONS; i++) {
                write_keys(i % 2 ? usual_keys() : forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), NULL, NULL));
                int64_t at = atomic_fetch_add(&clock, 1) + 1;
                assert_int_equal(verify_at(verifier, stays, at, NULL), TOKEN_OK);
        }
        atomic_store(&stop, true);
        for (unsigned i = 0; i < WORKERS; i++) {
                assert_int_equal(pthread_join(threads[i], NULL), 0);
                assert_int_equal(workers[i].wrong, 0);
        }
        int64_t after = atomic_load(&clock) + 1;
        assert_int_equal(verify_at(verifier, comes_and_goes, after, NULL), TOKEN_OK);
        write_keys(forge_set(forge_jwk(rsa, ",\"kid\":\"r\""), NULL, NULL));
        assert_int_equal(verify_at(verifier, comes_and_goes, after + 1, NULL), TOKEN_UNKNOWN_KEY);
        token_verifier_free(verifier);
        free(stays);
        free(comes_and_goes);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TOKEN_TEST(time_passes_for_cached_tokens),
                TOKEN_TEST(a_removed_key_takes_its_tokens_along),
                TOKEN_TEST(the_last_good_set_stays),
                TOKEN_TEST(no_start_without_keys),
                TOKEN_TEST(keys_rotate_under_load),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
