// Cancel requests. libpq 15 has only PQcancel, which opens a connection and waits: so each is sent by a thread of its
// own, at most one per connection, joined when it has ended.
//
// A connection must not get its next statement before its canceller is idle, or the request could hit that one.
#pragma once

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct storage;

struct canceller {
        struct storage *storage; // asked for a sweep when the request is sent
        PGcancel *cancel;
        pthread_t thread;
        bool running;
        atomic_bool ended;
};

// Sends a cancel request for what the connection does. False when no thread can be had.
bool canceller_start(struct canceller *canceller, struct storage *storage, PGconn *pg)
        __attribute__((warn_unused_result));

// Whether no request is under way.
bool canceller_idle(struct canceller *canceller) __attribute__((warn_unused_result));

// Waits for a request that is under way.
void canceller_finish(struct canceller *canceller);
