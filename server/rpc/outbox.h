// What the storage thread has answered, on its way to the call threads. gRPC core works best on one thread: where a
// second one sends, it takes core's locks from the first and wakes it with each completion. So the storage thread packs
// a reply and puts the call here, and the call's own thread, woken once for all that have come together, sends them.
//
// A call thread has one outbox. A call that is put belongs to the outbox, then to the thread that sends it.
#pragma once

#include "server/rpc/call_private.h"

struct outbox {
        struct tag tag;                             // first; of the wake-up
        struct core_call *gathered, *gathered_last; // the storage thread's, since the last flush
        _Atomic(struct core_call *) ready;          // NULL: the call thread has seen all, and is to be woken
};

// The calling thread sends for this outbox from now on; at its start.
void outbox_open(struct outbox *outbox);

// Whether the calling thread is the one that sends for it.
bool outbox_is_here(const struct outbox *outbox);

// Storage thread only: leaves a call to be sent; nothing happens to it before the flush.
void outbox_put(struct outbox *outbox, struct core_call *call);

// Storage thread only: hands over what was put.
void outbox_flush(struct outbox *outbox);
