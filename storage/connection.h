// One connection of a lane: how it comes to stand, moves bytes, and goes. What is sent over it and what becomes of the
// answers is pipeline.h's business. The storage thread alone.
#pragma once

#include "storage/storage_private.h"

// Makes a connection that is down and due. False: no memory.
bool connection_init(struct connection *connection, struct lane_state *lane) __attribute__((warn_unused_result));
void connection_drop(struct connection *connection);

// What epoll saw on its socket.
void connection_event(struct connection *connection, uint32_t events);

// After a Sync: sends what libpq still holds as the socket takes it.
void connection_flush(struct connection *connection);

// Looks at its timers: opens it when it is due, ends what takes too long.
void connection_sweep(struct connection *connection);

// The connection is of no use any more: gives its operations back to the lane, logs why, and sets the time of
// the next attempt. `why` NULL: libpq's own error.
void connection_end(struct connection *connection, const char *why);
