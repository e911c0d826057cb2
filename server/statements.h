// All statements of the server: one binding per method with SQL, one per internal query. Made once at start.
#pragma once

#include "storage/binder.h"

#include <stdbool.h>

struct statements {
        struct binding **methods;             // beside methods[]
        struct binding **internals;           // beside enum internal_statement
        const struct storage_statement **all; // NULL-terminated, for the storage
};

// Parses every SQL file. False with *ret_error (malloc'ed, a line per problem).
bool statements_new(struct statements *statements, char **ret_error);

// Describes every statement on a connection. False with *ret_error (malloc'ed, a line per problem, of all statements).
bool statements_describe(struct statements *statements, PGconn *connection, char **ret_error);

void statements_free(struct statements *statements);
