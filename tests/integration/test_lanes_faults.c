// The lanes when something goes wrong: cancelled and late operations, backends that are killed, a database that is
// away, statements and roles that cannot be worked with, and the stop.
#include "tests/integration/lanes.h"

#include <errno.h>

#define SESSIONS "pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'genied %'"

static int64_t in_milliseconds(long milliseconds) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (now.tv_sec * INT64_C(1000) + milliseconds) * 1000000 + now.tv_nsec;
}

static void what_waits_is_cancelled_at_once(void **state) {
        (void)state;
        static const struct storage_statement *const gates[] = {&read_gate, &write_gate, &bulk_gate};
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        for (int lane = 0; lane < LANE_COUNT; lane++) {
                enum { MANY = 200 };
                struct task tasks[MANY];
                gate_close(2000);
                for (int i = 0; i < MANY; i++)
                        task_run(storage, &tasks[i], gates[lane], 2000);
                wait_at_gate(1);
                storage_cancel(storage, &tasks[MANY - 1].operation);
                storage_cancel(storage, &tasks[MANY - 1].operation);
                expect_outcome(&tasks[MANY - 1], STORAGE_CANCELLED, "");
                assert_false(task_is_done(&tasks[0]));
                gate_open(2000);
                for (int i = 0; i < MANY - 1; i++)
                        expect_outcome(&tasks[i], STORAGE_OK, "2000");
        }
        storage_stop(storage, 1000);
}

static void what_waits_can_be_late(void **state) {
        (void)state;
        static const struct storage_statement *const gates[] = {&read_gate, &write_gate, &bulk_gate};
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        for (int lane = 0; lane < LANE_COUNT; lane++) {
                enum { MANY = 200 };
                struct task tasks[MANY], late;
                gate_close(2000);
                for (int i = 0; i < MANY; i++)
                        task_run(storage, &tasks[i], gates[lane], 2000);
                task_set(&late, gates[lane], 2000, "");
                late.operation.deadline = in_milliseconds(30);
                submit(storage, &late);
                expect_outcome(&late, STORAGE_DEADLINE, "");
                assert_true(in_milliseconds(0) >= late.operation.deadline);
                assert_true(in_milliseconds(0) < late.operation.deadline + INT64_C(5000000000));
                assert_false(task_is_done(&tasks[0]));
                gate_open(2000);
                for (int i = 0; i < MANY; i++)
                        expect_outcome(&tasks[i], STORAGE_OK, "2000");
        }
        storage_stop(storage, 1000);
}

static void a_sent_read_or_write_runs_to_its_end(void **state) {
        (void)state;
        static const struct storage_statement *const gates[] = {&read_gate, &write_gate};
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        for (int lane = 0; lane < LANE_BULK; lane++) {
                struct task task;
                gate_close(2000);
                task_run(storage, &task, gates[lane], 2000);
                wait_at_gate(1);
                storage_cancel(storage, &task.operation);
                assert_false(task_is_done(&task));
                gate_open(2000);
                expect_outcome(&task, STORAGE_OK, "2000");
        }
        storage_stop(storage, 1000);
}

static void a_running_bulk_statement_ends_on_the_server(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        for (int i = 0; i < 20; i++) {
                struct task task, next;
                gate_close(2000);
                task_set(&task, &bulk_gate, 2000, "");
                if (i % 2)
                        task.operation.deadline = in_milliseconds(50);
                submit(storage, &task);
                task_run(storage, &next, &bulk_number, 2000 + i);
                if (i % 2 == 0) {
                        wait_at_gate(1);
                        storage_cancel(storage, &task.operation);
                }
                expect_outcome(&task, i % 2 ? STORAGE_DEADLINE : STORAGE_CANCELLED, "");
                assert_int_equal(database_number(database.admin, "SELECT count(*) FROM " AT_GATES), 0);
                // The request to cancel does not hit the statement that follows.
                char expected[16];
                snprintf(expected, sizeof expected, "%d", 2000 + i);
                expect_outcome(&next, STORAGE_OK, expected);
                gate_open(2000);
        }
        assert_int_equal(database_number(database.admin, "SELECT count(DISTINCT pid) FROM " SESSIONS), LANE_COUNT);
        storage_stop(storage, 1000);
}

static void a_statement_timeout_ends_one_read_alone(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        config.timeout_ms[LANE_READ] = 200;
        config.timeout_ms[LANE_WRITE] = 200;
        struct storage *storage = lanes_start(&config);
        struct task tasks[4];
        gate_close(2000);
        task_run(storage, &tasks[0], &read_gate, 2000);
        task_run(storage, &tasks[1], &read_echo, 1);
        task_run(storage, &tasks[2], &write_gate, 2000);
        task_run(storage, &tasks[3], &write_number, 2);
        expect_outcome(&tasks[0], STORAGE_DEADLINE, "");
        expect_outcome(&tasks[1], STORAGE_OK, "1");
        expect_outcome(&tasks[2], STORAGE_DEADLINE, "");
        expect_outcome(&tasks[3], STORAGE_OK, "2");
        gate_open(2000);
        storage_stop(storage, 1000);
}

enum { MANY = 6000, CROWDS = 3 };

struct crowd {
        struct storage *storage;
        unsigned seed;
        bool cancels;
        int first; // number that is written
        struct task tasks[MANY];
};

// Operations of all lanes, some of them cancelled from here at any moment of their lives.
static void *submit_at_random(void *argument) {
        static const struct storage_statement *const choice[] = {
                &read_echo, &read_echo, &read_divide, &write_number, &bulk_number, &bulk_settings};
        struct crowd *crowd = argument;
        for (int i = 0; i < MANY; i++) {
                struct task *task = &crowd->tasks[i];
                const struct storage_statement *statement = choice[rand_r(&crowd->seed) % 6];
                task_set(task, statement, statement == &read_divide ? i % 20 : crowd->first + i, "tenant");
                while (!storage_submit(crowd->storage, &task->operation))
                        sched_yield();
                // A task is the suite's own memory: it may be cancelled after its end, too.
                if (crowd->cancels && rand_r(&crowd->seed) % 3 == 0)
                        storage_cancel(crowd->storage, &crowd->tasks[i - (int)((unsigned)rand_r(&crowd->seed) %
                                                                                 (unsigned)(i < 50 ? i + 1 : 50))]
                                                                .operation);
        }
        return NULL;
}

static struct crowd *start_crowds(struct storage *storage, bool cancels, pthread_t threads[CROWDS]) {
        struct crowd *crowds = calloc(CROWDS, sizeof *crowds);
        assert_non_null(crowds);
        for (int i = 0; i < CROWDS; i++) {
                crowds[i].storage = storage;
                crowds[i].seed = (unsigned)i + 7;
                crowds[i].cancels = cancels;
                crowds[i].first = 10000 + i * MANY;
                assert_int_equal(pthread_create(&threads[i], NULL, submit_at_random, &crowds[i]), 0);
        }
        return crowds;
}

static void finish_crowds(struct crowd *crowds, const pthread_t threads[CROWDS]) {
        for (int i = 0; i < CROWDS; i++)
                pthread_join(threads[i], NULL);
        for (int i = 0; i < CROWDS; i++)
                for (int j = 0; j < MANY; j++)
                        task_wait(&crowds[i].tasks[j]);
}

// Whether the number of a write is in the table: -1 if more than once.
static int *count_numbers(void) {
        int *counts = calloc(CROWDS * MANY, sizeof *counts);
        assert_non_null(counts);
        PGresult *result = database_query(database.admin, "SELECT number FROM numbers WHERE number >= 10000");
        for (int i = 0; i < PQntuples(result); i++)
                counts[strtol(PQgetvalue(result, i, 0), NULL, 10) - 10000]++;
        PQclear(result);
        return counts;
}

static bool is_write(const struct task *task) {
        return task->operation.statement == &write_number || task->operation.statement == &bulk_number;
}

// Each operation ended once; a write that was reported done is there, one that was reported not done is not, and
// none is there twice. Returns how many had each outcome.
static void check_crowds(struct crowd *crowds, unsigned ret_outcomes[STORAGE_DOWN + 1]) {
        int *counts = count_numbers();
        for (int i = 0; i < CROWDS; i++)
                for (int j = 0; j < MANY; j++) {
                        struct task *task = &crowds[i].tasks[j];
                        int count = counts[i * MANY + j];
                        assert_int_equal(task->done, 1);
                        ret_outcomes[task->outcome]++;
                        if (task->outcome == STORAGE_REFUSED)
                                assert_string_equal(task->value, "22012");
                        if (is_write(task) && task->outcome == STORAGE_LOST)
                                assert_in_range(count, 0, 1);
                        else
                                assert_int_equal(count, is_write(task) && task->outcome == STORAGE_OK);
                }
        free(counts);
}

static void random_cancels_end_each_operation_once(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        for (int lane = 0; lane < LANE_COUNT; lane++)
                config.queue_limit[lane] = 300;
        config.connections[LANE_BULK] = 2;
        struct storage *storage = lanes_start(&config);
        pthread_t threads[CROWDS];
        struct crowd *crowds = start_crowds(storage, /* cancels= */ true, threads);
        finish_crowds(crowds, threads);
        unsigned outcomes[STORAGE_DOWN + 1] = {0};
        check_crowds(crowds, outcomes);
        assert_int_equal(outcomes[STORAGE_LOST] + outcomes[STORAGE_DOWN] + outcomes[STORAGE_DEADLINE], 0);
        assert_true(outcomes[STORAGE_CANCELLED] > 0 && outcomes[STORAGE_OK] > 0);
        storage_stop(storage, 1000);
        free(crowds);
}

static void kill_one(void) {
        database_number(database.admin, "SELECT pg_terminate_backend(pid, 10000) FROM (SELECT pid FROM " SESSIONS
                                        " ORDER BY random() LIMIT 1) AS one");
}

static bool all_connected(const struct storage *storage) {
        struct storage_stats stats = storage_stats(storage);
        return stats.connected[LANE_READ] + stats.connected[LANE_WRITE] + stats.connected[LANE_BULK] == 2 * LANE_COUNT;
}

static void killed_backends_lose_nothing_unsaid(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        for (int lane = 0; lane < LANE_COUNT; lane++) {
                config.queue_limit[lane] = 300;
                config.connections[lane] = 2;
        }
        struct storage *storage = lanes_start(&config);
        pthread_t threads[CROWDS];
        struct crowd *crowds = start_crowds(storage, /* cancels= */ false, threads);
        for (int killed = 0; killed < 20 || !task_is_done(&crowds[0].tasks[MANY - 1]); killed++) {
                kill_one();
                while (!all_connected(storage))
                        sched_yield();
        }
        finish_crowds(crowds, threads);
        unsigned outcomes[STORAGE_DOWN + 1] = {0};
        check_crowds(crowds, outcomes);
        assert_int_equal(outcomes[STORAGE_CANCELLED] + outcomes[STORAGE_DOWN] + outcomes[STORAGE_DEADLINE], 0);
        assert_true(outcomes[STORAGE_LOST] > 0 && outcomes[STORAGE_OK] > outcomes[STORAGE_LOST]);
        // It stands again, whole.
        assert_true(storage_wait_ready(storage, PATIENCE_S * 1000, NULL));
        struct task task;
        task_run(storage, &task, &read_echo, 3);
        expect_outcome(&task, STORAGE_OK, "3");
        storage_stop(storage, 1000);
        free(crowds);
}

static void kill_the_one_at_the_gate(void) {
        wait_at_gate(1);
        assert_int_equal(
                database_number(database.admin,
                        "SELECT count(pg_terminate_backend(pid, 10000)) FROM (SELECT pid FROM " AT_GATES ") AS one"),
                1);
}

static void a_read_is_sent_again_once(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task once, twice;
        gate_close(2000);
        task_run(storage, &once, &read_gate, 2000);
        kill_the_one_at_the_gate();
        wait_at_gate(1);
        gate_open(2000);
        expect_outcome(&once, STORAGE_OK, "2000");
        gate_close(2000);
        task_run(storage, &twice, &read_gate, 2000);
        kill_the_one_at_the_gate();
        kill_the_one_at_the_gate();
        expect_outcome(&twice, STORAGE_LOST, "");
        assert_true(has_logged("database connection lost: read connection: "));
        assert_true(has_logged("database connection restored: read"));
        gate_open(2000);
        storage_stop(storage, 1000);
}

static void a_write_is_not_sent_again(void **state) {
        (void)state;
        static const struct storage_statement *const gates[] = {&write_gate, &bulk_gate};
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        for (int i = 0; i < 2; i++) {
                struct task task;
                gate_close(2000);
                task_run(storage, &task, gates[i], 2000);
                kill_the_one_at_the_gate();
                expect_outcome(&task, STORAGE_LOST, "");
                gate_open(2000);
        }
        assert_int_equal(database_number(database.admin, "SELECT count(*) FROM numbers"), 0);
        storage_stop(storage, 1000);
}

static void a_database_may_come_late(void **state) {
        (void)state;
        char name[sizeof database.name + 8], url[1024];
        snprintf(name, sizeof name, "%s_late", database.name);
        database_url(database.server, name, url, sizeof url);
        struct storage_config config = lanes_config();
        static const struct storage_statement *const plain[] = {&read_echo, NULL};
        config.statements = plain;
        config.url = url;
        config.connect_timeout_ms = 100;
        struct storage *storage = storage_start(&config);
        assert_non_null(storage);
        struct task first, second, third;
        task_run(storage, &first, &read_echo, 1);
        expect_outcome(&first, STORAGE_DOWN, "");
        task_run(storage, &second, &read_echo, 2); // at once, by now
        expect_outcome(&second, STORAGE_DOWN, "");
        const char *error = "";
        assert_false(storage_wait_ready(storage, 10, &error));
        assert_non_null(strstr(error, name));
        assert_false(storage_ready(storage));
        database_do(database.server, "CREATE DATABASE %s", name);
        assert_true(storage_wait_ready(storage, PATIENCE_S * 1000, &error));
        task_run(storage, &third, &read_echo, 3);
        expect_outcome(&third, STORAGE_OK, "3");
        storage_stop(storage, 1000);
        database_do(database.server, "DROP DATABASE %s WITH (FORCE)", name);
}

// Starts a storage that cannot get ready; the error says why.
static void never_ready(const struct storage_config *config, const char *words) {
        struct storage *storage = storage_start(config);
        assert_non_null(storage);
        const char *error = "";
        assert_false(storage_wait_ready(storage, 300, &error));
        if (!strstr(error, words))
                fail_msg("`%s` is not in: %s", words, error);
        assert_true(has_logged(words));
        storage_stop(storage, 1000);
}

static void a_wrong_statement_is_named(void **state) {
        (void)state;
        static const struct storage_statement wrong = {"the_wrong_one", "SELECT no_column", LANE_READ, 0, NULL};
        static const struct storage_statement *const some[] = {&read_echo, &wrong, &read_divide, NULL};
        struct storage_config config = lanes_config();
        config.statements = some;
        never_ready(&config, "the_wrong_one: ERROR:  column \"no_column\" does not exist");
}

static void a_role_above_row_security_is_refused(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        config.role = NULL; // the login's: a superuser
        never_ready(&config, "superuser or bypasses row-level security");
        config.role = database.name;
        database_do(database.server, "ALTER ROLE %s BYPASSRLS", database.name);
        never_ready(&config, "superuser or bypasses row-level security");
        database_do(database.server, "ALTER ROLE %s NOBYPASSRLS", database.name);
        config.role = "no such\\role";
        never_ready(&config, "no such\\role");
}

static void what_cannot_be_worked_with_is_refused(void **state) {
        (void)state;
        static const struct storage_statement many = {"many", "SELECT 1", LANE_READ, 1000, NULL};
        static const struct storage_statement *const some[] = {&many, NULL};
        struct storage_config config = lanes_config();
        config.statements = some;
        assert_null(storage_start(&config));
        assert_int_equal(errno, EINVAL);
        config = lanes_config();
        config.url = "postgresql://user:secret@[broken";
        assert_null(storage_start(&config));
        assert_int_equal(errno, EINVAL);
        assert_true(has_logged("database URL malformed"));
        assert_false(has_logged("secret"));
        // A lane without connections takes nothing.
        config = lanes_config();
        config.connections[LANE_BULK] = 0;
        struct storage *storage = lanes_start(&config);
        struct task task;
        task_set(&task, &bulk_number, 1, "");
        assert_false(storage_submit(storage, &task.operation));
        storage_stop(storage, 1000);
}

static void *open_gate_when_cancelled(void *argument) {
        task_wait(argument);
        gate_open(2000);
        return NULL;
}

static void the_stop_waits_for_what_is_under_way(void **state) {
        (void)state;
        static const struct storage_statement *const gates[] = {&read_gate, &write_gate, &bulk_gate};
        for (int lane = 0; lane < LANE_COUNT; lane++) {
                struct storage_config config = lanes_config();
                struct storage *storage = lanes_start(&config);
                enum { ALL = 200 };
                struct task tasks[ALL];
                pthread_t thread;
                gate_close(2000);
                for (int i = 0; i < ALL; i++)
                        task_run(storage, &tasks[i], gates[lane], 2000);
                wait_at_gate(1);
                assert_int_equal(pthread_create(&thread, NULL, open_gate_when_cancelled, &tasks[ALL - 1]), 0);
                storage_stop(storage, PATIENCE_S * 1000);
                pthread_join(thread, NULL);
                expect_outcome(&tasks[0], STORAGE_OK, "2000");
                for (int i = 1; i < ALL; i++) {
                        assert_int_equal(tasks[i].done, 1);
                        assert_true(tasks[i].outcome == STORAGE_OK || tasks[i].outcome == STORAGE_CANCELLED);
                }
                assert_int_equal(tasks[ALL - 1].outcome, STORAGE_CANCELLED);
        }
}

static void the_stop_does_not_wait_for_ever(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task read, write, bulk;
        gate_close(2000);
        task_run(storage, &read, &read_gate, 2000);
        task_run(storage, &write, &write_gate, 2000);
        task_run(storage, &bulk, &bulk_gate, 2000);
        wait_at_gate(3);
        storage_stop(storage, 50);
        assert_int_equal(read.done + write.done + bulk.done, 3);
        assert_int_equal(read.outcome, STORAGE_CANCELLED);
        assert_int_equal(write.outcome, STORAGE_LOST);
        assert_int_equal(bulk.outcome, STORAGE_LOST);
        // The bulk statement was cancelled; what the others run is bounded by the statement timeout.
        wait_at_gate(2);
        gate_open(2000);
}

static void a_stop_under_load_answers_everything(void **state) {
        (void)state;
        for (int round = 0; round < 10; round++) {
                struct storage_config config = lanes_config();
                struct storage *storage = lanes_start(&config);
                struct task *tasks = calloc(MANY, sizeof *tasks);
                assert_non_null(tasks);
                for (int i = 0; i < MANY; i++)
                        task_run(storage, &tasks[i], i % 2 ? &read_echo : &write_number, 10000 + i);
                storage_stop(storage, PATIENCE_S * 1000);
                for (int i = 0; i < MANY; i++) {
                        assert_int_equal(tasks[i].done, 1);
                        assert_true(tasks[i].outcome == STORAGE_OK || tasks[i].outcome == STORAGE_CANCELLED);
                }
                free(tasks);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(what_waits_is_cancelled_at_once, lanes_clean),
                cmocka_unit_test_setup(what_waits_can_be_late, lanes_clean),
                cmocka_unit_test_setup(a_sent_read_or_write_runs_to_its_end, lanes_clean),
                cmocka_unit_test_setup(a_running_bulk_statement_ends_on_the_server, lanes_clean),
                cmocka_unit_test_setup(a_statement_timeout_ends_one_read_alone, lanes_clean),
                cmocka_unit_test_setup(random_cancels_end_each_operation_once, lanes_clean),
                cmocka_unit_test_setup(killed_backends_lose_nothing_unsaid, lanes_clean),
                cmocka_unit_test_setup(a_read_is_sent_again_once, lanes_clean),
                cmocka_unit_test_setup(a_write_is_not_sent_again, lanes_clean),
                cmocka_unit_test_setup(a_database_may_come_late, lanes_clean),
                cmocka_unit_test_setup(a_wrong_statement_is_named, lanes_clean),
                cmocka_unit_test_setup(a_role_above_row_security_is_refused, lanes_clean),
                cmocka_unit_test_setup(what_cannot_be_worked_with_is_refused, lanes_clean),
                cmocka_unit_test_setup(the_stop_waits_for_what_is_under_way, lanes_clean),
                cmocka_unit_test_setup(the_stop_does_not_wait_for_ever, lanes_clean),
                cmocka_unit_test_setup(a_stop_under_load_answers_everything, lanes_clean),
        };
        lanes_make("faults");
        int failed = cmocka_run_group_tests_name("lanes, faults", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
