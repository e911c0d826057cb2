#include "storage/listen.h"

#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BACKOFF_FIRST_MS = 200, BACKOFF_MAX_MS = 10000, CHECK_MS = 30000 };

struct listener {
        char *url, *role, *channel;
        void (*heard)(void *context, const char *payload);
        void *context;
        int stop; // an eventfd that is readable once it is to end
        pthread_t thread;
};

// Waits until the socket is ready; false where the listener is to end. A socket of -1 waits for the time alone.
static bool await(const struct listener *listener, int socket, short events, int timeout_ms) {
        struct pollfd polled[] = {{listener->stop, POLLIN, 0}, {socket, events, 0}};
        poll(polled, 2, timeout_ms);
        return !polled[0].revents;
}

static PGconn *connect_to(const struct listener *listener) {
        PGconn *connection = PQconnectStart(listener->url);
        PostgresPollingStatusType status = PGRES_POLLING_WRITING;
        while (connection && PQstatus(connection) != CONNECTION_BAD && status != PGRES_POLLING_OK &&
                status != PGRES_POLLING_FAILED) {
                short events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
                if (!await(listener, PQsocket(connection), events, CHECK_MS))
                        break;
                status = PQconnectPoll(connection);
        }
        if (status == PGRES_POLLING_OK)
                return connection;
        PQfinish(connection);
        return NULL;
}

// Runs a statement without waiting for ever. False where it failed, or the listener is to end.
static bool ask(const struct listener *listener, PGconn *connection, const char *sql) {
        bool good = PQsendQuery(connection, sql) == 1;
        while (good && PQisBusy(connection)) {
                struct pollfd polled[] = {{listener->stop, POLLIN, 0}, {PQsocket(connection), POLLIN, 0}};
                good = poll(polled, 2, CHECK_MS) > 0 && !polled[0].revents && PQconsumeInput(connection);
        }
        for (PGresult *result; good && (result = PQgetResult(connection));) {
                good = PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK;
                PQclear(result);
        }
        return good;
}

// Runs `VERB identifier`.
static bool run(const struct listener *listener, PGconn *connection, const char *verb, const char *identifier) {
        char sql[256], *quoted = PQescapeIdentifier(connection, identifier, strlen(identifier));
        if (!quoted)
                return false;
        snprintf(sql, sizeof sql, "%s %s", verb, quoted);
        PQfreemem(quoted);
        return ask(listener, connection, sql);
}

// Until the connection breaks, or the listener is to end. A connection that says nothing for long is asked.
static void hear(const struct listener *listener, PGconn *connection) {
        listener->heard(listener->context, NULL);
        while (await(listener, PQsocket(connection), POLLIN, CHECK_MS)) {
                struct pollfd ready = {PQsocket(connection), POLLIN, 0};
                if (poll(&ready, 1, 0) == 0) {
                        if (!ask(listener, connection, "SELECT 1"))
                                return;
                } else if (!PQconsumeInput(connection))
                        return;
                for (PGnotify *notify; (notify = PQnotifies(connection)); PQfreemem(notify))
                        listener->heard(listener->context, notify->extra);
        }
}

static void *listen_loop(void *argument) {
        const struct listener *listener = argument;
        for (int backoff = BACKOFF_FIRST_MS;; backoff = backoff < BACKOFF_MAX_MS ? backoff * 2 : BACKOFF_MAX_MS) {
                PGconn *connection = connect_to(listener);
                if (connection && (!*listener->role || run(listener, connection, "SET ROLE", listener->role)) &&
                        run(listener, connection, "LISTEN", listener->channel)) {
                        backoff = BACKOFF_FIRST_MS;
                        hear(listener, connection);
                }
                PQfinish(connection);
                if (!await(listener, -1, 0, backoff))
                        return NULL;
        }
}

static void drop(struct listener *listener) {
        if (listener->stop >= 0)
                close(listener->stop);
        free(listener->url);
        free(listener->role);
        free(listener->channel);
        free(listener);
}

struct listener *listen_start(const struct listen_config *config) {
        struct listener *listener = calloc(1, sizeof *listener);
        if (!listener)
                return NULL;
        listener->url = strdup(config->url);
        listener->role = strdup(config->role ? config->role : "");
        listener->channel = strdup(config->channel);
        listener->heard = config->heard;
        listener->context = config->context;
        listener->stop = eventfd(0, EFD_CLOEXEC);
        bool good = listener->url && listener->role && listener->channel && listener->stop >= 0;
        if (good && !pthread_create(&listener->thread, NULL, listen_loop, listener)) {
                pthread_setname_np(listener->thread, "listen");
                return listener;
        }
        drop(listener);
        return NULL;
}

void listen_stop(struct listener *listener) {
        if (!listener)
                return;
        uint64_t one = 1;
        if (write(listener->stop, &one, sizeof one) == sizeof one) // an eventfd takes it
                pthread_join(listener->thread, NULL);
        drop(listener);
}
