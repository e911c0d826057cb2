#include "storage/lane.h"

#include "storage/connection.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CANCEL_INTERVAL (100 * MILLISECOND)

// A write's settings are local to its implicit transaction; a read's tenant stays for the reads behind it.
#define WRITE_SETTING                                                                                                  \
        "SELECT set_config('genie.organization_id', $1, true), set_config('genie.caller', $2, true), "                 \
        "set_config('genie.method', $3, true), set_config('genie.request_id', $4, true)"

const struct lane_kind lane_kinds[LANE_COUNT] = {
        [LANE_READ] = {.name = "read",
                .setting = "SELECT set_config('genie.organization_id', $1, false)",
                .setting_parameters = 1,
                .batches = 2,
                .batch_size = 64,
                .read_only = true},
        [LANE_WRITE] =
                {.name = "write", .setting = WRITE_SETTING, .setting_parameters = 4, .batches = 16, .batch_size = 1},
        [LANE_BULK] =
                {.name = "bulk", .setting = WRITE_SETTING, .setting_parameters = 4, .batches = 1, .batch_size = 1},
};

// The options of a session's start: those of the URL, then ours.
static char *session_options(const struct lane_state *lane) {
        const struct storage *storage = lane->storage;
        const char *given = "", *role = storage->config.role;
        for (const PQconninfoOption *option = storage->target; option->keyword; option++)
                if (strcmp(option->keyword, "options") == 0 && option->val)
                        given = option->val;
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        if (!out)
                return NULL;
        fprintf(out, "%s -c plan_cache_mode=force_generic_plan -c TimeZone=UTC -c statement_timeout=%u%s", given,
                storage->config.timeout_ms[lane->number],
                lane->kind->read_only ? " -c default_transaction_read_only=on" : "");
        if (role)
                fputs(" -c role=", out);
        for (const char *at = role; at && *at; at++)
                fprintf(out, strchr(" \\\t\n", *at) ? "\\%c" : "%c", *at);
        if (fclose(out) == 0)
                return text;
        free(text);
        return NULL;
}

bool lane_init(struct lane_state *lane, struct storage *storage, enum lane number) {
        lane->storage = storage;
        lane->kind = &lane_kinds[number];
        lane->number = number;
        lane->down_since = storage->now;
        lane->options = session_options(lane);
        unsigned count = storage->config.connections[number];
        lane->connections = calloc(count ? count : 1, sizeof *lane->connections);
        if (!lane->options || !lane->connections)
                return false;
        while (lane->connection_count < count)
                if (!connection_init(&lane->connections[lane->connection_count++], lane))
                        return false;
        return true;
}

void lane_drop(struct lane_state *lane) {
        for (unsigned i = 0; i < lane->connection_count; i++)
                connection_drop(&lane->connections[i]);
        free(lane->connections);
        free(lane->options);
}

static void push_back(struct lane_state *lane, struct storage_operation *operation) {
        operation->next = NULL;
        if (lane->first)
                lane->last->next = operation;
        else
                lane->first = operation;
        lane->last = operation;
}

static void push_front(struct lane_state *lane, struct storage_operation *operation) {
        operation->next = lane->first;
        if (!lane->first)
                lane->last = operation;
        lane->first = operation;
}

static struct storage_operation *pop(struct lane_state *lane) {
        struct storage_operation *operation = lane->first;
        lane->first = operation->next;
        return operation;
}

// The end of an operation; it is not touched afterwards.
static void complete(
        struct lane_state *lane, struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        atomic_fetch_add_explicit(&lane->operations, 1, memory_order_relaxed);
        if (outcome == STORAGE_REFUSED)
                atomic_fetch_add_explicit(&lane->refused, 1, memory_order_relaxed);
        atomic_fetch_sub(&lane->pending, 1);
        operation->done(operation, outcome, result);
}

void lane_accept(struct lane_state *lane, struct storage_operation *operation) {
        struct storage *storage = lane->storage;
        push_back(lane, operation);
        if (operation->deadline)
                storage_sweep_by(storage, operation->deadline);
        if (lane->down_since || operation->cancelled)
                storage_sweep_by(storage, storage->now);
}

// Whether an operation that waits is to wait no more: it is cancelled, late, or no connection came.
static bool is_over(
        const struct lane_state *lane, struct storage_operation *operation, enum storage_outcome *ret_outcome) {
        const struct storage *storage = lane->storage;
        if (operation->cancelled)
                *ret_outcome = STORAGE_CANCELLED;
        else if (operation->deadline && storage->now >= operation->deadline)
                *ret_outcome = STORAGE_DEADLINE;
        else if (lane->down_since &&
                 storage->now - lane->down_since >= (int64_t)storage->config.connect_timeout_ms * MILLISECOND)
                *ret_outcome = STORAGE_DOWN;
        else
                return false;
        return true;
}

// The next operation that is to be sent; NULL: none waits.
static struct storage_operation *take_next(struct lane_state *lane) {
        while (lane->first) {
                struct storage_operation *operation = pop(lane);
                enum storage_outcome outcome;
                if (!is_over(lane, operation, &outcome))
                        return operation;
                complete(lane, operation, outcome, NULL);
        }
        return NULL;
}

static void expect(struct connection *connection, const struct expected *expected) {
        assert(connection->end - connection->head < connection->capacity);
        connection->expected[connection->end++ & (connection->capacity - 1)] = *expected;
}

static bool send_setting(struct connection *connection, const struct storage_operation *operation) {
        const char *const values[] = {
                operation->organization_id, operation->caller, operation->method, operation->request_id};
        return PQsendQueryPrepared(connection->pg, SETTING_STATEMENT, connection->lane->kind->setting_parameters,
                values, NULL, NULL, /* resultFormat= */ 0);
}

static bool send_statement(struct connection *connection, const struct storage_operation *operation) {
        const struct storage_statement *statement = operation->statement;
        const char *values[MAX_PARAMETERS];
        int lengths[MAX_PARAMETERS], formats[MAX_PARAMETERS];
        for (int i = 0; i < statement->parameter_count; i++) {
                values[i] = operation->parameters[i].data;
                lengths[i] = operation->parameters[i].length;
                formats[i] = 1;
        }
        return PQsendQueryPrepared(connection->pg, statement->name, statement->parameter_count, values, lengths,
                formats, /* resultFormat= */ 1);
}

static bool send_sync(struct connection *connection, struct storage_operation *operation, bool sets_tenant) {
        if (!connection->batches++)
                connection->timer = connection->lane->storage->now;
        connection->tenant_changes += sets_tenant;
        expect(connection, &(struct expected){.operation = operation, .what = EXPECT_SYNC, .sets_tenant = sets_tenant});
        return PQpipelineSync(connection->pg);
}

// A write: settings, statement and Sync are one implicit transaction.
static bool send_write(struct connection *connection) {
        struct storage_operation *operation = take_next(connection->lane);
        if (!operation)
                return true;
        expect(connection, &(struct expected){.operation = operation, .what = EXPECT_SETTING});
        expect(connection, &(struct expected){.operation = operation, .what = EXPECT_STATEMENT});
        bool sent = send_setting(connection, operation) && send_statement(connection, operation);
        return send_sync(connection, operation, /* sets_tenant= */ false) && sent;
}

// Whether the session works for the operation's tenant already; notes it as the one that it works for now.
static bool has_tenant(struct connection *connection, const struct storage_operation *operation) {
        const char *tenant = operation->organization_id;
        if (connection->tenant_known && strcmp(connection->tenant, tenant) == 0)
                return true;
        size_t size = strlen(tenant) + 1;
        connection->tenant_known = size <= sizeof connection->tenant;
        if (connection->tenant_known)
                memcpy(connection->tenant, tenant, size);
        return false;
}

// The reads that wait, as many as a batch takes. A batch that fails leaves the tenant that the session had before
// it: while one is under way that changes the tenant, the next begins with its own.
static bool send_reads(struct connection *connection) {
        struct lane_state *lane = connection->lane;
        bool sets_tenant = false, sent = true, alone = false;
        unsigned count = 0;
        if (connection->tenant_changes)
                connection->tenant_known = false;
        while (sent && !alone && count < lane->kind->batch_size) {
                if (count && lane->first && lane->first->state & OPERATION_ALONE)
                        break;
                struct storage_operation *operation = take_next(lane);
                if (!operation)
                        break;
                alone = operation->state & OPERATION_ALONE;
                if (alone && count) { // those before it in the queue were over
                        push_front(lane, operation);
                        break;
                }
                count++;
                if (!has_tenant(connection, operation)) {
                        sets_tenant = true;
                        expect(connection, &(struct expected){.operation = operation, .what = EXPECT_SETTING});
                        sent = send_setting(connection, operation);
                }
                expect(connection, &(struct expected){.operation = operation, .what = EXPECT_STATEMENT});
                sent = sent && send_statement(connection, operation);
        }
        if (!count)
                return true;
        atomic_fetch_add_explicit(&lane->storage->batches, 1, memory_order_relaxed);
        return send_sync(connection, NULL, sets_tenant) && sent;
}

static bool has_room(const struct connection *connection) {
        return connection->state == SESSION_READY && !connection->unsent && !connection->canceller.running &&
               connection->batches < connection->lane->kind->batches;
}

static struct connection *least_busy(struct lane_state *lane) {
        struct connection *best = NULL;
        for (unsigned i = 0; i < lane->connection_count; i++) {
                struct connection *connection = &lane->connections[i];
                if (has_room(connection) && (!best || connection->batches < best->batches))
                        best = connection;
        }
        return best;
}

void lane_dispatch(struct lane_state *lane) {
        struct connection *connection;
        while (lane->first && (connection = least_busy(lane))) {
                bool sent = lane->number == LANE_READ ? send_reads(connection) : send_write(connection);
                if (sent)
                        connection_flush(connection);
                else
                        connection_end(connection, NULL);
        }
}

bool lane_saturated(const struct lane_state *lane) {
        bool busy = false;
        for (unsigned i = 0; i < lane->connection_count; i++) {
                if (has_room(&lane->connections[i]))
                        return false;
                busy |= lane->connections[i].batches > 0;
        }
        return busy;
}

static enum storage_outcome outcome_of(const struct storage_operation *operation, const PGresult *result) {
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
                return STORAGE_OK;
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        if (sqlstate && strcmp(sqlstate, "57014") == 0) // query_canceled: by us, or by the statement timeout
                return operation->cancelled ? STORAGE_CANCELLED : STORAGE_DEADLINE;
        return STORAGE_REFUSED;
}

static void complete_with(struct lane_state *lane, struct storage_operation *operation, PGresult *result) {
        enum storage_outcome outcome = outcome_of(operation, result);
        complete(lane, operation, outcome, outcome == STORAGE_OK || outcome == STORAGE_REFUSED ? result : NULL);
}

// An answer to one statement of a batch of reads. Reads need not wait for the Sync.
static void take_read(struct connection *connection, struct expected *expected, PGresult *result) {
        struct lane_state *lane = connection->lane;
        ExecStatusType status = PQresultStatus(result);
        struct storage_operation *operation = expected->operation;
        bool setting = expected->what == EXPECT_SETTING;
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
                connection->tenant_known = false; // the batch is undone, and the tenant that it set
        if (!operation || (setting && (status == PGRES_TUPLES_OK || status == PGRES_PIPELINE_ABORTED)))
                return;
        if (setting) // its statement follows, aborted
                connection->expected[connection->head & (connection->capacity - 1)].operation = NULL;
        if (status == PGRES_PIPELINE_ABORTED) {
                operation->state |= OPERATION_ALONE;
                push_front(lane, operation);
        } else
                complete_with(lane, operation, result);
}

static void take_sync(struct connection *connection) {
        struct expected *expected = &connection->expected[connection->head++ & (connection->capacity - 1)];
        assert(expected->what == EXPECT_SYNC);
        connection->batches--;
        connection->tenant_changes -= expected->sets_tenant;
        PGresult *held = connection->held;
        connection->held = NULL;
        if (expected->operation)
                complete_with(connection->lane, expected->operation, held);
        PQclear(held);
}

// Holds a write's result until its Sync: only then it is committed. An error that comes with the Sync itself, such as
// a deferred constraint's, takes the statement's place.
static void hold(struct connection *connection, PGresult *result) {
        if (PQresultStatus(result) == PGRES_PIPELINE_ABORTED) {
                PQclear(result);
                return;
        }
        PQclear(connection->held);
        connection->held = result;
}

void lane_result(struct connection *connection, PGresult *result) {
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
                PQclear(result);
                take_sync(connection);
                return;
        }
        struct expected *expected = &connection->expected[connection->head & (connection->capacity - 1)];
        if (expected->what != EXPECT_SYNC)
                connection->head++;
        if (connection->lane->number != LANE_READ) {
                hold(connection, result);
                return;
        }
        take_read(connection, expected, result);
        PQclear(result);
}

void lane_abandon(struct connection *connection) {
        struct lane_state *lane = connection->lane;
        bool reads = lane->number == LANE_READ;
        // From the newest to the oldest, so that what goes back to the queue's front keeps its order.
        while (connection->end != connection->head) {
                const struct expected *expected = &connection->expected[--connection->end & (connection->capacity - 1)];
                struct storage_operation *operation = expected->operation;
                if (!operation || expected->what != (reads ? EXPECT_STATEMENT : EXPECT_SYNC))
                        continue;
                if (!reads || operation->state & OPERATION_RESENT) {
                        complete(lane, operation, STORAGE_LOST, NULL);
                        continue;
                }
                operation->state |= OPERATION_RESENT;
                push_front(lane, operation);
        }
        PQclear(connection->held);
        connection->held = NULL;
        connection->batches = 0;
        connection->tenant_changes = 0;
}

void lane_connection_changed(struct lane_state *lane, bool ready) {
        struct storage *storage = lane->storage;
        unsigned now = ready ? atomic_fetch_add(&lane->connected, 1) + 1 : atomic_fetch_sub(&lane->connected, 1) - 1;
        lane->down_since = now ? 0 : storage->now;
        pthread_mutex_lock(&storage->mutex);
        pthread_cond_broadcast(&storage->changed);
        pthread_mutex_unlock(&storage->mutex);
}

void lane_clear_queue(struct lane_state *lane, enum storage_outcome outcome) {
        while (lane->first)
                complete(lane, pop(lane), outcome, NULL);
}

static void sweep_queue(struct lane_state *lane) {
        struct storage *storage = lane->storage;
        struct storage_operation *next = lane->first;
        lane->first = NULL;
        while (next) {
                struct storage_operation *operation = next;
                next = operation->next;
                enum storage_outcome outcome;
                if (is_over(lane, operation, &outcome)) {
                        complete(lane, operation, outcome, NULL);
                        continue;
                }
                push_back(lane, operation);
                if (operation->deadline)
                        storage_sweep_by(storage, operation->deadline);
        }
        if (lane->first && lane->down_since)
                storage_sweep_by(storage, lane->down_since + (int64_t)storage->config.connect_timeout_ms * MILLISECOND);
}

// The operation that runs on a bulk connection is cancelled on the server when it is not wanted any more; again
// after a while, since a request that arrives before its statement does nothing.
static void sweep_running(struct connection *connection) {
        struct storage *storage = connection->lane->storage;
        bool idle = canceller_idle(&connection->canceller);
        if (connection->state != SESSION_READY || !connection->batches)
                return;
        const struct storage_operation *operation =
                connection->expected[(connection->end - 1) & (connection->capacity - 1)].operation;
        bool late = operation->deadline && storage->now >= operation->deadline;
        if (!operation->cancelled && !late) {
                if (operation->deadline)
                        storage_sweep_by(storage, operation->deadline);
                return;
        }
        if (idle && storage->now >= connection->cancel_again &&
                canceller_start(&connection->canceller, storage, connection->pg))
                connection->cancel_again = storage->now + CANCEL_INTERVAL;
        storage_sweep_by(storage, storage->now + CANCEL_INTERVAL);
}

void lane_sweep(struct lane_state *lane) {
        sweep_queue(lane);
        for (unsigned i = 0; i < lane->connection_count; i++) {
                connection_sweep(&lane->connections[i]);
                if (lane->number == LANE_BULK)
                        sweep_running(&lane->connections[i]);
        }
}

void lane_close(struct lane_state *lane) {
        for (unsigned i = 0; i < lane->connection_count; i++) {
                struct connection *connection = &lane->connections[i];
                if (lane->number == LANE_BULK && connection->batches && canceller_idle(&connection->canceller) &&
                        !canceller_start(&connection->canceller, lane->storage, connection->pg))
                        storage_log(lane->storage, "database statement left running", lane->kind->name);
                if (connection->state != SESSION_DOWN)
                        connection_end(connection, "the storage stops");
        }
}
