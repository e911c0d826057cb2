// Migrations on a real database: order, repetition, edits, failures and rivals.
#include "storage/migrate.h"
#include "tests/integration/database.h"
#include "tests/unit/cmocka_all.h"

#include <pthread.h>

static struct database database;

static const struct migration known[] = {
        {1, "animals", "CREATE TABLE animals (name text); INSERT INTO animals VALUES ('cat');"},
        {2, "legs", "ALTER TABLE animals ADD legs integer NOT NULL DEFAULT 4"},
        {3, "birds", "INSERT INTO animals VALUES ('hen', 2)"},
};
enum { KNOWN = sizeof known / sizeof *known };

static int empty_schema(void **state) {
        (void)state;
        database_do(database.admin, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        return 0;
}

static void applies(const struct migration *migrations, size_t count) {
        char *error = NULL;
        bool applied = migrate_apply(database.url, migrations, count, NULL, &error);
        if (!applied)
                fail_msg("%s", error);
}

// The call fails with an error that has these words.
static void refuses(const struct migration *migrations, size_t count, const char *words) {
        char *error = NULL;
        assert_false(migrate_apply(database.url, migrations, count, NULL, &error));
        assert_non_null(error);
        if (!strstr(error, words))
                fail_msg("`%s` is not in: %s", words, error);
        free(error);
}

static void check_says(const struct migration *migrations, size_t count, const char *words) {
        char *error = NULL;
        assert_false(migrate_check(database.admin, migrations, count, &error));
        assert_non_null(error);
        if (!strstr(error, words))
                fail_msg("`%s` is not in: %s", words, error);
        free(error);
}

static void check_passes(PGconn *connection, const struct migration *migrations, size_t count) {
        char *error = NULL;
        if (!migrate_check(connection, migrations, count, &error))
                fail_msg("%s", error);
}

static long rows(void) { return database_number(database.admin, "SELECT count(*) FROM animals"); }

static void applied_once_and_recorded(void **state) {
        (void)state;
        applies(known, 2);
        applies(known, KNOWN);
        applies(known, KNOWN);
        assert_int_equal(rows(), 2);
        assert_int_equal(
                database_number(database.admin, "SELECT count(*) FROM schema_migrations WHERE (number, name) IN "
                                                "((1, 'animals'), (2, 'legs'), (3, 'birds')) AND apply_time <= now()"),
                3);
        assert_int_equal(database_number(database.admin,
                                 "SELECT count(*) FROM schema_migrations WHERE "
                                 "sha256 = sha256('ALTER TABLE animals ADD legs integer NOT NULL DEFAULT 4'::bytea)"),
                1);
}

static void check_says_what_to_run(void **state) {
        (void)state;
        check_says(known, KNOWN, "has no schema: run `genied migrate`");
        applies(known, 2);
        check_says(known, KNOWN, "at migration 2 and this genied needs 3: run `genied migrate`");
        check_passes(database.admin, known, 2);
        applies(known, KNOWN);
        check_passes(database.admin, known, KNOWN);
        check_says(known, 2, "older than the schema");
}

static void every_role_may_check(void **state) {
        (void)state;
        applies(known, KNOWN);
        database_do(database.admin, "GRANT USAGE ON SCHEMA public TO %s; SET ROLE %s", database.name, database.name);
        check_passes(database.admin, known, KNOWN);
        database_do(database.admin, "RESET ROLE");
}

static void edited_migration_is_refused(void **state) {
        (void)state;
        applies(known, KNOWN);
        struct migration edited[KNOWN];
        memcpy(edited, known, sizeof edited);
        edited[1].sql = "ALTER TABLE animals ADD legs integer NOT NULL DEFAULT 5";
        refuses(edited, KNOWN, "migration 2 (legs)");
        check_says(edited, KNOWN, "migration 2 (legs)");
}

static void newer_schema_is_refused(void **state) {
        (void)state;
        applies(known, KNOWN);
        refuses(known, 2, "at migration 3 and this genied knows 2");
}

static void failed_migration_leaves_nothing_of_itself(void **state) {
        (void)state;
        struct migration broken[KNOWN];
        memcpy(broken, known, sizeof broken);
        broken[2].sql = "INSERT INTO animals VALUES ('dog', 4); INSERT INTO animals VALUES (1, 2, 3)";
        refuses(broken, KNOWN, "migration 3 (birds): ERROR:");
        assert_int_equal(rows(), 1);
        check_passes(database.admin, known, 2);
        applies(known, KNOWN);
        assert_int_equal(rows(), 2);
}

static void migration_that_commits_is_refused(void **state) {
        (void)state;
        static const struct migration commits[] = {{1, "commits", "CREATE TABLE animals (name text); COMMIT"}};
        refuses(commits, 1, "ends its transaction by itself");
}

static void unreachable_database_is_said(void **state) {
        (void)state;
        char *error = NULL;
        assert_false(migrate_apply("host=/nonexistent dbname=x", known, KNOWN, NULL, &error));
        assert_non_null(strstr(error, "/nonexistent"));
        free(error);
}

static unsigned logged;

static void count_log(const char *event, const char *detail) {
        assert_true(strcmp(event, "migration begins") == 0 || strcmp(event, "migration applied") == 0);
        assert_memory_equal(detail + 1, " ", 1);
        logged++;
}

static void log_has_begin_and_end(void **state) {
        (void)state;
        char *error = NULL;
        logged = 0;
        assert_true(migrate_apply(database.url, known, KNOWN, count_log, &error));
        assert_int_equal(logged, 2 * KNOWN);
        assert_true(migrate_apply(database.url, known, KNOWN, count_log, &error));
        assert_int_equal(logged, 2 * KNOWN);
}

struct rival {
        const struct migration *migrations;
        size_t count;
        bool applied;
        pthread_t thread;
};

static void *rival_applies(void *argument) {
        struct rival *rival = argument;
        char *error = NULL;
        rival->applied = migrate_apply(database.url, rival->migrations, rival->count, NULL, &error);
        if (error)
                fprintf(stderr, "%s\n", error);
        free(error);
        return NULL;
}

static void rivals_apply_once(void **state) {
        (void)state;
        enum { RIVALS = 6 };
        struct rival rivals[RIVALS];
        for (int i = 0; i < RIVALS; i++) {
                rivals[i] = (struct rival){known, KNOWN, false, 0};
                assert_int_equal(pthread_create(&rivals[i].thread, NULL, rival_applies, &rivals[i]), 0);
        }
        for (int i = 0; i < RIVALS; i++)
                pthread_join(rivals[i].thread, NULL);
        for (int i = 0; i < RIVALS; i++)
                assert_true(rivals[i].applied);
        assert_int_equal(rows(), 2);
}

// Roles belong to the whole server, where the migrator's lock does not reach: another database's migration has granted
// the same one, and commits while this one waits for it.
static void rival_of_another_database_is_no_failure(void **state) {
        (void)state;
        char sql[512], waits[256];
        snprintf(sql, sizeof sql,
                "CREATE TABLE animals (name text); INSERT INTO animals VALUES ('cat'); DO $$ BEGIN "
                "IF NOT pg_has_role('%s', 'pg_monitor', 'MEMBER') THEN GRANT pg_monitor TO %s; END IF; END $$",
                database.name, database.name);
        snprintf(waits, sizeof waits,
                "SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity "
                "WHERE datname = '%s' AND wait_event_type = 'Lock'",
                database.name);
        const struct migration grant = {1, "grant", sql};
        struct rival rival = {&grant, 1, false, 0};
        database_do(database.server, "BEGIN; GRANT pg_monitor TO %s", database.name);
        assert_int_equal(pthread_create(&rival.thread, NULL, rival_applies, &rival), 0);
        bool waited = false;
        for (int i = 0; i < 1000 && !waited; i++)
                waited = database_number(database.admin, waits) > 0;
        database_do(database.server, "COMMIT");
        pthread_join(rival.thread, NULL);
        assert_true(waited);
        assert_true(rival.applied);
        assert_int_equal(rows(), 1);
        check_passes(database.admin, &grant, 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(applied_once_and_recorded, empty_schema),
                cmocka_unit_test_setup(check_says_what_to_run, empty_schema),
                cmocka_unit_test_setup(every_role_may_check, empty_schema),
                cmocka_unit_test_setup(edited_migration_is_refused, empty_schema),
                cmocka_unit_test_setup(newer_schema_is_refused, empty_schema),
                cmocka_unit_test_setup(failed_migration_leaves_nothing_of_itself, empty_schema),
                cmocka_unit_test_setup(migration_that_commits_is_refused, empty_schema),
                cmocka_unit_test_setup(unreachable_database_is_said, empty_schema),
                cmocka_unit_test_setup(log_has_begin_and_end, empty_schema),
                cmocka_unit_test_setup(rivals_apply_once, empty_schema),
                cmocka_unit_test_setup(rival_of_another_database_is_no_failure, empty_schema),
        };
        database_make(&database, "migrate");
        int failed = cmocka_run_group_tests_name("migrate", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
