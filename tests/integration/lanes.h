// What the suites of the lanes share: statements, a storage to try, and tasks, which are operations that can be
// waited for. A statement that has to be caught under way waits at a gate, an advisory lock that the suite holds.
#pragma once

#include "storage/storage.h"
#include "tests/integration/database.h"
#include "tests/unit/cmocka_all.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { PATIENCE_S = 20, VALUE_TEXT = 256, TENANT_TEXT = 36 };

static struct database database;

static const struct storage_statement read_echo = {
        "read_echo", "SELECT $1::int4, current_setting('genie.organization_id')::text", LANE_READ, 1, NULL};
static const struct storage_statement read_divide = {
        "read_divide", "SELECT 12 / $1::int4, current_setting('genie.organization_id')::text", LANE_READ, 1, NULL};
static const struct storage_statement read_gate = {
        "read_gate", "SELECT $1::int4 FROM pg_advisory_xact_lock_shared($1::int4)", LANE_READ, 1, NULL};
static const struct storage_statement read_that_writes = {
        "read_that_writes", "INSERT INTO numbers VALUES ($1::int4)", LANE_READ, 1, NULL};
static const struct storage_statement read_session = {"read_session",
        "SELECT concat_ws(' ', current_user, current_setting('TimeZone'), current_setting('statement_timeout'), "
        "current_setting('plan_cache_mode'), current_setting('enable_seqscan'), "
        "current_setting('default_transaction_read_only'), "
        "current_setting('application_name'), $1::int4)",
        LANE_READ, 1, NULL};
static const struct storage_statement write_number = {
        "write_number", "INSERT INTO numbers VALUES ($1::int4) RETURNING number", LANE_WRITE, 1, NULL};
static const struct storage_statement write_late_check = {
        "write_late_check", "INSERT INTO late_checks VALUES ($1::int4) RETURNING number", LANE_WRITE, 1, NULL};
#define SETTINGS                                                                                                       \
        "SELECT concat_ws(' ', $1::int4, current_setting('genie.organization_id'), current_setting('genie.caller'), "  \
        "current_setting('genie.method'), current_setting('genie.request_id'))"
static const struct storage_statement write_settings = {"write_settings", SETTINGS, LANE_WRITE, 1, NULL};
static const struct storage_statement write_gate = {"write_gate",
        "WITH gate AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared($1::int4)) "
        "INSERT INTO numbers SELECT $1::int4 FROM gate RETURNING number",
        LANE_WRITE, 1, NULL};
static const struct storage_statement bulk_settings = {"bulk_settings", SETTINGS, LANE_BULK, 1, NULL};
static const struct storage_statement bulk_number = {
        "bulk_number", "INSERT INTO numbers VALUES ($1::int4) RETURNING number", LANE_BULK, 1, NULL};
static const struct storage_statement bulk_gate = {
        "bulk_gate", "SELECT $1::int4 FROM pg_advisory_xact_lock_shared($1::int4)", LANE_BULK, 1, NULL};
static const struct storage_statement read_size = {
        "read_size", "SELECT length($1::text)::text || right($1::text, 3)", LANE_READ, 1, NULL};
static const struct storage_statement write_size = {
        "write_size", "SELECT length($1::text)::text || right($1::text, 3)", LANE_WRITE, 1, NULL};

static const struct storage_statement *const statements[] = {&read_echo, &read_divide, &read_gate, &read_that_writes,
        &read_session, &write_number, &write_late_check, &write_settings, &write_gate, &bulk_settings, &bulk_number,
        &bulk_gate, &read_size, &write_size, NULL};

static const char lanes_schema[] =
        "CREATE TABLE numbers (number integer);"
        "CREATE UNIQUE INDEX numbers_unique ON numbers (number) WHERE number < 1000;"
        "CREATE TABLE late_checks (number integer, CONSTRAINT late_unique UNIQUE (number) DEFERRABLE INITIALLY "
        "DEFERRED);"
        "GRANT SELECT, INSERT ON numbers, late_checks TO ";

// What the storages have logged in this test.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char logged[4096];

static void keep_log(const char *event, const char *detail) {
        pthread_mutex_lock(&mutex);
        size_t used = strlen(logged);
        snprintf(logged + used, sizeof logged - used, "%s: %s\n", event, detail);
        pthread_mutex_unlock(&mutex);
}

struct task {
        struct storage_operation operation;
        struct storage_value parameter;
        uint32_t number; // in network order
        char tenant[TENANT_TEXT + 1];
        // Under `mutex`:
        unsigned done; // times
        enum storage_outcome outcome;
        char value[VALUE_TEXT], second[VALUE_TEXT]; // the row's, as text; the SQLSTATE and constraint of a refusal
};

static void keep_value(const PGresult *result, int column, char *ret_text) {
        if (PQntuples(result) < 1 || PQnfields(result) <= column || PQgetisnull(result, 0, column))
                return;
        const char *value = PQgetvalue(result, 0, column);
        uint32_t number;
        if (PQftype(result, column) == 23) { // int4
                memcpy(&number, value, sizeof number);
                snprintf(ret_text, VALUE_TEXT, "%d", (int)ntohl(number));
        } else
                snprintf(ret_text, VALUE_TEXT, "%.*s", PQgetlength(result, 0, column), value);
}

static void keep_result(struct task *task, enum storage_outcome outcome, const PGresult *result) {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
        pthread_mutex_lock(&mutex);
        task->done++;
        task->outcome = outcome;
        if (outcome == STORAGE_REFUSED) {
                snprintf(task->value, sizeof task->value, "%s", state ? state : "?");
                snprintf(task->second, sizeof task->second, "%s", constraint ? constraint : "");
        } else if (outcome == STORAGE_OK) {
                keep_value(result, 0, task->value);
                keep_value(result, 1, task->second);
        }
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
}

static void task_done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        keep_result((struct task *)operation, outcome, result);
}

static void task_set(struct task *task, const struct storage_statement *statement, int number, const char *tenant) {
        memset(task, 0, sizeof *task);
        task->number = htonl((uint32_t)number);
        snprintf(task->tenant, sizeof task->tenant, "%s", tenant);
        task->parameter = (struct storage_value){(const char *)&task->number, sizeof task->number};
        task->operation.statement = statement;
        task->operation.parameters = &task->parameter;
        task->operation.organization_id = task->tenant;
        task->operation.caller = "caller";
        task->operation.method = "Method";
        task->operation.request_id = "request";
        task->operation.done = task_done;
}

static inline void submit(struct storage *storage, struct task *task) {
        if (!storage_submit(storage, &task->operation))
                fail_msg("not taken");
}

static inline void task_run(
        struct storage *storage, struct task *task, const struct storage_statement *statement, int number) {
        task_set(task, statement, number, "");
        submit(storage, task);
}

static inline struct timespec patience(void) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENCE_S;
        return until;
}

static inline void task_wait(struct task *task) {
        struct timespec until = patience();
        int waited = 0;
        pthread_mutex_lock(&mutex);
        while (!task->done && waited == 0)
                waited = pthread_cond_timedwait(&changed, &mutex, &until);
        pthread_mutex_unlock(&mutex);
        if (waited)
                fail_msg("%s never came to its end", task->operation.statement->name);
}

static inline bool task_is_done(struct task *task) {
        pthread_mutex_lock(&mutex);
        bool done = task->done;
        pthread_mutex_unlock(&mutex);
        return done;
}

static inline void expect_outcome(struct task *task, enum storage_outcome outcome, const char *value) {
        task_wait(task);
        assert_int_equal(task->outcome, outcome);
        assert_string_equal(task->value, value);
        assert_int_equal(task->done, 1);
}

static inline struct storage_config lanes_config(void) {
        return (struct storage_config){
                .url = database.url,
                .role = database.name,
                .connections = {1, 1, 1},
                .queue_limit = {8192, 8192, 8192},
                .timeout_ms = {15000, 15000, 15000},
                .connect_timeout_ms = 10000,
                .statements = statements,
                .log = keep_log,
        };
}

static inline struct storage *lanes_start(const struct storage_config *config) {
        struct storage *storage = storage_start(config);
        assert_non_null(storage);
        const char *error = "";
        if (!storage_wait_ready(storage, PATIENCE_S * 1000, &error))
                fail_msg("%s", error);
        return storage;
}

static inline void gate_close(int number) { database_do(database.admin, "SELECT pg_advisory_lock(%d)", number); }
static inline void gate_open(int number) { database_do(database.admin, "SELECT pg_advisory_unlock(%d)", number); }

// Asks until the answer is the number.
static inline void wait_for_number(const char *sql, long number) {
        struct timespec now, until = patience();
        long last;
        while ((last = database_number(database.admin, sql)) != number) {
                clock_gettime(CLOCK_REALTIME, &now);
                if (now.tv_sec > until.tv_sec)
                        fail_msg("%ld and not %ld: %s", last, number, sql);
        }
}

#define AT_GATES "pg_locks WHERE locktype = 'advisory' AND NOT granted"

// Waits until so many statements stand before a gate.
static inline void wait_at_gate(long count) { wait_for_number("SELECT count(*) FROM " AT_GATES, count); }

static inline bool has_logged(const char *words) {
        pthread_mutex_lock(&mutex);
        bool found = strstr(logged, words);
        pthread_mutex_unlock(&mutex);
        return found;
}

static inline int lanes_clean(void **state) {
        (void)state;
        logged[0] = '\0';
        database_do(database.admin, "TRUNCATE numbers, late_checks; SELECT pg_advisory_unlock_all()");
        return 0;
}

static inline void lanes_make(const char *suite) {
        database_make(&database, suite);
        database_do(database.admin, "%s%s", lanes_schema, database.name);
}
