// UUIDs: their layout, order and text form.
#include "storage/uuid.h"
#include "tests/unit/cmocka_all.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t milliseconds_of(const unsigned char uuid[UUID_BYTES]) {
        uint64_t milliseconds = 0;
        for (int i = 0; i < 6; i++)
                milliseconds = milliseconds << 8 | uuid[i];
        return milliseconds;
}

static void version_variant_and_time(void **state) {
        (void)state;
        struct timespec before, after;
        unsigned char uuid[UUID_BYTES];
        clock_gettime(CLOCK_REALTIME, &before);
        uuid_v7(uuid);
        clock_gettime(CLOCK_REALTIME, &after);
        assert_int_equal(uuid[6] >> 4, 7);
        assert_int_equal(uuid[8] >> 6, 2);
        assert_in_range(milliseconds_of(uuid), (uint64_t)before.tv_sec * 1000 + (uint64_t)before.tv_nsec / 1000000,
                (uint64_t)after.tv_sec * 1000 + (uint64_t)after.tv_nsec / 1000000 + 1);
}

static void one_thread_ascends(void **state) {
        (void)state;
        unsigned char last[UUID_BYTES], uuid[UUID_BYTES];
        uuid_v7(last);
        for (int i = 0; i < 100000; i++) {
                uuid_v7(uuid);
                assert_true(memcmp(last, uuid, 8) < 0);
                memcpy(last, uuid, sizeof last);
        }
}

// Every bit of the random part is set in some and clear in others.
static void random_part_is_random(void **state) {
        (void)state;
        unsigned char all[8], any[8] = {0};
        memset(all, 0xff, sizeof all);
        for (int i = 0; i < 1000; i++) {
                unsigned char uuid[UUID_BYTES];
                uuid_v7(uuid);
                for (int j = 0; j < 8; j++) {
                        all[j] &= uuid[8 + j];
                        any[j] |= uuid[8 + j];
                }
        }
        assert_int_equal(all[0], 0x80);
        assert_int_equal(any[0], 0xbf);
        for (int j = 1; j < 8; j++) {
                assert_int_equal(all[j], 0);
                assert_int_equal(any[j], 0xff);
        }
}

enum { THREADS = 4, EACH = 20000 };

static void *make_many(void *argument) {
        unsigned char(*uuids)[UUID_BYTES] = argument;
        for (int i = 0; i < EACH; i++)
                uuid_v7(uuids[i]);
        return NULL;
}

static int compare(const void *left, const void *right) { return memcmp(left, right, UUID_BYTES); }

static void threads_never_agree(void **state) {
        (void)state;
        unsigned char(*uuids)[UUID_BYTES] = malloc(sizeof *uuids * THREADS * EACH);
        assert_non_null(uuids);
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, make_many, uuids + (ptrdiff_t)i * EACH), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        qsort(uuids, (size_t)THREADS * EACH, sizeof *uuids, compare);
        for (int i = 1; i < THREADS * EACH; i++)
                assert_memory_not_equal(uuids[i - 1], uuids[i], UUID_BYTES);
        free(uuids);
}

static void text_and_back(void **state) {
        (void)state;
        static const unsigned char bytes[UUID_BYTES] = {
                0x01, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x73, 0x45, 0x86, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34};
        char text[UUID_TEXT_SIZE];
        unsigned char back[UUID_BYTES];
        uuid_to_text(bytes, text);
        assert_string_equal(text, "019abcde-f012-7345-8678-9abcdef01234");
        assert_true(uuid_from_text(text, 36, back));
        assert_memory_equal(bytes, back, sizeof bytes);
        assert_true(uuid_from_text("019ABCDE-F012-7345-8678-9ABCDEF01234", 36, back));
        assert_memory_equal(bytes, back, sizeof bytes);
        uuid_v7_text(text);
        assert_int_equal(strlen(text), 36);
        assert_true(uuid_from_text(text, 36, back));
}

static void malformed_text_is_refused(void **state) {
        (void)state;
        static const char *const malformed[] = {
                "",
                "019abcde-f012-7345-8678-9abcdef0123",
                "019abcde-f012-7345-8678-9abcdef012345",
                "019abcdef-012-7345-8678-9abcdef01234",
                "019abcde-f012-7345-8678-9abcdef0123g",
                "019abcde-f012-7345-8678_9abcdef01234",
                "{19abcde-f012-7345-8678-9abcdef0123}",
                "019abcdef012734586789abcdef01234----",
                " 19abcde-f012-7345-8678-9abcdef01234",
        };
        unsigned char uuid[UUID_BYTES] = {42};
        for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
                assert_false(uuid_from_text(malformed[i], strlen(malformed[i]), uuid));
        assert_int_equal(uuid[0], 42);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(version_variant_and_time),
                cmocka_unit_test(one_thread_ascends),
                cmocka_unit_test(random_part_is_random),
                cmocka_unit_test(threads_never_agree),
                cmocka_unit_test(text_and_back),
                cmocka_unit_test(malformed_text_is_refused),
        };
        return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}
