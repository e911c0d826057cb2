#include "storage/connection.h"

#include "storage/lane.h"
#include "storage/pipeline.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

enum { MAX_KEYWORDS = 80 };

#define ATTEMPT_LIMIT (10 * SECOND)
#define SHORTEST_BACKOFF (50 * MILLISECOND)
#define LONGEST_BACKOFF (5 * SECOND)
// A statement timeout that the server does not keep tells that the server or the way to it hangs. A batch can
// rightly take longer than one statement.
enum { STALLED_TIMEOUTS = 4 };
#define STALLED_LEAST (15 * SECOND)

static const char not_watched[] = "epoll does not take its socket";
static const char role_check[] = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";

static void set_state(struct connection *connection, enum session_state state) {
        static const unsigned next[] = {
                [SESSION_DOWN] = 1u << SESSION_CONNECTING,
                [SESSION_CONNECTING] = 1u << SESSION_PREPARING | 1u << SESSION_DOWN,
                [SESSION_PREPARING] = 1u << SESSION_READY | 1u << SESSION_DOWN,
                [SESSION_READY] = 1u << SESSION_DOWN,
        };
        assert(next[connection->state] & 1u << state);
        bool was_ready = connection->state == SESSION_READY;
        connection->state = state;
        if (was_ready || state == SESSION_READY)
                lane_connection_changed(connection->lane, state == SESSION_READY);
}

bool connection_init(struct connection *connection, struct lane_state *lane) {
        // A setting and a statement for each operation, and the Sync.
        unsigned need = lane->kind->batches * (2 * lane->kind->batch_size + 1);
        unsigned capacity = 1;
        while (capacity < need)
                capacity *= 2;
        *connection = (struct connection){.lane = lane, .socket = -1, .capacity = capacity};
        connection->expected = calloc(capacity, sizeof *connection->expected);
        return connection->expected;
}

void connection_drop(struct connection *connection) {
        canceller_finish(&connection->canceller);
        free(connection->expected);
        connection->expected = NULL;
}

// Tells epoll what to wait for. The socket changes while libpq connects, sometimes to one of the same number, so until
// then epoll is told each time.
static bool watch(struct connection *connection, uint32_t events) {
        int socket = PQsocket(connection->pg);
        bool settled = connection->state != SESSION_CONNECTING;
        if (settled && socket == connection->socket && events == connection->events)
                return true;
        int epoll = connection->lane->storage->epoll;
        struct epoll_event event = {.events = events, .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, socket, &event) < 0 &&
                (errno != ENOENT || epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event) < 0))
                return false;
        connection->socket = socket;
        connection->events = events;
        return true;
}

// Notices have nobody to read them; libpq would print them.
static void ignore_notice(void *, const PGresult *) {}

// Starts a session with the URL's parameters; what stands later wins, but for the name and the timeouts, which
// the URL may set.
static PGconn *start(const struct lane_state *lane) {
        const char *keywords[MAX_KEYWORDS], *values[MAX_KEYWORDS];
        char name[32];
        size_t count = 0;
        snprintf(name, sizeof name, "genied %s", lane->kind->name);
        const char *const defaults[][2] = {{"fallback_application_name", name}, {"keepalives_idle", "30"},
                {"keepalives_interval", "10"}, {"keepalives_count", "3"}, {"tcp_user_timeout", "30000"}};
        const char *const fixed[][2] = {{"options", lane->options}, {"client_encoding", "UTF8"}};
        for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
                keywords[count] = defaults[i][0];
                values[count++] = defaults[i][1];
        }
        for (const PQconninfoOption *option = lane->storage->target; option->keyword; option++)
                if (option->val && count < MAX_KEYWORDS - 3) {
                        keywords[count] = option->keyword;
                        values[count++] = option->val;
                }
        for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
                keywords[count] = fixed[i][0];
                values[count++] = fixed[i][1];
        }
        keywords[count] = NULL;
        values[count] = NULL;
        return PQconnectStartParams(keywords, values, /* expand_dbname= */ 0);
}

static void open_session(struct connection *connection) {
        int64_t now = connection->lane->storage->now;
        set_state(connection, SESSION_CONNECTING);
        connection->timer = now + ATTEMPT_LIMIT;
        connection->pg = start(connection->lane);
        if (!connection->pg) {
                connection_end(connection, "out of memory");
                return;
        }
        PQsetNoticeReceiver(connection->pg, ignore_notice, NULL);
        if (PQstatus(connection->pg) == CONNECTION_BAD)
                connection_end(connection, NULL);
        else if (!watch(connection, EPOLLOUT))
                connection_end(connection, not_watched);
}

// The role check, the setting and the lane's statements go out together.
static bool send_preparations(struct connection *connection) {
        const struct lane_state *lane = connection->lane;
        PGconn *pg = connection->pg;
        if (PQsetnonblocking(pg, 1) != 0 || !PQenterPipelineMode(pg) ||
                !PQsendQueryParams(pg, role_check, 0, NULL, NULL, NULL, NULL, /* resultFormat= */ 0) ||
                !PQsendPrepare(pg, SETTING_STATEMENT, lane->kind->setting, 0, NULL))
                return false;
        for (const struct storage_statement *const *at = lane->storage->config.statements; at && *at; at++)
                if ((*at)->lane == lane->number &&
                        !PQsendPrepare(pg, (*at)->name, (*at)->text, (*at)->parameter_count, (*at)->parameter_types))
                        return false;
        return PQpipelineSync(pg);
}

static void prepare(struct connection *connection) {
        set_state(connection, SESSION_PREPARING);
        connection->prepared = 0;
        connection->socket = -1; // libpq does not change it any more: epoll is told once
        if (send_preparations(connection))
                connection_flush(connection);
        else
                connection_end(connection, NULL);
}

static void go_on_connecting(struct connection *connection) {
        bool watched = true;
        switch (PQconnectPoll(connection->pg)) {
        case PGRES_POLLING_READING:
                watched = watch(connection, EPOLLIN);
                break;
        case PGRES_POLLING_WRITING:
                watched = watch(connection, EPOLLOUT);
                break;
        case PGRES_POLLING_OK:
                prepare(connection);
                return;
        case PGRES_POLLING_FAILED:
        case PGRES_POLLING_ACTIVE:
        default:
                connection_end(connection, NULL);
                return;
        }
        if (!watched)
                connection_end(connection, not_watched);
}

// The name of what the n-th answer of the preparations is about.
static const char *preparation_name(const struct lane_state *lane, unsigned number) {
        if (number == 0)
                return "the role check";
        if (number == 1)
                return SETTING_STATEMENT;
        unsigned at = 2;
        for (const struct storage_statement *const *one = lane->storage->config.statements; one && *one; one++)
                if ((*one)->lane == lane->number && at++ == number)
                        return (*one)->name;
        return "a statement";
}

// An answer to the preparations. False: the connection has ended.
static bool take_preparation(struct connection *connection, const PGresult *result) {
        ExecStatusType status = PQresultStatus(result);
        unsigned number = connection->prepared++;
        if (status == PGRES_PIPELINE_SYNC) {
                if (connection->failures)
                        storage_log(connection->lane->storage, "database connection restored",
                                connection->lane->kind->name);
                connection->failures = 0;
                connection->timer = connection->lane->storage->now;
                connection->tenant_known = false;
                set_state(connection, SESSION_READY);
                return true;
        }
        char why[ERROR_TEXT];
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
                snprintf(why, sizeof why, "%s: %s", preparation_name(connection->lane, number),
                        PQresultErrorMessage(result));
        else if (number == 0 && (PQntuples(result) != 1 || strcmp(PQgetvalue(result, 0, 0), "f") != 0))
                snprintf(why, sizeof why,
                        "the role is a superuser or bypasses row-level security: "
                        "use one with NOSUPERUSER NOBYPASSRLS");
        else
                return true;
        connection_end(connection, why);
        return false;
}

// Whether the session ends with this result. What libpq says by itself has no SQLSTATE.
static bool ends_session(const struct connection *connection, const PGresult *result) {
        if (PQresultStatus(result) != PGRES_FATAL_ERROR)
                return false;
        const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
        return PQstatus(connection->pg) == CONNECTION_BAD || !PQresultErrorField(result, PG_DIAG_SQLSTATE) ||
               !severity || strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0;
}

// Takes the answers that have come. False: the connection has ended.
static bool take_results(struct connection *connection) {
        PGconn *pg = connection->pg;
        while ((connection->state == SESSION_PREPARING || connection->batches) && !PQisBusy(pg)) {
                PGresult *result = PQgetResult(pg);
                if (!result)
                        continue; // the end of one statement's results
                if (connection->state == SESSION_PREPARING) {
                        bool ended = !take_preparation(connection, result);
                        PQclear(result);
                        if (ended)
                                return false;
                } else if (ends_session(connection, result)) {
                        connection_end(connection, PQresultErrorMessage(result));
                        PQclear(result);
                        return false;
                } else
                        pipeline_take(connection, result);
        }
        return true;
}

void connection_flush(struct connection *connection) {
        int left = PQflush(connection->pg);
        connection->unsent = left > 0;
        if (left < 0)
                connection_end(connection, NULL);
        else if (!watch(connection, connection->unsent ? EPOLLIN | EPOLLOUT : EPOLLIN))
                connection_end(connection, not_watched);
}

void connection_event(struct connection *connection, uint32_t events) {
        if (connection->state == SESSION_CONNECTING) {
                go_on_connecting(connection);
                return;
        }
        if (connection->state == SESSION_DOWN)
                return;
        if (events & ~(uint32_t)EPOLLOUT) {
                bool alive = PQconsumeInput(connection->pg);
                if (connection->state == SESSION_READY)
                        connection->timer = connection->lane->storage->now;
                // What came before the end is good.
                if (!take_results(connection))
                        return;
                if (!alive) {
                        connection_end(connection, NULL);
                        return;
                }
        }
        if (connection->unsent)
                connection_flush(connection);
}

static void sweep_ready(struct connection *connection) {
        struct storage *storage = connection->lane->storage;
        int64_t limit = (int64_t)storage->config.timeout_ms[connection->lane->number] * MILLISECOND * STALLED_TIMEOUTS;
        if (!connection->batches || !limit)
                return;
        if (limit < STALLED_LEAST)
                limit = STALLED_LEAST;
        if (storage->now - connection->timer >= limit)
                connection_end(connection, "no answer: the server or the way to it hangs");
}

void connection_sweep(struct connection *connection) {
        struct storage *storage = connection->lane->storage;
        switch (connection->state) {
        case SESSION_DOWN:
                if (storage->now >= connection->timer && !storage->stopping)
                        open_session(connection);
                break;
        case SESSION_CONNECTING:
        case SESSION_PREPARING:
                if (storage->now >= connection->timer)
                        connection_end(connection, "no connection in time");
                break;
        case SESSION_READY:
                sweep_ready(connection);
                break;
        }
        if (connection->state != SESSION_READY)
                storage_sweep_by(storage, connection->timer);
}

// Full jitter, so that replicas do not come back all at once.
static int64_t backoff(unsigned failures) {
        int64_t longest = failures < 7 ? SHORTEST_BACKOFF << failures : LONGEST_BACKOFF;
        if (longest > LONGEST_BACKOFF)
                longest = LONGEST_BACKOFF;
        uint64_t random = 0;
        if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
                return longest;
        return (int64_t)(random % (uint64_t)longest);
}

// One line: `read connection: why`.
static void describe_end(const struct connection *connection, const char *why, char ret_text[ERROR_TEXT]) {
        if (!why)
                why = PQerrorMessage(connection->pg);
        int length = snprintf(ret_text, ERROR_TEXT, "%s connection: %s", connection->lane->kind->name, why);
        size_t size = (size_t)length < ERROR_TEXT ? (size_t)length : ERROR_TEXT - 1;
        while (size && ret_text[size - 1] == '\n')
                ret_text[--size] = '\0';
        for (char *at = ret_text; (at = strpbrk(at, "\n\t"));)
                *at = ' ';
}

void connection_end(struct connection *connection, const char *why) {
        struct storage *storage = connection->lane->storage;
        char text[ERROR_TEXT];
        describe_end(connection, why, text);
        bool was_ready = connection->state == SESSION_READY;
        PQfinish(connection->pg);
        connection->pg = NULL;
        connection->socket = -1;
        connection->events = 0;
        connection->unsent = false;
        connection->timer = storage->now + backoff(connection->failures++);
        storage_sweep_by(storage, connection->timer);
        pthread_mutex_lock(&storage->mutex);
        memcpy(storage->error, text, sizeof text);
        pthread_mutex_unlock(&storage->mutex);
        set_state(connection, SESSION_DOWN);
        if (!storage->stopping)
                storage_log(storage, was_ready ? "database connection lost" : "database connection failed", text);
        pipeline_abandon(connection);
}
