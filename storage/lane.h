// A lane: the operations that wait, and the connections that they go out over. The storage thread alone.
#pragma once

#include "storage/storage_private.h"

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

// A connection of the lane stands now, or does no longer.
void lane_connection_changed(struct lane_state *lane, bool ready);

// The next operation that is to be sent; NULL: none waits. One that cannot be sent now is put back, before the others.
struct storage_operation *lane_take_next(struct lane_state *lane);
void lane_put_back(struct lane_state *lane, struct storage_operation *operation);

// Ends an operation; it is not touched afterwards.
void lane_complete(
        struct lane_state *lane, struct storage_operation *operation, enum storage_outcome outcome, PGresult *result);
