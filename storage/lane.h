// A lane: the operations that wait, what goes out over which connection, and what becomes of the answers. The
// storage thread alone.
#pragma once

#include "storage/storage_private.h"

// The prepared statement of lane_kind.setting.
#define SETTING_STATEMENT "genie_setting"

// Makes the lane's queue and connections, all of them down. False with errno: no memory.
bool lane_init(struct lane_state *lane, struct storage *storage, enum lane number) __attribute__((warn_unused_result));
void lane_drop(struct lane_state *lane);

// Puts an operation behind the others.
void lane_accept(struct lane_state *lane, struct storage_operation *operation);

// Sends what waits over the connections that have room.
void lane_dispatch(struct lane_state *lane);

// Whether nothing can be sent before an answer comes: then a new operation need not wake the thread.
bool lane_saturated(const struct lane_state *lane);

// Ends what is cancelled or late, and looks at the connections' timers.
void lane_sweep(struct lane_state *lane);

// Ends all that waits.
void lane_clear_queue(struct lane_state *lane, enum storage_outcome outcome);

// Ends all connections, cancelling what runs on them.
void lane_close(struct lane_state *lane);

// For connection.c.
void lane_connection_changed(struct lane_state *lane, bool ready);
void lane_result(struct connection *connection, PGresult *result); // takes the result
void lane_abandon(struct connection *connection);                  // settles what the connection still owed
