// Migrations: the schema's versions, each a SQL text that is applied once. Table schema_migrations remembers which
// were, with the SHA-256 of their text, so that one that was edited afterwards is noticed.
//
// Blocking; for `genied migrate` and the start of `genied serve`. Errors are malloc'ed sentences for an operator, and
// say what to do.
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

struct migration {
        int number; // 1, 2, … without a gap
        const char *name;
        const char *sql; // any number of statements, run in one transaction: no COMMIT, nothing CONCURRENTLY
};

// Brings the schema up to the last migration, each in a transaction of its own, under an advisory lock: of several
// that run this at the same time, one works and the others find it done. Databases of one server may be migrated at the
// same time too: they share its roles, and what fails because another has just made one is tried again, up to 5 times.
// A migration waits at most 10 s for a table lock, so that it does not hold up a live system. `log` (may be NULL) is
// called before and after each one.
//
// False with *ret_error where the database cannot be reached, an applied migration differs from the known one, the
// schema is newer than `migrations`, or a migration fails; those before it stay applied.
bool migrate_apply(const char *conninfo, const struct migration *migrations, size_t count,
        void (*log)(const char *event, const char *detail), char **ret_error) __attribute__((warn_unused_result));

// Whether the schema is exactly the known one. False with *ret_error. Every role may read schema_migrations.
bool migrate_check(PGconn *connection, const struct migration *migrations, size_t count, char **ret_error)
        __attribute__((warn_unused_result));
