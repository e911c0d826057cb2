#include "storage/migrate.h"

#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The advisory lock is on the table's own name, so that nobody has to know a number.
#define LOCK "SELECT pg_advisory_lock(hashtextextended('schema_migrations', 0))"

static const char make_table[] = "CREATE TABLE IF NOT EXISTS schema_migrations ("
                                 "number integer PRIMARY KEY, name text NOT NULL, sha256 bytea NOT NULL, "
                                 "apply_time timestamptz NOT NULL DEFAULT now());"
                                 "GRANT SELECT ON schema_migrations TO PUBLIC";

enum { HASH_TEXT = 2 * SHA256_DIGEST_LENGTH + 1 };

static void clear_result(PGresult **result) { PQclear(*result); }
static void finish_connection(PGconn **connection) { PQfinish(*connection); }
#define cleanup_result __attribute__((cleanup(clear_result)))
#define cleanup_connection __attribute__((cleanup(finish_connection)))

// Sets *ret_error; false, so that a caller can return it. libpq ends its messages with a newline.
__attribute__((format(printf, 2, 3))) static bool fail(char **ret_error, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        char *text = NULL;
        int length = vasprintf(&text, format, arguments);
        va_end(arguments);
        if (length < 0)
                text = NULL;
        while (text && length && text[length - 1] == '\n')
                text[--length] = '\0';
        *ret_error = text;
        return false;
}

static bool succeeded(const PGresult *result) {
        ExecStatusType status = PQresultStatus(result);
        return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

static bool execute(PGconn *connection, const char *sql, char **ret_error) {
        PGresult *result cleanup_result = PQexec(connection, sql);
        return succeeded(result) || fail(ret_error, "%s", PQerrorMessage(connection));
}

static void hash(const struct migration *migration, char ret_text[HASH_TEXT]) {
        unsigned char digest[SHA256_DIGEST_LENGTH];
        SHA256((const unsigned char *)migration->sql, strlen(migration->sql), digest);
        for (size_t i = 0; i < sizeof digest; i++)
                snprintf(ret_text + 2 * i, 3, "%02x", digest[i]);
}

// How many migrations are applied: *ret_applied. False where they are not the first ones of those that are known.
static bool compare(
        PGconn *connection, const struct migration *migrations, size_t count, size_t *ret_applied, char **ret_error) {
        PGresult *result cleanup_result = PQexec(
                connection, "SELECT number, name, encode(sha256, 'hex') FROM schema_migrations ORDER BY number");
        if (!succeeded(result))
                return fail(ret_error, "the applied migrations cannot be read: %s", PQerrorMessage(connection));
        size_t applied = (size_t)PQntuples(result);
        if (applied > count)
                return fail(ret_error,
                        "the database schema is at migration %zu and this genied knows %zu: it is older than the "
                        "schema, run a newer one",
                        applied, count);
        for (size_t i = 0; i < applied; i++) {
                char known[HASH_TEXT];
                hash(&migrations[i], known);
                int row = (int)i;
                if (strtol(PQgetvalue(result, row, 0), NULL, 10) != migrations[i].number ||
                        strcmp(PQgetvalue(result, row, 2), known) != 0)
                        return fail(ret_error,
                                "migration %s (%s) of the database is not migration %d (%s) of this genied: run the "
                                "release that the database was made with, or one that follows it",
                                PQgetvalue(result, row, 0), PQgetvalue(result, row, 1), migrations[i].number,
                                migrations[i].name);
        }
        *ret_applied = applied;
        return true;
}

static bool record(PGconn *connection, const struct migration *migration, char **ret_error) {
        char number[16], text[HASH_TEXT];
        snprintf(number, sizeof number, "%d", migration->number);
        hash(migration, text);
        const char *const values[] = {number, migration->name, text};
        PGresult *result cleanup_result = PQexecParams(connection,
                "INSERT INTO schema_migrations (number, name, sha256) VALUES ($1, $2, decode($3, 'hex'))", 3, NULL,
                values, NULL, NULL, 0);
        return succeeded(result) || fail(ret_error, "%s", PQerrorMessage(connection));
}

// Roles and their memberships belong to the whole server, and the lock to one database: a migration of another database
// may have written the same row of a catalog a moment before.
static bool lost_a_race(const PGresult *result) {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *schema = PQresultErrorField(result, PG_DIAG_SCHEMA_NAME);
        return state && schema && strcmp(state, "23505") == 0 && strcmp(schema, "pg_catalog") == 0;
}

static bool apply_in_transaction(
        PGconn *connection, const struct migration *migration, bool *ret_lost_a_race, char **ret_error) {
        if (!execute(connection, "BEGIN; SET LOCAL lock_timeout = '10s'", ret_error))
                return false;
        PGresult *result cleanup_result = PQexec(connection, migration->sql);
        *ret_lost_a_race = lost_a_race(result);
        if (!succeeded(result))
                return fail(ret_error, "%s", PQerrorMessage(connection));
        if (PQtransactionStatus(connection) != PQTRANS_INTRANS)
                return fail(ret_error, "it ends its transaction by itself");
        return record(connection, migration, ret_error) && execute(connection, "COMMIT", ret_error);
}

// The winner of a race has committed when the loser hears of it, so that the next attempt finds its work done; that one
// may meet a third database's migration.
enum { ATTEMPTS = 5 };

static bool apply_with_retries(PGconn *connection, const struct migration *migration, char **ret_error) {
        for (int attempt = 1;; attempt++) {
                bool again = false;
                if (apply_in_transaction(connection, migration, &again, ret_error))
                        return true;
                if (!again || attempt == ATTEMPTS)
                        return false;
                free(*ret_error);
                *ret_error = NULL;
                if (!execute(connection, "ROLLBACK", ret_error))
                        return false;
        }
}

static bool apply(PGconn *connection, const struct migration *migration,
        void (*log)(const char *event, const char *detail), char **ret_error) {
        char detail[128], *why = NULL;
        snprintf(detail, sizeof detail, "%d %s", migration->number, migration->name);
        if (log)
                log("migration begins", detail);
        if (!apply_with_retries(connection, migration, &why)) {
                fail(ret_error, "migration %d (%s): %s", migration->number, migration->name, why ? why : "no memory");
                free(why);
                return false;
        }
        if (log)
                log("migration applied", detail);
        return true;
}

static void ignore_notice(void *, const PGresult *) {}

bool migrate_apply(const char *conninfo, const struct migration *migrations, size_t count,
        void (*log)(const char *event, const char *detail), char **ret_error) {
        PGconn *connection cleanup_connection = PQconnectdb(conninfo);
        if (PQstatus(connection) != CONNECTION_OK)
                return fail(ret_error, "%s", PQerrorMessage(connection));
        PQsetNoticeReceiver(connection, ignore_notice, NULL);
        size_t applied = 0;
        // The lock goes with the connection.
        if (!execute(connection, LOCK, ret_error) || !execute(connection, make_table, ret_error) ||
                !compare(connection, migrations, count, &applied, ret_error))
                return false;
        for (size_t i = applied; i < count; i++)
                if (!apply(connection, &migrations[i], log, ret_error))
                        return false;
        return true;
}

// 1: the table is there; 0: it is not; -1 with *ret_error.
static int has_table(PGconn *connection, char **ret_error) {
        PGresult *result cleanup_result = PQexec(connection, "SELECT to_regclass('schema_migrations') IS NOT NULL");
        if (succeeded(result))
                return strcmp(PQgetvalue(result, 0, 0), "t") == 0;
        fail(ret_error, "the applied migrations cannot be read: %s", PQerrorMessage(connection));
        return -1;
}

bool migrate_check(PGconn *connection, const struct migration *migrations, size_t count, char **ret_error) {
        size_t applied = 0;
        int known = has_table(connection, ret_error);
        if (known < 0)
                return false;
        if (known == 0)
                return fail(ret_error, "the database has no schema: run `genied migrate`");
        if (!compare(connection, migrations, count, &applied, ret_error))
                return false;
        if (applied < count)
                return fail(ret_error,
                        "the database schema is at migration %zu and this genied needs %zu: run `genied migrate`",
                        applied, count);
        return true;
}
