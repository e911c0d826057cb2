#include "storage/lane.h"

#include "storage/connection.h"
#include "storage/pipeline.h"

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
        // A plan is kept, and may be made while a table is empty, when to read all of it is the cheapest.
        fprintf(out,
                "%s -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off -c TimeZone=UTC"
                " -c statement_timeout=%u%s",
                given, storage->config.timeout_ms[lane->number],
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

void lane_put_back(struct lane_state *lane, struct storage_operation *operation) {
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

void lane_complete(
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

struct storage_operation *lane_take_next(struct lane_state *lane) {
        while (lane->first) {
                struct storage_operation *operation = pop(lane);
                enum storage_outcome outcome;
                if (!is_over(lane, operation, &outcome))
                        return operation;
                lane_complete(lane, operation, outcome, NULL);
        }
        return NULL;
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
                if (pipeline_send(connection))
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

void lane_connection_changed(struct lane_state *lane, bool ready) {
        struct storage *storage = lane->storage;
        unsigned now = ready ? atomic_fetch_add(&lane->connected, 1) + 1 : atomic_fetch_sub(&lane->connected, 1) - 1;
        lane->down_since = now ? 0 : storage->now;
        storage_sweep_by(storage, storage->now); // what waits is looked at with other eyes
        pthread_mutex_lock(&storage->mutex);
        pthread_cond_broadcast(&storage->changed);
        pthread_mutex_unlock(&storage->mutex);
}

void lane_clear_queue(struct lane_state *lane, enum storage_outcome outcome) {
        while (lane->first)
                lane_complete(lane, pop(lane), outcome, NULL);
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
                        lane_complete(lane, operation, outcome, NULL);
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
