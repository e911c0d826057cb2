// What goes out over a connection in libpq's pipeline mode, and what becomes of the answers. The storage thread alone.
//
// A connection keeps a ring of the answers that it owes, in the order in which they come: a setting and a statement
// for each operation, and a Sync for each batch.
#pragma once

#include "storage/storage_private.h"

// Sends the next batch of what waits in the lane. False: the connection is of no use any more.
bool pipeline_send(struct connection *connection) __attribute__((warn_unused_result));

// Takes the next answer and owns it.
void pipeline_take(struct connection *connection, PGresult *result);

// The connection has ended: settles what it still owed.
void pipeline_abandon(struct connection *connection);
