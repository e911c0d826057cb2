#include "auth/vault.h"
#include "cmocka_all.h"
#include "scratch.h"

#include <errno.h>
#include <stdbool.h>

#define KEY_A "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
#define KEY_B "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
#define ORGANIZATION "01940000-0000-7000-8000-00000000000a"
#define ACCOUNT "01940000-0000-7000-8000-00000000000b"
#define CREDENTIALS "01940000-0000-7000-8000-00000000000c"
#define OTHER "01940000-0000-7000-8000-0000000000ff"

static const char secret[] = "{\"role_arn\": \"arn:aws:iam::123456789012:role/scan\"}";
static const struct vault_place place = {ORGANIZATION, ACCOUNT, CREDENTIALS};

// A sealed record as it lies in the database.
struct record {
        unsigned char wrapped[VAULT_WRAPPED], sealed[sizeof secret + VAULT_OVERHEAD];
};

static struct scratch scratch;

static struct vault *open_text(const char *text) {
        char *error = NULL;
        scratch_write(&scratch, "keys", text, 0600);
        struct vault *vault = vault_open(scratch_path(&scratch, "keys"), &error);
        if (!vault)
                fail_msg("%s", error);
        return vault;
}

static struct vault *vault_a(void) {
        return open_text("{\"keys\":[{\"id\":\"a\",\"key\":\"" KEY_A "\"}],\"current\":\"a\"}");
}

static struct vault *vault_ab(const char *current) {
        char text[512];
        snprintf(text, sizeof text,
                "{\"keys\":[{\"id\":\"a\",\"key\":\"" KEY_A "\"},{\"id\":\"b\",\"key\":\"" KEY_B
                "\"}],\"current\":\"%s\"}",
                current);
        return open_text(text);
}

static struct record seal(const struct vault *vault) {
        struct record record;
        assert_true(vault_seal(vault, &place, secret, sizeof secret, record.wrapped, record.sealed));
        return record;
}

static bool opens(
        const struct vault *vault, const char *key_id, const struct vault_place *at, const struct record *record) {
        char opened[sizeof secret];
        memset(opened, 'x', sizeof opened);
        bool open = vault_unseal(vault, key_id, at, record->wrapped, record->sealed, sizeof record->sealed, opened);
        if (open)
                assert_memory_equal(opened, secret, sizeof secret);
        else
                assert_null(memmem(opened, sizeof opened, "role", 4));
        return open;
}

static void a_secret_comes_back(void **state) {
        (void)state;
        struct vault *vault = vault_a();
        struct record first = seal(vault), second = seal(vault);
        assert_string_equal(vault_current_key(vault), "a");
        assert_true(opens(vault, "a", &place, &first));
        assert_null(memmem(&first, sizeof first, "role", 4));
        // A fresh data key and fresh nonces each time.
        assert_memory_not_equal(first.wrapped, second.wrapped, 12);
        assert_memory_not_equal(first.wrapped + 12, second.wrapped + 12, 32);
        assert_memory_not_equal(first.sealed + 12, second.sealed + 12, sizeof secret);
        vault_close(vault);
}

static void sizes_at_the_edge(void **state) {
        (void)state;
        struct vault *vault = vault_a();
        unsigned char wrapped[VAULT_WRAPPED], empty[VAULT_OVERHEAD], nothing[1];
        assert_true(vault_seal(vault, &place, "", 0, wrapped, empty));
        assert_true(vault_unseal(vault, "a", &place, wrapped, empty, sizeof empty, nothing));
        for (size_t size = 0; size < sizeof empty; size++)
                assert_false(vault_unseal(vault, "a", &place, wrapped, empty, size, nothing));
        size_t most = VAULT_SECRET_MAX;
        unsigned char *large = calloc(1, most + 1), *sealed = malloc(most + 1 + VAULT_OVERHEAD);
        assert_true(large && sealed);
        assert_false(vault_seal(vault, &place, large, most + 1, wrapped, sealed));
        assert_true(vault_seal(vault, &place, large, most, wrapped, sealed));
        assert_true(vault_unseal(vault, "a", &place, wrapped, sealed, most + VAULT_OVERHEAD, large));
        free(large);
        free(sealed);
        vault_close(vault);
}

static void any_flipped_bit_is_noticed(void **state) {
        (void)state;
        struct vault *vault = vault_a();
        const struct record good = seal(vault);
        for (size_t bit = 0; bit < sizeof good.wrapped * 8; bit++) {
                struct record bad = good;
                bad.wrapped[bit / 8] ^= (unsigned char)(1 << bit % 8);
                assert_false(opens(vault, "a", &place, &bad));
        }
        for (size_t bit = 0; bit < sizeof good.sealed * 8; bit++) {
                struct record bad = good;
                bad.sealed[bit / 8] ^= (unsigned char)(1 << bit % 8);
                assert_false(opens(vault, "a", &place, &bad));
        }
        assert_true(opens(vault, "a", &place, &good));
        vault_close(vault);
}

// A moved ciphertext: a row's bytes copied into another row, as whoever can write to the database could.
static void a_moved_record_stays_shut(void **state) {
        (void)state;
        static const struct vault_place elsewhere[] = {
                {OTHER, ACCOUNT, CREDENTIALS},
                {ORGANIZATION, OTHER, CREDENTIALS},
                {ORGANIZATION, ACCOUNT, OTHER},
                {ACCOUNT, ORGANIZATION, CREDENTIALS},
        };
        struct vault *vault = vault_a();
        struct record record = seal(vault), other = seal(vault);
        for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
                assert_false(opens(vault, "a", &elsewhere[i], &record));
        // Nor does one record's data key open another record of the same place.
        memcpy(other.wrapped, record.wrapped, sizeof other.wrapped);
        assert_false(opens(vault, "a", &place, &other));
        vault_close(vault);
}

static void a_place_is_three_uuids(void **state) {
        (void)state;
        static const char *const none[] = {NULL, "", "acme", "01940000-0000-7000-8000-00000000000", ORGANIZATION "0",
                "01940000-0000-7000-8000-00000000000g", "01940000-0000-7000-8000_00000000000a",
                "0194000000007000800000000000000a----"};
        struct vault *vault = vault_a();
        struct record record;
        for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
                const struct vault_place nowhere[] = {{none[i], ACCOUNT, CREDENTIALS},
                        {ORGANIZATION, none[i], CREDENTIALS}, {ORGANIZATION, ACCOUNT, none[i]}};
                for (size_t j = 0; j < 3; j++)
                        assert_false(
                                vault_seal(vault, &nowhere[j], secret, sizeof secret, record.wrapped, record.sealed));
        }
        // One UUID in two spellings is one place.
        const struct vault_place upper = {"01940000-0000-7000-8000-00000000000A", ACCOUNT, CREDENTIALS};
        record = seal(vault);
        assert_true(opens(vault, "a", &upper, &record));
        vault_close(vault);
}

static void another_key_file_does_not_open(void **state) {
        (void)state;
        struct vault *vault = vault_a();
        struct record record = seal(vault);
        vault_close(vault);
        vault = open_text("{\"keys\":[{\"id\":\"a\",\"key\":\"" KEY_B "\"}],\"current\":\"a\"}");
        assert_false(opens(vault, "a", &place, &record));
        assert_false(opens(vault, "unknown", &place, &record));
        vault_close(vault);
}

static void keys_rotate(void **state) {
        (void)state;
        struct vault *vault = vault_a();
        struct record old = seal(vault);
        vault_close(vault);
        vault = vault_ab("b");
        struct record new = seal(vault);
        assert_string_equal(vault_current_key(vault), "b");
        assert_true(opens(vault, "a", &place, &old));
        assert_true(opens(vault, "b", &place, &new));
        // The row's word on which key it was counts: the other is not tried.
        assert_false(opens(vault, "b", &place, &old));
        assert_false(opens(vault, "a", &place, &new));
        vault_close(vault);
        vault = vault_ab("a");
        assert_true(opens(vault, "b", &place, &new));
        vault_close(vault);
}

static void refused(const char *text, mode_t mode, const char *word) {
        char *error = NULL;
        scratch_write(&scratch, "keys", text, mode);
        const char *path = scratch_path(&scratch, "keys");
        if (vault_open(path, &error))
                fail_msg("taken: %s (%o)", text, mode);
        assert_non_null(error);
        assert_ptr_equal(strstr(error, path), error);
        if (!strstr(error, word))
                fail_msg("\"%s\" does not say \"%s\"", error, word);
        assert_null(strstr(error, "QUFB"));
        free(error);
}

#define ONE(id, key) "{\"id\":\"" id "\",\"key\":\"" key "\"}"
#define FILE_OF(keys) "{\"keys\":[" keys "],\"current\":\"a\"}"

static void bad_key_files_are_refused(void **state) {
        (void)state;
        static const mode_t lax[] = {0640, 0604, 0620, 0602, 0610, 0601, 0660, 0644, 0666, 0777};
        for (size_t i = 0; i < sizeof lax / sizeof *lax; i++)
                refused(FILE_OF(ONE("a", KEY_A)), lax[i], "chmod 600");
        refused("", 0600, "no JSON");
        refused("[]", 0600, "no JSON");
        refused(FILE_OF(ONE("a", KEY_A)) "x", 0600, "no JSON");
        refused("{\"current\":\"a\"}", 0600, "\"keys\"");
        refused(FILE_OF(""), 0600, "\"current\"");
        refused(FILE_OF(ONE("b", KEY_A)), 0600, "\"current\"");
        refused("{\"keys\":[" ONE("a", KEY_A) "]}", 0600, "\"current\"");
        refused(FILE_OF(ONE("a", KEY_A) "," ONE("a", KEY_B)), 0600, "same id");
        refused("{\"keys\":[" ONE("a", KEY_A) "],\"keys\":[],\"current\":\"a\"}", 0600, "no JSON");
        refused(FILE_OF(ONE("", KEY_A)), 0600, "id");
        refused(FILE_OF(ONE("a b", KEY_A)), 0600, "id");
        refused(FILE_OF("{\"key\":\"" KEY_A "\"}"), 0600, "id");
        refused(FILE_OF("{\"id\":\"a\"}"), 0600, "32 bytes");
        refused(FILE_OF(ONE("a", "")), 0600, "32 bytes");
        refused(FILE_OF(ONE("a", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQQ==")), 0600, "32 bytes");
        refused(FILE_OF(ONE("a", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB")), 0600, "32 bytes");
        refused(FILE_OF(ONE("a", "QUFBQUFB*UFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")), 0600, "32 bytes");
        refused(FILE_OF("7"), 0600, "id");
}

static void too_many_keys_are_refused(void **state) {
        (void)state;
        char text[8192] = "{\"keys\":[", *at = text + strlen(text), *end = text + sizeof text;
        for (int i = 0; i < 33; i++)
                at += snprintf(at, (size_t)(end - at), "%s{\"id\":\"%d\",\"key\":\"" KEY_A "\"}", i ? "," : "", i);
        snprintf(at, (size_t)(end - at), "],\"current\":\"1\"}");
        refused(text, 0600, "32 keys");
}

static void a_missing_file_is_refused(void **state) {
        (void)state;
        char *error = NULL;
        assert_null(vault_open(scratch_path(&scratch, "missing"), &error));
        assert_non_null(strstr(error, strerror(ENOENT)));
        free(error);
        assert_null(vault_open(scratch.folder, &error));
        assert_non_null(strstr(error, "regular file"));
        free(error);
}

static void a_key_file_is_made_once(void **state) {
        (void)state;
        const char *path = scratch_path(&scratch, "made");
        char *error = NULL;
        struct stat status;
        mode_t mask = umask(0);
        assert_true(vault_make_key_file(path, &error));
        umask(mask);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
        struct vault *vault = vault_open(path, &error);
        assert_non_null(vault);
        struct record record = seal(vault);
        // Another would make every record unreadable.
        assert_false(vault_make_key_file(path, &error));
        assert_non_null(strstr(error, strerror(EEXIST)));
        free(error);
        struct vault *again = vault_open(path, &error);
        assert_true(opens(again, vault_current_key(vault), &place, &record));
        vault_close(again);
        vault_close(vault);
}

static int setup(void **state) {
        (void)state;
        scratch_make(&scratch);
        return 0;
}

static int teardown(void **state) {
        (void)state;
        scratch_drop(&scratch);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_secret_comes_back),
                cmocka_unit_test(sizes_at_the_edge),
                cmocka_unit_test(any_flipped_bit_is_noticed),
                cmocka_unit_test(a_moved_record_stays_shut),
                cmocka_unit_test(a_place_is_three_uuids),
                cmocka_unit_test(another_key_file_does_not_open),
                cmocka_unit_test(keys_rotate),
                cmocka_unit_test(bad_key_files_are_refused),
                cmocka_unit_test(too_many_keys_are_refused),
                cmocka_unit_test(a_missing_file_is_refused),
                cmocka_unit_test(a_key_file_is_made_once),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
