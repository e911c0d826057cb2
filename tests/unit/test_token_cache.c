#include "auth/token_cache.h"
#include "cmocka_all.h"

#include <string.h>

enum { GENERATION = 7, EXPIRES = 1000 };

// A token's hash: its set is chosen by the first bytes, and the last tell the tokens of one set apart.
struct hash {
        unsigned char bytes[TOKEN_HASH];
};

static struct hash hash_of(unsigned char set, unsigned char token) {
        return (struct hash){.bytes = {[0] = set, [TOKEN_HASH - 1] = token}};
}

static struct principal principal_named(unsigned char set, unsigned char token) {
        struct principal principal = {.kind = PRINCIPAL_USER, .expire_time = EXPIRES};
        principal.subject[0] = (char)('a' + set);
        principal.subject[1] = (char)('a' + token);
        return principal;
}

static void put(struct token_cache *cache, unsigned char set, unsigned char token, uint64_t generation) {
        struct hash hash = hash_of(set, token);
        struct principal principal = principal_named(set, token);
        token_cache_put(cache, hash.bytes, generation, /* not_before= */ 100, &principal);
}

static bool has_at(
        struct token_cache *cache, unsigned char set, unsigned char token, uint64_t generation, int64_t now) {
        struct hash hash = hash_of(set, token);
        struct principal found = {.kind = PRINCIPAL_NONE}, expected = principal_named(set, token);
        if (!token_cache_get(cache, hash.bytes, generation, now, &found)) {
                assert_int_equal(found.kind, PRINCIPAL_NONE);
                return false;
        }
        assert_string_equal(found.subject, expected.subject);
        return true;
}

static bool has(struct token_cache *cache, unsigned char set, unsigned char token) {
        return has_at(cache, set, token, GENERATION, 500);
}

static void finds_what_was_put(void **state) {
        (void)state;
        struct token_cache *cache = token_cache_new(64);
        assert_false(has(cache, 1, 1));
        put(cache, 1, 1, GENERATION);
        assert_true(has(cache, 1, 1));
        assert_false(has(cache, 1, 2));
        assert_false(has(cache, 2, 1));
        token_cache_free(cache);
}

static void only_while_the_token_is_valid(void **state) {
        (void)state;
        struct token_cache *cache = token_cache_new(64);
        put(cache, 1, 1, GENERATION);
        assert_false(has_at(cache, 1, 1, GENERATION, 99));
        assert_true(has_at(cache, 1, 1, GENERATION, 100));
        assert_true(has_at(cache, 1, 1, GENERATION, EXPIRES - 1));
        assert_false(has_at(cache, 1, 1, GENERATION, EXPIRES));
        token_cache_free(cache);
}

static void another_key_set_finds_nothing(void **state) {
        (void)state;
        struct token_cache *cache = token_cache_new(64);
        put(cache, 1, 1, GENERATION);
        assert_false(has_at(cache, 1, 1, GENERATION + 1, 500));
        put(cache, 1, 1, GENERATION + 1);
        assert_true(has_at(cache, 1, 1, GENERATION + 1, 500));
        assert_false(has(cache, 1, 1));
        token_cache_free(cache);
}

static void the_least_recently_used_goes(void **state) {
        (void)state;
        struct token_cache *cache = token_cache_new(64);
        for (unsigned char token = 0; token < 4; token++)
                put(cache, 3, token, GENERATION);
        assert_true(has(cache, 3, 0)); // so 1 is the one that nobody asked for the longest
        put(cache, 3, 4, GENERATION);
        assert_false(has(cache, 3, 1));
        assert_true(has(cache, 3, 0) && has(cache, 3, 2) && has(cache, 3, 3) && has(cache, 3, 4));
        token_cache_free(cache);
}

static void tokens_of_an_older_key_set_go_first(void **state) {
        (void)state;
        struct token_cache *cache = token_cache_new(64);
        for (unsigned char token = 0; token < 3; token++)
                put(cache, 3, token, GENERATION);
        put(cache, 3, 9, GENERATION - 1); // used last, and yet of no use
        put(cache, 3, 4, GENERATION);
        assert_true(has(cache, 3, 0) && has(cache, 3, 1) && has(cache, 3, 2) && has(cache, 3, 4));
        token_cache_free(cache);
}

static void a_token_has_one_entry(void **state) {
        (void)state;
        struct token_cache *cache = token_cache_new(64);
        for (unsigned char token = 0; token < 4; token++)
                put(cache, 3, token, GENERATION);
        put(cache, 3, 2, GENERATION);
        assert_true(has(cache, 3, 0) && has(cache, 3, 1) && has(cache, 3, 2) && has(cache, 3, 3));
        token_cache_free(cache);
}

// Whatever comes in, no more than its size is kept.
static void it_is_bounded(void **state) {
        (void)state;
        static const unsigned sizes[][2] = {{0, 0}, {1, 4}, {4, 4}, {5, 8}, {64, 64}};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                struct token_cache *cache = token_cache_new(sizes[i][0]);
                unsigned kept = 0;
                for (unsigned n = 0; n < 256 * 8; n++)
                        put(cache, (unsigned char)(n % 256), (unsigned char)(n / 256), GENERATION);
                for (unsigned n = 0; n < 256 * 8; n++)
                        kept += has(cache, (unsigned char)(n % 256), (unsigned char)(n / 256));
                assert_int_equal(kept, sizes[i][1]);
                token_cache_free(cache);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(finds_what_was_put),
                cmocka_unit_test(only_while_the_token_is_valid),
                cmocka_unit_test(another_key_set_finds_nothing),
                cmocka_unit_test(the_least_recently_used_goes),
                cmocka_unit_test(tokens_of_an_older_key_set_go_first),
                cmocka_unit_test(a_token_has_one_entry),
                cmocka_unit_test(it_is_bounded),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
