// What the parts of the task channel share. All of it is guarded by channel->mutex.
#pragma once

#include "server/channel/batch.h"
#include "server/channel/channel.h"
#include "server/channel/session.h"

#include <devopsgenie/internal/channel.pb-c.h>
#include <pthread.h>
#include <stdint.h>
#include <uthash.h>
#include <utlist.h>

#define CHANNEL_METHOD "devopsgenie.v1.TaskChannelService.Connect"

enum { KINDS = 3, ALL_KINDS = (1 << KINDS) - 1, SECOND_MS = 1000 }; // TaskKind's numbers are below KINDS

// One that waits for an organization's events or logs: the call of a stream.
struct watcher {
        struct call *call;
        struct organization *organization;
        unsigned wants; // enum channel_change
        struct watcher *next, **link;
};

// An organization with sessions or watchers here.
struct organization {
        char id[UUID_SIZE];
        struct session *sessions, *asking; // a list; those that may take tasks, if it has some, in this order
        unsigned waiting;                  // by kind, bits: the last look left some, or there was none since a hint
        struct watcher *watchers;
        unsigned changed;                                 // enum channel_change: what is to be looked at
        struct organization *changed_prev, *changed_next; // of channel->changed, while something is
        UT_hash_handle hh;
};

// A statement of the channel's own, one at a time.
struct errand {
        struct storage_operation operation; // first
        struct channel *channel;
        struct arena arena; // of what the statement is given
        bool under_way;
};

struct channel {
        struct channel_config config;
        char replica_id[UUID_SIZE];
        pthread_mutex_t mutex;
        struct session *sessions; // by agent
        struct organization *organizations,
                *changed; // all; those that are to be looked at, in the order of their changes
        struct batch closes, claims, starts, rejections, endings, effects, logs, answers, ticks, checks;
        struct errand notices, cancels, strays, leaving;
        struct listener *listener;

        char (*replicas)[UUID_SIZE]; // others that live
        unsigned replica_count;
        char notice[4000]; // what they are to be told
        size_t notice_size;

        int64_t next_tick, drain_end;            // CLOCK_MONOTONIC nanoseconds; drain_end 0: it does not drain
        struct session *check_next, *renew_next; // the next to be checked; the first whose leases are renewed
        unsigned second;                         // counts them
        bool look_everywhere, draining, stopped;
};

const struct binding *channel_binding(const struct channel *channel, enum internal_statement statement);

struct organization *organization_find(struct channel *channel, const char *id);
struct organization *organization_have(
        struct channel *channel, const char *id); // made where it is missing; may be NULL
void organization_drop_if_empty(struct channel *channel, struct organization *organization);
void organization_changed(struct channel *channel, struct organization *organization, unsigned changes);

// Notes a change for this replica, and with `tell` for the others; channel_settle acts on it.
void channel_note(
        struct channel *channel, unsigned changes, const char *organization_id, const char *agent_id, bool tell);

// Acts on what has been noted: wakes watchers, makes offers, sends what waits. At the end of whatever changes
// something.
void channel_settle(struct channel *channel);

// Sends a statement with what `message` gives it; the parameters lie in `arena`. False where it is not sent.
bool channel_submit(struct channel *channel, struct storage_operation *operation, struct arena *arena,
        enum internal_statement statement, const ProtobufCMessage *message, const char *organization_id,
        void (*done)(struct storage_operation *, enum storage_outcome, PGresult *)) __attribute__((warn_unused_result));

// Sends an errand with a message that lies in its arena, and drops that where it is not sent. `done` begins with
// errand_done.
void errand_send(struct errand *errand, enum internal_statement statement, const ProtobufCMessage *message,
        void (*done)(struct storage_operation *, enum storage_outcome, PGresult *));
// The channel whose errand has ended, its mutex locked; the errand may be sent again.
struct channel *errand_done(struct storage_operation *operation);

// The epoch of a session of the same agent that is newer; 0: there is none here.
int64_t channel_newer(struct channel *channel, const struct session *session);

// A session begins, in the place of an older one of its agent; and it ends. False where there is no memory.
bool channel_enter(struct channel *channel, struct session *session) __attribute__((warn_unused_result));
void channel_leave(struct channel *channel, struct session *session);

// Notes in the database that a session has ended; one that was taken over is another's.
void channel_note_end(
        struct channel *channel, const char *organization_id, const char *agent_id, int64_t epoch, const char *reason);

// dispatch.c
void dispatch_ask(struct session *session); // it may take tasks that wait
void dispatch_forget(struct session *session);
void dispatch(struct channel *channel);
void dispatch_done(struct channel *channel, const struct load *load, const PGresult *result);

// notice.c
void notice_add(struct channel *channel, unsigned changes, const char *organization_id, const char *agent_id);
void notice_send(struct channel *channel);
void notice_heard(void *context, const char *payload); // on the listener's thread

// ticks.c
void ticks_prepare(struct channel *channel);
void ticks_done(struct channel *channel, const struct load *load, const PGresult *result);
void checks_prepare(struct channel *channel);
void check_session(struct channel *channel, struct session *session);
void checks_done(struct channel *channel, const struct load *load, const PGresult *result);
void cancels_look(struct channel *channel);
void strays_look(struct channel *channel);

// watch.c: the watchers of an organization who want one of the changes look now.
void watchers_wake(struct organization *organization, unsigned changes);
