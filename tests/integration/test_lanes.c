// The lanes at work on a real database: sessions, batches, tenants, settings, commits and bounds.
#include "tests/integration/lanes.h"

static void sessions_are_set_up(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task task;
        char expected[VALUE_TEXT];
        snprintf(expected, sizeof expected, "%s UTC 15s force_generic_plan off on genied read 5", database.name);
        task_run(storage, &task, &read_session, 5);
        expect_outcome(&task, STORAGE_OK, expected);
        task_run(storage, &task, &read_that_writes, 1);
        expect_outcome(&task, STORAGE_REFUSED, "25006"); // read_only_sql_transaction
        storage_stop(storage, 1000);
}

// Fills the connection, so that what is submitted next waits.
static void fill_reads(struct storage *storage, struct task tasks[2]) {
        gate_close(1);
        for (int i = 0; i < 2; i++) {
                task_run(storage, &tasks[i], &read_gate, 1);
                wait_at_gate(1);
        }
        // The second waits behind the first, on the same connection, once it is sent.
        while (storage_stats(storage).batches < 2)
                ;
}

static void waiting_reads_share_a_sync_and_survive_one_that_fails(void **state) {
        (void)state;
        enum { READS = 20, FAILING = 10 };
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task gates[2], tasks[READS];
        fill_reads(storage, gates);
        for (int i = 0; i < READS; i++) {
                char tenant[TENANT_TEXT + 1];
                snprintf(tenant, sizeof tenant, "tenant %d", i / 3);
                task_set(&tasks[i], i == FAILING ? &read_divide : &read_echo, i == FAILING ? 0 : i, tenant);
                submit(storage, &tasks[i]);
        }
        gate_open(1);
        for (int i = 0; i < READS; i++) {
                char expected[16];
                snprintf(expected, sizeof expected, "%d", i);
                if (i == FAILING) {
                        expect_outcome(&tasks[i], STORAGE_REFUSED, "22012"); // division_by_zero
                        continue;
                }
                expect_outcome(&tasks[i], STORAGE_OK, expected);
                assert_string_equal(tasks[i].second, tasks[i].tenant);
        }
        // Two at the gate, one for all, and one for each behind the one that failed.
        assert_int_equal(storage_stats(storage).batches, 2 + 1 + (READS - FAILING - 1));
        assert_int_equal(storage_stats(storage).refused[LANE_READ], 1);
        storage_stop(storage, 1000);
}

enum { THREADS = 4, EACH = 3000 };

struct crowd {
        struct storage *storage;
        unsigned seed;
        struct task tasks[EACH];
};

// Reads of five tenants, and of none, one in thirty of them failing, so that batches break all the time.
static void *read_at_random(void *argument) {
        struct crowd *crowd = argument;
        for (int i = 0; i < EACH; i++) {
                struct task *task = &crowd->tasks[i];
                unsigned draw = (unsigned)rand_r(&crowd->seed) % 6;
                char tenant[TENANT_TEXT + 1] = "";
                if (draw)
                        snprintf(tenant, sizeof tenant, "00000000-0000-0000-0000-00000000000%u", draw);
                task_set(task, &read_divide, rand_r(&crowd->seed) % 30, tenant);
                while (!storage_submit(crowd->storage, &task->operation))
                        sched_yield();
        }
        return NULL;
}

static void check_read(struct task *task) {
        int number = (int)ntohl(task->number);
        char expected[16];
        snprintf(expected, sizeof expected, "%d", number ? 12 / number : 0);
        expect_outcome(task, number ? STORAGE_OK : STORAGE_REFUSED, number ? expected : "22012");
        assert_string_equal(task->second, number ? task->tenant : "");
}

static void every_read_sees_its_own_tenant(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        config.queue_limit[LANE_READ] = 500;
        struct storage *storage = lanes_start(&config);
        struct crowd *crowds = calloc(THREADS, sizeof *crowds);
        pthread_t threads[THREADS];
        assert_non_null(crowds);
        for (unsigned i = 0; i < THREADS; i++) {
                crowds[i].storage = storage;
                crowds[i].seed = i + 1;
                assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &crowds[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        for (int i = 0; i < THREADS; i++)
                for (int j = 0; j < EACH; j++)
                        check_read(&crowds[i].tasks[j]);
        struct storage_stats stats = storage_stats(storage);
        assert_int_equal(stats.operations[LANE_READ], THREADS * EACH);
        assert_int_equal(stats.queued[LANE_READ], 0);
        assert_true(stats.batches < THREADS * EACH);
        storage_stop(storage, 1000);
        free(crowds);
}

static void a_write_sees_its_own_settings(void **state) {
        (void)state;
        enum { WRITES = 60 };
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task tasks[WRITES];
        char texts[WRITES][3][16];
        gate_close(1);
        struct task gate;
        task_run(storage, &gate, &write_gate, 1);
        for (int i = 0; i < WRITES; i++) {
                char tenant[TENANT_TEXT + 1];
                snprintf(tenant, sizeof tenant, "tenant%d", i % 7);
                for (int j = 0; j < 3; j++)
                        snprintf(texts[i][j], sizeof texts[i][j], "%c%d", "cmr"[j], i);
                // Every fourth fails, and takes its settings with it.
                task_set(&tasks[i],
                        i % 4 == 3   ? &write_number
                        : i % 4 == 2 ? &bulk_settings
                                     : &write_settings,
                        1, tenant);
                tasks[i].operation.caller = texts[i][0];
                tasks[i].operation.method = texts[i][1];
                tasks[i].operation.request_id = texts[i][2];
                submit(storage, &tasks[i]);
        }
        gate_open(1);
        expect_outcome(&gate, STORAGE_OK, "1");
        for (int i = 0; i < WRITES; i++) {
                char expected[VALUE_TEXT];
                snprintf(expected, sizeof expected, "1 tenant%d c%d m%d r%d", i % 7, i, i, i);
                if (i % 4 == 3)
                        expect_outcome(&tasks[i], STORAGE_REFUSED, "23505");
                else
                        expect_outcome(&tasks[i], STORAGE_OK, expected);
        }
        storage_stop(storage, 1000);
}

// Every third breaks a constraint; the others, pipelined with it, are all there.
static void a_write_that_fails_leaves_its_neighbours_alone(void **state) {
        (void)state;
        enum { WRITES = 90 };
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task tasks[WRITES], gate;
        gate_close(999);
        task_run(storage, &gate, &write_gate, 999);
        for (int i = 0; i < WRITES; i++)
                task_run(storage, &tasks[i], &write_number, i % 3 == 2 ? i - 1 : i);
        gate_open(999);
        for (int i = 0; i < WRITES; i++) {
                char expected[16];
                snprintf(expected, sizeof expected, "%d", i);
                if (i % 3 == 2) {
                        expect_outcome(&tasks[i], STORAGE_REFUSED, "23505");
                        assert_string_equal(tasks[i].second, "numbers_unique");
                } else
                        expect_outcome(&tasks[i], STORAGE_OK, expected);
        }
        assert_int_equal(database_number(database.admin, "SELECT count(*) FROM numbers"), 1 + WRITES / 3 * 2);
        storage_stop(storage, 1000);
}

// What fails at the commit is refused, though its statement gave a row.
static void a_write_is_done_when_it_is_committed(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        struct task first, second, third;
        task_run(storage, &first, &write_late_check, 1);
        task_run(storage, &second, &write_late_check, 1);
        task_run(storage, &third, &write_late_check, 2);
        expect_outcome(&first, STORAGE_OK, "1");
        expect_outcome(&second, STORAGE_REFUSED, "23505");
        assert_string_equal(second.second, "late_unique");
        expect_outcome(&third, STORAGE_OK, "2");
        storage_stop(storage, 1000);
}

static void a_full_queue_refuses(void **state) {
        (void)state;
        enum { LIMIT = 8 };
        struct storage_config config = lanes_config();
        for (int lane = 0; lane < LANE_COUNT; lane++)
                config.queue_limit[lane] = LIMIT;
        struct storage *storage = lanes_start(&config);
        static const struct storage_statement *const gates[] = {&read_gate, &write_gate, &bulk_gate};
        for (int lane = 0; lane < LANE_COUNT; lane++) {
                struct task tasks[LIMIT + 1];
                gate_close(2000);
                for (int i = 0; i < LIMIT; i++)
                        task_run(storage, &tasks[i], gates[lane], 2000);
                task_set(&tasks[LIMIT], gates[lane], 2000, "");
                assert_false(storage_submit(storage, &tasks[LIMIT].operation));
                assert_int_equal(storage_stats(storage).queued[lane], LIMIT);
                gate_open(2000);
                for (int i = 0; i < LIMIT; i++)
                        expect_outcome(&tasks[i], STORAGE_OK, "2000");
                assert_int_equal(tasks[LIMIT].done, 0);
                task_run(storage, &tasks[0], gates[lane], 2000);
                expect_outcome(&tasks[0], STORAGE_OK, "2000");
        }
        storage_stop(storage, 1000);
}

static void large_values_pass(void **state) {
        (void)state;
        enum { SIZE = 8 << 20 };
        struct storage_config config = lanes_config();
        struct storage *storage = lanes_start(&config);
        char *large = malloc(SIZE);
        assert_non_null(large);
        memset(large, 'x', SIZE - 3);
        memcpy(large + SIZE - 3, "end", 3);
        struct task tasks[8];
        for (int i = 0; i < 8; i++) {
                task_set(&tasks[i], i % 2 ? &read_size : &write_size, 0, "");
                tasks[i].parameter = (struct storage_value){large, SIZE};
                submit(storage, &tasks[i]);
        }
        for (int i = 0; i < 8; i++)
                expect_outcome(&tasks[i], STORAGE_OK, "8388608end");
        storage_stop(storage, 1000);
        free(large);
}

static struct storage *again_in;
static unsigned again_left;

// Submits the same operation from its own `done`.
static void submit_again(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        if (outcome == STORAGE_OK && again_left) {
                again_left--;
                if (storage_submit(again_in, operation))
                        return;
        }
        keep_result((struct task *)operation, outcome, result);
}

static void an_operation_can_be_submitted_from_done(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        config.queue_limit[LANE_WRITE] = 1;
        struct storage *storage = lanes_start(&config);
        struct task task;
        again_in = storage;
        again_left = 1000;
        task_set(&task, &write_number, 1000, "");
        task.operation.done = submit_again;
        submit(storage, &task);
        expect_outcome(&task, STORAGE_OK, "1000");
        assert_int_equal(database_number(database.admin, "SELECT count(*) FROM numbers WHERE number = 1000"), 1001);
        storage_stop(storage, 1000);
}

static atomic_uint turns;
static bool count_turn(void *context, bool more) {
        (void)more;
        atomic_fetch_add((atomic_uint *)context, 1);
        return false;
}

static void turns_end_and_idle_ones_are_rare(void **state) {
        (void)state;
        struct storage_config config = lanes_config();
        config.turn_ended = count_turn;
        config.context = &turns;
        struct storage *storage = lanes_start(&config);
        struct task task;
        for (int i = 0; i < 100; i++) {
                task_run(storage, &task, &read_echo, i);
                task_wait(&task);
        }
        unsigned count = atomic_load(&turns);
        assert_in_range(count, 100, 1000);
        database_do(database.admin, "SELECT pg_sleep(0.5)");
        assert_in_range(atomic_load(&turns) - count, 0, 5);
        storage_stop(storage, 1000);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(sessions_are_set_up, lanes_clean),
                cmocka_unit_test_setup(waiting_reads_share_a_sync_and_survive_one_that_fails, lanes_clean),
                cmocka_unit_test_setup(every_read_sees_its_own_tenant, lanes_clean),
                cmocka_unit_test_setup(a_write_sees_its_own_settings, lanes_clean),
                cmocka_unit_test_setup(a_write_that_fails_leaves_its_neighbours_alone, lanes_clean),
                cmocka_unit_test_setup(a_write_is_done_when_it_is_committed, lanes_clean),
                cmocka_unit_test_setup(a_full_queue_refuses, lanes_clean),
                cmocka_unit_test_setup(large_values_pass, lanes_clean),
                cmocka_unit_test_setup(an_operation_can_be_submitted_from_done, lanes_clean),
                cmocka_unit_test_setup(turns_end_and_idle_ones_are_rare, lanes_clean),
        };
        lanes_make("lanes");
        int failed = cmocka_run_group_tests_name("lanes", tests, NULL, NULL);
        database_drop(&database);
        return failed;
}
