#include "storage/pipeline.h"

#include "storage/lane.h"

#include <assert.h>
#include <string.h>

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
        connection->cancel_again = 0;
        connection->tenant_changes += sets_tenant;
        expect(connection, &(struct expected){.operation = operation, .what = EXPECT_SYNC, .sets_tenant = sets_tenant});
        return PQpipelineSync(connection->pg);
}

// A write: settings, statement and Sync are one implicit transaction.
static bool send_write(struct connection *connection) {
        struct storage_operation *operation = lane_take_next(connection->lane);
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
                struct storage_operation *operation = lane_take_next(lane);
                if (!operation)
                        break;
                alone = operation->state & OPERATION_ALONE;
                if (alone && count) { // those before it in the queue were over
                        lane_put_back(lane, operation);
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

bool pipeline_send(struct connection *connection) {
        return connection->lane->number == LANE_READ ? send_reads(connection) : send_write(connection);
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

// Ends with the result.
static void complete_with(struct lane_state *lane, struct storage_operation *operation, PGresult *result) {
        enum storage_outcome outcome = outcome_of(operation, result);
        bool has_result = outcome == STORAGE_OK || outcome == STORAGE_REFUSED;
        bool kept = has_result && operation->keeps_result;
        lane_complete(lane, operation, outcome, has_result ? result : NULL); // the operation may go with this
        if (!kept)
                PQclear(result);
}

// An answer to one statement of a batch of reads. Reads need not wait for the Sync. True: the result is taken over.
static bool take_read(struct connection *connection, struct expected *expected, PGresult *result) {
        struct lane_state *lane = connection->lane;
        ExecStatusType status = PQresultStatus(result);
        struct storage_operation *operation = expected->operation;
        bool setting = expected->what == EXPECT_SETTING;
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
                connection->tenant_known = false; // the batch is undone, and the tenant that it set
        if (!operation || (setting && (status == PGRES_TUPLES_OK || status == PGRES_PIPELINE_ABORTED)))
                return false;
        if (setting) // its statement follows, aborted
                connection->expected[connection->head & (connection->capacity - 1)].operation = NULL;
        if (status == PGRES_PIPELINE_ABORTED) {
                operation->state |= OPERATION_ALONE;
                lane_put_back(lane, operation);
                return false;
        }
        complete_with(lane, operation, result);
        return true;
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
        else
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

void pipeline_take(struct connection *connection, PGresult *result) {
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
        if (!take_read(connection, expected, result))
                PQclear(result);
}

void pipeline_abandon(struct connection *connection) {
        struct lane_state *lane = connection->lane;
        bool reads = lane->number == LANE_READ;
        // From the newest to the oldest, so that what goes back to the queue's front keeps its order.
        while (connection->end != connection->head) {
                const struct expected *expected = &connection->expected[--connection->end & (connection->capacity - 1)];
                struct storage_operation *operation = expected->operation;
                if (!operation || expected->what != (reads ? EXPECT_STATEMENT : EXPECT_SYNC))
                        continue;
                if (!reads || operation->state & OPERATION_RESENT) {
                        lane_complete(lane, operation, STORAGE_LOST, NULL);
                        continue;
                }
                operation->state |= OPERATION_RESENT;
                lane_put_back(lane, operation);
        }
        PQclear(connection->held);
        connection->held = NULL;
        connection->batches = 0;
        connection->tenant_changes = 0;
}
