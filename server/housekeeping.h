// The periodic work of every replica, done on the storage thread: expired acceptances and abandoned imports are written
// down, days of last use of API keys are noted. Each piece is one statement, and of replicas that run the same at the
// same time, each takes what the others have not locked.
#pragma once

#include "server/identity.h"
#include "server/statements.h"
#include "storage/storage.h"

#include <stdatomic.h>
#include <stdint.h>

enum { USED_KEYS_TEXT = 4096 };

struct chore {
        struct storage_operation operation; // first
        struct storage_value parameters[2];
        atomic_bool under_way;
        int64_t next; // CLOCK_MONOTONIC nanoseconds
        const struct binding *binding;
};

struct housekeeping {
        struct storage *storage;
        struct identity *identity;
        struct chore sweep, touch;
        char organizations[USED_KEYS_TEXT], keys[USED_KEYS_TEXT];
        unsigned char row_limit[4];
};

void housekeeping_init(struct housekeeping *housekeeping, struct storage *storage, struct identity *identity,
        const struct statements *statements);

// Starts what is due. Called from one thread, a few times a second.
void housekeeping_tick(struct housekeeping *housekeeping);

// Cancels what is under way and waits for it.
void housekeeping_stop(struct housekeeping *housekeeping);
