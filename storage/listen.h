// Hears PostgreSQL's notifications on one channel, over a connection of its own.
//
// Notifications are hints: after every new connection `heard` is called without a payload, since what was sent before
// may have been missed. The connection is made again by itself, with backoff.
#pragma once

struct listener;

struct listen_config {
        const char *url, *role; // as storage_config's
        const char *channel;
        // On the listener's own thread. `payload` NULL: anything may have changed.
        void (*heard)(void *context, const char *payload);
        void *context;
};

// NULL where there is no thread, descriptor or memory for it. The strings are copied.
struct listener *listen_start(const struct listen_config *config);

// Ends the thread; `heard` does not run any more when this returns. NULL is allowed.
void listen_stop(struct listener *listener);
