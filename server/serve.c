#include "server/serve.h"

#include "auth/token.h"
#include "auth/vault.h"
#include "server/channel/channel.h"
#include "server/housekeeping.h"
#include "server/identity.h"
#include "server/log.h"
#include "server/rpc/coalesce.h"
#include "server/rpc/method.h"
#include "server/rpc/server.h"
#include "server/statements.h"
#include "storage/migrate.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

extern const struct migration migrations[];
extern const unsigned migration_count;

enum {
        BUSY_CALLS = 64,
        HOLD_NS = 1000000,
        TICK_MS = 200,
        DRAIN_TICK_MS = 20,
        DRAIN_LEAST_MS = 100,
        DRAIN_LAST_MS = 1000, // for what the deadline has ended to leave
        STOP_STORAGE_MS = 5000,
        TOKEN_CACHE = 4096,
        CONNECT_TIMEOUT_MS = 2000
};

// All that serve makes, in the order in which it is made; undone from the last to the first.
struct parts {
        struct vault *vault;
        struct token_verifier *tokens;
        struct identity *identity;
        struct statements statements;
        struct storage *storage;
        struct channel *channel;
        struct server *_Atomic server;
        int64_t held_since; // the storage thread's: replies are held back since then; 0: none
};

// Says in one line why genied does not start.
static bool complain(const char *what, const char *error) {
        fprintf(stderr, "genied: %s%s%s\n", what, error ? ": " : "", error ? error : "");
        return false;
}

static void storage_says(const char *event, const char *detail) { log_event(event, "detail", detail, NULL); }

// On the storage thread. Under load, replies wait up to a millisecond for those behind them, so that a connection's go
// out in one send; with few calls in flight nobody waits.
static bool turn_ended(void *context, bool more) {
        struct parts *parts = context;
        struct server *server = atomic_load(&parts->server);
        bool busy = more && server && server_stats(server).in_flight >= BUSY_CALLS;
        int64_t now = busy ? now_ns() : 0;
        if (busy && !parts->held_since)
                parts->held_since = now;
        if (busy && now - parts->held_since < HOLD_NS)
                return true;
        parts->held_since = 0;
        if (server)
                server_flush(server);
        return !server; // one that is starting has calls before we know it
}

static bool read_secrets(const struct config *config, struct parts *parts) {
        char *error = NULL;
        bool good = (parts->vault = vault_open(config->vault_key_file, &error)) != NULL;
        if (good && *config->jwks_file) {
                parts->tokens = token_verifier_new(
                        &(struct token_settings){
                                .jwks_file = config->jwks_file,
                                .issuers = config->issuers,
                                .audience = config->audience,
                                .cache_size = TOKEN_CACHE,
                        },
                        &error);
                good = parts->tokens != NULL;
        }
        if (!good)
                complain("cannot start", error);
        free(error);
        return good;
}

static void set_role(PGconn *connection, const char *role) {
        char *quoted = PQescapeIdentifier(connection, role, strlen(role));
        char sql[256];
        if (quoted && *role) {
                snprintf(sql, sizeof sql, "SET ROLE %s", quoted);
                PQclear(PQexec(connection, sql));
        }
        PQfreemem(quoted);
}

// The schema and every statement, on a connection of its own.
static bool check_database(const struct config *config, struct statements *statements) {
        char *error = NULL;
        PGconn *connection = PQconnectdb(config->database_url);
        bool good = PQstatus(connection) == CONNECTION_OK;
        if (!good)
                complain("cannot reach the database", PQerrorMessage(connection));
        else if (!(good = migrate_check(connection, migrations, migration_count, &error)))
                complain("the database's schema does not fit", error);
        if (good) {
                set_role(connection, config->database_role);
                if (!(good = statements_describe(statements, connection, &error)))
                        complain("statements and messages do not fit", error);
        }
        free(error);
        PQfinish(connection);
        return good;
}

static bool make_statements(const struct config *config, struct parts *parts) {
        char *error = NULL;
        bool good = statements_new(&parts->statements, &error) || complain("cannot start", error);
        free(error);
        return good && check_database(config, &parts->statements);
}

static bool start_storage(const struct config *config, struct parts *parts) {
        parts->storage = storage_start(&(struct storage_config){
                .url = config->database_url,
                .role = *config->database_role ? config->database_role : NULL,
                .connections = {(unsigned)config->read_connections, (unsigned)config->write_connections,
                        (unsigned)config->bulk_connections},
                .queue_limit = {(unsigned)config->read_queue, (unsigned)config->write_queue,
                        (unsigned)config->bulk_queue},
                .timeout_ms = {(unsigned)config->statement_timeout_ms, (unsigned)config->statement_timeout_ms,
                        (unsigned)config->bulk_timeout_ms},
                .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                .statements = parts->statements.all,
                .log = storage_says,
                .turn_ended = turn_ended,
                .context = parts,
        });
        const char *error = NULL;
        if (!parts->storage)
                return complain("cannot start the database lanes", strerror(errno));
        return storage_wait_ready(parts->storage, 10000, &error) || complain("cannot reach the database", error);
}

static bool start_channel(const struct config *config, struct parts *parts) {
        char *error = NULL;
        parts->channel = channel_new(
                &(struct channel_config){
                        .storage = parts->storage,
                        .statements = &parts->statements,
                        .database_url = config->database_url,
                        .role = config->database_role,
                        .lease_ms = (unsigned)config->lease_ms,
                        .offer_ms = (unsigned)config->offer_ms,
                        .heartbeat_ms = (unsigned)config->heartbeat_ms,
                        .silence_ms = (unsigned)config->silence_ms,
                        .log_window_bytes = (unsigned)config->log_window_bytes,
                        .max_log_bytes = (unsigned)config->max_log_bytes,
                },
                &error);
        if (!parts->channel)
                complain("cannot start", error);
        free(error);
        return parts->channel != NULL;
}

static bool start_server(const struct config *config, struct parts *parts) {
        char *error = NULL;
        parts->server = server_start(
                &(struct server_config){
                        .listen = config->listen,
                        .listen_plain = config->listen_plain,
                        .tls_certificate = config->tls_certificate,
                        .tls_key = config->tls_key,
                        .call_threads = (unsigned)config->call_threads,
                        .max_calls = (unsigned)config->max_calls,
                        .max_open_streams = (unsigned)config->max_open_streams,
                        .max_streams = (unsigned)config->max_streams,
                        .max_message_bytes = (unsigned)config->max_message_bytes,
                        .default_timeout_ms = (unsigned)config->default_timeout_ms,
                        .reflection = config->reflection,
                        .storage = parts->storage,
                        .identity = parts->identity,
                        .vault = parts->vault,
                        .channel = parts->channel,
                        .method_bindings = parts->statements.methods,
                        .internal_bindings = parts->statements.internals,
                },
                &error);
        if (!parts->server)
                complain("cannot start", error);
        free(error);
        return parts->server != NULL;
}

// Core dumps would hold keys and credentials; more descriptors than the default are needed, since core's listener does
// not outlive a lack of them.
static void harden(void) {
        struct rlimit limit;
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        prctl(PR_SET_DUMPABLE, 0);
        if (!getrlimit(RLIMIT_NOFILE, &limit)) {
                limit.rlim_cur = limit.rlim_max;
                setrlimit(RLIMIT_NOFILE, &limit);
        }
        signal(SIGPIPE, SIG_IGN);
}

// What has no default: each missing option is named with what it is for.
static bool has_required(const struct config *config) {
        if (!*config->database_url)
                return complain("--database-url is required", NULL);
        if (!*config->vault_key_file)
                return complain("--vault-key-file is required; `genied keys create FILE` makes one", NULL);
        if (config->listen[0] && (!*config->tls_certificate || !*config->tls_key))
                return complain("--listen needs --tls-certificate and --tls-key", NULL);
        if (!config->listen[0] && !config->listen_plain[0])
                return complain("neither --listen nor --listen-plain says where to listen", NULL);
        if (*config->jwks_file && !config->issuers[0])
                return complain("--jwks-file needs --issuer", NULL);
        return true;
}

static bool start_all(const struct config *config, struct parts *parts) {
        if (!has_required(config))
                return false;
        if (!method_table_init())
                return complain("cannot start", "too many methods");
        if (!read_secrets(config, parts) || !make_statements(config, parts))
                return false;
        parts->identity = identity_new(parts->tokens);
        return parts->identity && start_storage(config, parts) && start_channel(config, parts) &&
               start_server(config, parts);
}

static void say_ready(const struct config *config) {
        for (unsigned i = 0; config->listen_plain[i]; i++)
                if (strncmp(config->listen_plain[i], "unix:", 5))
                        log_event(
                                "warning", "message", "listening without TLS", "listen", config->listen_plain[i], NULL);
        const char *first = config->listen[0] ? config->listen[0] : config->listen_plain[0];
        log_event("ready", "listen", first, "version", GENIE_VERSION, NULL);
}

// Until SIGTERM or SIGINT: tells health what the database is like, and does the periodic work.
static void run(struct parts *parts, const sigset_t *signals) {
        struct housekeeping housekeeping;
        housekeeping_init(&housekeeping, parts->storage, parts->identity, &parts->statements);
        for (;;) {
                server_set_serving(parts->server, storage_ready(parts->storage));
                housekeeping_tick(&housekeeping);
                server_tick(parts->server);
                channel_tick(parts->channel);
                int signal_ = sigtimedwait(signals, NULL, &(struct timespec){.tv_nsec = TICK_MS * 1000000L});
                if (signal_ == SIGTERM || signal_ == SIGINT)
                        break;
        }
        housekeeping_stop(&housekeeping);
}

static void second_signal(int number) {
        (void)number;
        _exit(1);
}

// Takes back what was made, the last first; what was not made is NULL.
static void release(struct parts *parts) {
        channel_stop(parts->channel);
        if (parts->storage)
                storage_stop(parts->storage, STOP_STORAGE_MS);
        channel_free(parts->channel);
        server_free(parts->server); // the storage thread has looked at it until now
        identity_free(parts->identity);
        statements_free(&parts->statements);
        token_verifier_free(parts->tokens);
        vault_close(parts->vault);
        log_flush();
}

// Time goes on for agents' leases, for at most so long, and while some agent is connected where `agents` says so.
static void pass_time(struct parts *parts, int64_t milliseconds, bool agents) {
        int64_t end = now_ns() + milliseconds * 1000000;
        while (now_ns() < end && (!agents || channel_sessions(parts->channel))) {
                channel_tick(parts->channel);
                nanosleep(&(struct timespec){.tv_nsec = DRAIN_TICK_MS * 1000000L}, NULL);
        }
}

// Health first, a pause in which balancers learn of it, then the agents, each at its time; what is left is ended.
static void drain(const struct config *config, struct parts *parts, const sigset_t *signals) {
        log_event("draining", NULL);
        signal(SIGTERM, second_signal);
        signal(SIGINT, second_signal);
        pthread_sigmask(SIG_UNBLOCK, signals, NULL);
        server_set_serving(parts->server, false);
        coalesce_stop(); // what core closes from here on must not wait for a slow reader
        pass_time(parts, config->drain_pause_ms, /* agents= */ false);
        int64_t begin = now_ns();
        long spread = config->drain_spread_ms < config->drain_timeout_ms ? config->drain_spread_ms
                                                                         : config->drain_timeout_ms / 2;
        channel_drain(parts->channel, (unsigned)spread, (unsigned)config->drain_timeout_ms);
        pass_time(parts, config->drain_timeout_ms + DRAIN_LAST_MS, /* agents= */ true);
        int64_t left = config->drain_timeout_ms - (now_ns() - begin) / 1000000;
        server_stop(parts->server, left > DRAIN_LEAST_MS ? (unsigned)left : DRAIN_LEAST_MS);
}

int serve(const struct config *config) {
        struct parts parts = {0};
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
        harden();
        rpc_init();
        log_set_calls(!strcmp(config->log_calls, "none")      ? LOG_CALLS_NONE
                      : !strcmp(config->log_calls, "refused") ? LOG_CALLS_REFUSED
                                                              : LOG_CALLS_ALL);
        if (config->coalesce && !coalesce_start())
                return complain("cannot start", strerror(errno)), 1;
        bool started = start_all(config, &parts);
        if (started) {
                say_ready(config);
                run(&parts, &signals);
                drain(config, &parts, &signals);
        }
        release(&parts);
        if (started)
                log_event("stopped", NULL);
        return started ? 0 : 1;
}
