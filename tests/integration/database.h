// A database and a role of its own for a suite, made on the server of GENIE_TEST_DATABASE_URL (a superuser's URL).
// The role owns nothing and bypasses nothing; its name and the database's are the same.
#pragma once

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct database {
        PGconn *server; // superuser, on the URL's own database
        PGconn *admin;  // superuser, on the suite's database
        char name[64];  // of database and role
        char url[1024]; // a superuser's conninfo of the suite's database
};

// Exit status of a suite that is skipped.
enum { SKIPPED = 77 };

static inline PGresult *database_query(PGconn *connection, const char *sql) {
        PGresult *result = PQexec(connection, sql);
        ExecStatusType status = PQresultStatus(result);
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
                fprintf(stderr, "%s\n  in: %s\n", PQerrorMessage(connection), sql);
                exit(1);
        }
        return result;
}

__attribute__((format(printf, 2, 3))) static inline void database_do(PGconn *connection, const char *format, ...) {
        char sql[4096];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(sql, sizeof sql, format, arguments);
        va_end(arguments);
        PQclear(database_query(connection, sql));
}

// The first column of the first row as a number.
static inline long database_number(PGconn *connection, const char *sql) {
        PGresult *result = database_query(connection, sql);
        long number = PQntuples(result) ? strtol(PQgetvalue(result, 0, 0), NULL, 10) : -1;
        PQclear(result);
        return number;
}

// The conninfo of another database on the same server.
static inline void database_url(PGconn *server, const char *name, char *ret_url, size_t size) {
        snprintf(ret_url, size, "host='%s' port='%s' user='%s' password='%s' dbname='%s'", PQhost(server),
                PQport(server), PQuser(server), PQpass(server) ? PQpass(server) : "", name);
}

static inline PGconn *database_connect(const char *url) {
        PGconn *connection = PQconnectdb(url);
        if (PQstatus(connection) != CONNECTION_OK) {
                fprintf(stderr, "%s", PQerrorMessage(connection));
                exit(1);
        }
        PQclear(PQexec(connection, "SET client_min_messages = error"));
        return connection;
}

// Exits with SKIPPED where no server is given.
static inline void database_make(struct database *database, const char *suite) {
        const char *url = getenv("GENIE_TEST_DATABASE_URL");
        if (!url || !*url) {
                printf("skipped: GENIE_TEST_DATABASE_URL (a superuser's URL of a PostgreSQL for tests) is not set\n");
                exit(SKIPPED);
        }
        snprintf(database->name, sizeof database->name, "genie_test_%s_%d", suite, (int)getpid());
        database->server = database_connect(url);
        database_do(database->server, "DROP DATABASE IF EXISTS %s WITH (FORCE)", database->name);
        database_do(database->server, "DROP ROLE IF EXISTS %s", database->name);
        database_do(database->server, "CREATE DATABASE %s", database->name);
        database_do(database->server, "CREATE ROLE %s NOSUPERUSER NOBYPASSRLS", database->name);
        database_url(database->server, database->name, database->url, sizeof database->url);
        database->admin = database_connect(database->url);
}

static inline void database_drop(struct database *database) {
        PQfinish(database->admin);
        database_do(database->server, "DROP DATABASE IF EXISTS %s WITH (FORCE)", database->name);
        database_do(database->server, "DROP ROLE IF EXISTS %s", database->name);
        PQfinish(database->server);
}
