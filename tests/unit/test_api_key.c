#include "auth/api_key.h"
#include "cmocka_all.h"

#include <openssl/evp.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct key {
        char text[API_KEY_TEXT + 1], prefix[API_KEY_PREFIX + 1];
        unsigned char hash[API_KEY_HASH];
};

static struct key make_of(const char *scheme) {
        struct key key;
        assert_true(api_key_make(scheme, key.text, key.prefix, key.hash));
        return key;
}

static struct key make(void) { return make_of(api_key_scheme); }

// The form that secret scanners are told.
static void a_key_has_its_form(void **state) {
        (void)state;
        regex_t form;
        assert_int_equal(regcomp(&form, "^dgk_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$", REG_EXTENDED | REG_NOSUB), 0);
        for (int i = 0; i < 200; i++) {
                struct key key = make();
                unsigned char hash[API_KEY_HASH];
                assert_int_equal(regexec(&form, key.text, 0, NULL, 0), 0);
                assert_int_equal(strlen(key.prefix), API_KEY_PREFIX);
                assert_memory_equal(key.prefix, key.text, API_KEY_PREFIX);
                assert_int_equal(EVP_Digest(key.text, API_KEY_TEXT, hash, NULL, EVP_sha256(), NULL), 1);
                assert_memory_equal(key.hash, hash, sizeof hash);
        }
        regfree(&form);
}

static void a_key_is_read_back(void **state) {
        (void)state;
        struct key key = make();
        char prefix[API_KEY_PREFIX + 1];
        unsigned char hash[API_KEY_HASH];
        assert_true(api_key_parse(api_key_scheme, key.text, API_KEY_TEXT, prefix, hash));
        assert_string_equal(prefix, key.prefix);
        assert_memory_equal(hash, key.hash, sizeof hash);
}

// A key made by the header's words with another CRC-32.
static void the_checksum_is_crc32(void **state) {
        (void)state;
        static const char text[] = "dgk_0Az0Az0Az0Az_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg1vvZ7b";
        char prefix[API_KEY_PREFIX + 1];
        unsigned char hash[API_KEY_HASH];
        assert_true(api_key_parse(api_key_scheme, text, API_KEY_TEXT, prefix, hash));
        assert_string_equal(prefix, "dgk_0Az0Az0Az0Az");
}

// The right checksum does not make a key of what has not the form of one.
static void the_form_counts_too(void **state) {
        (void)state;
        static const char *const texts[] = {
                "dgk_0Az0Az0Az0Az-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg17KmoP",
                "dga_0Az0Az0Az0Az_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg3eXLOw",
                "dgk_0Az_0Az-0Az0_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0vHkEj",
                "dgk_0Az0Az0Az0Az_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef+0PsHpo",
        };
        char prefix[API_KEY_PREFIX + 1];
        unsigned char hash[API_KEY_HASH];
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                assert_false(api_key_parse(api_key_scheme, texts[i], API_KEY_TEXT, prefix, hash));
}

// One kind of key is never taken for the other: the scheme is under the checksum and under the hash.
static void schemes_are_kept_apart(void **state) {
        (void)state;
        struct key key = make_of(agent_key_scheme);
        char prefix[API_KEY_PREFIX + 1];
        unsigned char hash[API_KEY_HASH];
        assert_memory_equal(key.text, "dga_", API_KEY_SCHEME);
        assert_true(api_key_has_scheme(agent_key_scheme, key.text, API_KEY_TEXT));
        assert_false(api_key_has_scheme(api_key_scheme, key.text, API_KEY_TEXT));
        assert_false(api_key_has_scheme(agent_key_scheme, key.text, API_KEY_SCHEME - 1));
        assert_true(api_key_parse(agent_key_scheme, key.text, API_KEY_TEXT, prefix, hash));
        assert_string_equal(prefix, key.prefix);
        assert_false(api_key_parse(api_key_scheme, key.text, API_KEY_TEXT, prefix, hash));
        key.text[2] = 'k';
        assert_false(api_key_parse(api_key_scheme, key.text, API_KEY_TEXT, prefix, hash));
}

static void changed_text_is_refused(void **state) {
        (void)state;
        static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-\x80";
        struct key key = make();
        char prefix[API_KEY_PREFIX + 1] = "untouched";
        unsigned char hash[API_KEY_HASH];
        for (size_t i = 0; i < API_KEY_TEXT; i++)
                for (size_t j = 0; j < sizeof digits; j++) { // its NUL too
                        struct key changed = key;
                        changed.text[i] = digits[j];
                        if (digits[j] != key.text[i])
                                assert_false(api_key_parse(api_key_scheme, changed.text, API_KEY_TEXT, prefix, hash));
                }
        assert_string_equal(prefix, "untouched");
}

static void other_lengths_are_refused(void **state) {
        (void)state;
        struct key key = make();
        char prefix[API_KEY_PREFIX + 1], longer[API_KEY_TEXT + 2];
        unsigned char hash[API_KEY_HASH];
        for (size_t size = 0; size < API_KEY_TEXT; size++)
                assert_false(api_key_parse(api_key_scheme, key.text, size, prefix, hash));
        snprintf(longer, sizeof longer, "%s0", key.text);
        assert_false(api_key_parse(api_key_scheme, longer, API_KEY_TEXT + 1, prefix, hash));
}

static int compare(const void *a, const void *b) { return memcmp(a, b, API_KEY_TEXT); }

// Neither key nor prefix twice, and each digit about as often as the others, wherever it stands.
static void keys_are_random(void **state) {
        (void)state;
        enum { KEYS = 4000, RANDOM = 12 + 43 };
        static char texts[KEYS][API_KEY_TEXT + 1];
        unsigned counts[256] = {0}, used = 0;
        for (size_t i = 0; i < KEYS; i++) {
                struct key key = make();
                memcpy(texts[i], key.text, sizeof texts[i]);
                for (size_t j = 4; j < 4 + 1 + RANDOM; j++)
                        if (j != API_KEY_PREFIX)
                                counts[(unsigned char)key.text[j]]++;
        }
        qsort(texts, KEYS, sizeof *texts, compare);
        for (size_t i = 1; i < KEYS; i++)
                assert_memory_not_equal(texts[i - 1], texts[i], API_KEY_PREFIX);
        // Each digit 3548 times, give or take 59: ten standard deviations are never.
        for (size_t i = 0; i < 256; i++)
                if (counts[i]) {
                        assert_in_range(counts[i], 2950, 4150);
                        used++;
                }
        assert_int_equal(used, 62);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_key_has_its_form),
                cmocka_unit_test(a_key_is_read_back),
                cmocka_unit_test(the_checksum_is_crc32),
                cmocka_unit_test(the_form_counts_too),
                cmocka_unit_test(schemes_are_kept_apart),
                cmocka_unit_test(changed_text_is_refused),
                cmocka_unit_test(other_lengths_are_refused),
                cmocka_unit_test(keys_are_random),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
