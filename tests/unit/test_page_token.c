#include "auth/vault.h"
#include "cmocka_all.h"
#include "scratch.h"

#include <stdbool.h>

#define KEY_A "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
#define KEY_B "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="

enum { DAY = 86400 };
static const long long now = 1800000000;
static const char context[] = "organizations/acme\0ListFindings\0state=OPEN";
static const char cursor[] = "after\0this one";

static struct scratch scratch;
static struct vault *vault;

static struct vault *open_vault(const char *keys, const char *current) {
        char text[512], *error = NULL;
        snprintf(text, sizeof text, "{\"keys\":[%s],\"current\":\"%s\"}", keys, current);
        scratch_write(&scratch, "keys", text, 0600);
        struct vault *opened = vault_open(scratch_path(&scratch, "keys"), &error);
        assert_non_null(opened);
        return opened;
}

static int setup(void **state) {
        (void)state;
        scratch_make(&scratch);
        vault = open_vault("{\"id\":\"a\",\"key\":\"" KEY_A "\"}", "a");
        return 0;
}

static int teardown(void **state) {
        (void)state;
        vault_close(vault);
        scratch_drop(&scratch);
        return 0;
}

static char *seal(const void *data, size_t size) {
        char *text = malloc(page_token_size(size));
        assert_true(page_token_seal(vault, context, sizeof context, data, size, now, text));
        assert_int_equal(strlen(text) + 1, page_token_size(size));
        return text;
}

// Opens into a buffer of the size that the header asks for, so that a sanitizer sees a byte too many.
static bool opens(struct vault *with, const void *for_context, size_t context_size, const char *text, long long at) {
        size_t room = strlen(text), size = 999;
        char *opened = malloc(room ? room : 1);
        assert_non_null(opened);
        bool open = page_token_open(with, for_context, context_size, text, at, opened, &size);
        if (open) {
                assert_int_equal(size, sizeof cursor);
                assert_memory_equal(opened, cursor, size);
        } else {
                assert_int_equal(size, 999);
        }
        free(opened);
        return open;
}

static void a_cursor_comes_back(void **state) {
        (void)state;
        char *text = seal(cursor, sizeof cursor);
        assert_true(opens(vault, context, sizeof context, text, now));
        assert_int_equal(
                strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), strlen(text));
        free(text);
}

static void cursors_of_any_size_come_back(void **state) {
        (void)state;
        static char data[PAGE_CURSOR_MAX + 1], back[2 * PAGE_CURSOR_MAX], longest[2 * PAGE_CURSOR_MAX];
        for (size_t size = 0; size <= PAGE_CURSOR_MAX; size += size < 70 ? 1 : 4079) {
                memset(data, (int)size, size);
                char *text = seal(data, size);
                size_t got;
                assert_true(page_token_open(vault, context, sizeof context, text, now, back, &got));
                assert_int_equal(got, size);
                assert_memory_equal(back, data, size);
                free(text);
        }
        assert_false(page_token_seal(vault, context, sizeof context, data, PAGE_CURSOR_MAX + 1, now, longest));
        memset(longest, 'A', sizeof longest - 1);
        size_t got;
        assert_false(page_token_open(vault, context, sizeof context, longest, now, back, &got));
}

// A replayed page token: of another organization, method or filter.
static void another_context_is_refused(void **state) {
        (void)state;
        char *text = seal(cursor, sizeof cursor), other[sizeof context + 1] = {0};
        for (size_t i = 0; i < sizeof context; i++) {
                memcpy(other, context, sizeof context);
                other[i] ^= 1;
                assert_false(opens(vault, other, sizeof context, text, now));
        }
        memcpy(other, context, sizeof context);
        assert_false(opens(vault, other, sizeof context + 1, text, now));
        assert_false(opens(vault, other, sizeof context - 1, text, now));
        assert_false(opens(vault, other, 0, text, now));
        free(text);
}

static void three_days_and_no_longer(void **state) {
        (void)state;
        char *text = seal(cursor, sizeof cursor);
        assert_true(opens(vault, context, sizeof context, text, now + PAGE_TOKEN_DAYS * DAY - 1));
        assert_false(opens(vault, context, sizeof context, text, now + PAGE_TOKEN_DAYS * DAY));
        assert_false(opens(vault, context, sizeof context, text, now + 4000LL * DAY));
        // A replica whose clock is behind the one that made it.
        assert_true(opens(vault, context, sizeof context, text, now - 5));
        free(text);
}

static void changed_text_is_refused(void **state) {
        (void)state;
        static const char others[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n\x80";
        char *text = seal(cursor, sizeof cursor);
        for (size_t i = 0; i < strlen(text); i++) {
                char kept = text[i];
                for (size_t j = 0; j < sizeof others; j++) { // its NUL too: every shorter text
                        text[i] = others[j];
                        if (others[j] != kept)
                                assert_false(opens(vault, context, sizeof context, text, now));
                }
                text[i] = kept;
        }
        char longer[128];
        snprintf(longer, sizeof longer, "%sA", text);
        assert_false(opens(vault, context, sizeof context, longer, now));
        snprintf(longer, sizeof longer, "%s=", text);
        assert_false(opens(vault, context, sizeof context, longer, now));
        assert_true(opens(vault, context, sizeof context, text, now));
        free(text);
}

static void keys_rotate(void **state) {
        (void)state;
        char *text = seal(cursor, sizeof cursor);
        struct vault *both = open_vault(
                "{\"id\":\"b\",\"key\":\"" KEY_B "\"},{\"id\":\"a\",\"key\":\"" KEY_A "\"}", "b");
        assert_true(opens(both, context, sizeof context, text, now));
        vault_close(both);
        struct vault *other = open_vault("{\"id\":\"a\",\"key\":\"" KEY_B "\"}", "a");
        assert_false(opens(other, context, sizeof context, text, now));
        vault_close(other);
        // Another replica with the same file.
        struct vault *same = open_vault("{\"id\":\"a\",\"key\":\"" KEY_A "\"}", "a");
        assert_true(opens(same, context, sizeof context, text, now));
        vault_close(same);
        free(text);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_cursor_comes_back),
                cmocka_unit_test(cursors_of_any_size_come_back),
                cmocka_unit_test(another_context_is_refused),
                cmocka_unit_test(three_days_and_no_longer),
                cmocka_unit_test(changed_text_is_refused),
                cmocka_unit_test(keys_rotate),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
