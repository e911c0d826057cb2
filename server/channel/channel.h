// The task channel of one replica: the sessions of the agents that are connected to it, and what goes on between them
// and the database. task_channel_service.proto has the rules of the protocol, the functions of migration 0011 those of
// the data.
//
// One mutex guards all of it. Sessions read and write on the stream thread, statements come back on the storage thread,
// time passes on the main thread (channel_tick); none of them waits for another but for that mutex.
//
// What changes the database goes through batches (batch.h): one statement of a kind is under way at a time, and what
// comes meanwhile goes with the next, so that the cost of a message falls as their number rises.
#pragma once

#include "server/statements.h"
#include "storage/storage.h"

#include <stdbool.h>

struct channel;

struct channel_config {
        struct storage *storage;
        const struct statements *statements;
        const char *database_url, *role; // for the connection that listens
        unsigned lease_ms, offer_ms, heartbeat_ms, silence_ms, hello_ms;
        unsigned log_window_bytes, max_log_bytes;
};

// Starts it; the replica is known to others from its first tick on. NULL with *ret_error (malloc'ed).
struct channel *channel_new(const struct channel_config *config, char **ret_error);

// What somebody may wait for. Hints: they are sent after the commit, may come twice, and are made up for by looks
// of the replica's own, every one to five seconds, where they are lost.
enum channel_change {
        CHANGE_TASKS = 1,   // tasks may wait to be offered
        CHANGE_CANCELS = 2, // a task is to be cancelled
        CHANGE_AGENTS = 4,  // an agent, its keys or its sessions have changed; agent_id: which, NULL: any
        CHANGE_EVENTS = 8,  // there are events for those who watch
        CHANGE_LOGS = 16,   // there is more of a log
        CHANGE_ALL = CHANGE_TASKS | CHANGE_CANCELS | CHANGE_EVENTS | CHANGE_LOGS, // of an organization
};

// Tells this replica at once, and the others soon, that something has changed in an organization. Any thread. NULL for
// `channel` is allowed, and does nothing.
void channel_changed(struct channel *channel, unsigned changes, const char *organization_id, const char *agent_id);

// What time does. Called from the main thread a few times a second.
void channel_tick(struct channel *channel);

// Tells every agent to come back elsewhere, each at its own time within `spread_ms`, and ends what is still connected
// after deadline_ms. No offers are made from here on.
void channel_drain(struct channel *channel, unsigned spread_ms, unsigned deadline_ms);

// How many sessions stand.
unsigned channel_sessions(struct channel *channel);

// After the server has stopped: says that the replica is gone, waits for what is under way. Then free it, when the
// storage has stopped.
void channel_stop(struct channel *channel);
void channel_free(struct channel *channel);
