#include "server/channel/channel.h"

#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "storage/listen.h"
#include "storage/uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        REPLICA_LEASE_MS = 15000,
        BIND_ARENA = 1 << 20,
        LEAVE_MS = 2000,
        LOOK_SECONDS = 5,
        CHECK_SECONDS = 2,
        STRAY_SECONDS = 10,
        END_MS = 1000
};
static const int64_t MILLISECOND = 1000000;

// --- Its statements ---

const struct binding *channel_binding(const struct channel *channel, enum internal_statement statement) {
        return channel->config.statements->internals[statement];
}

bool channel_submit(struct channel *channel, struct storage_operation *operation, struct arena *arena,
        enum internal_statement statement, const ProtobufCMessage *message, const char *organization_id,
        void (*done)(struct storage_operation *, enum storage_outcome, PGresult *)) {
        const struct binding *binding = channel_binding(channel, statement);
        const char *field, *reason;
        if (binding_parameters(binding, message, &(struct binding_values){.organization_id = organization_id}, arena,
                    &operation->parameters, &field, &reason) != BINDING_OK)
                return false;
        operation->statement = binding_statement(binding);
        operation->organization_id = organization_id;
        operation->caller = "system";
        operation->method = CHANNEL_METHOD;
        operation->request_id = "";
        operation->deadline = 0;
        operation->done = done;
        return storage_submit(channel->config.storage, operation);
}

void errand_send(struct errand *errand, enum internal_statement statement, const ProtobufCMessage *message,
        void (*done)(struct storage_operation *, enum storage_outcome, PGresult *)) {
        errand->under_way = channel_submit(
                errand->channel, &errand->operation, &errand->arena, statement, message, "", done);
        if (!errand->under_way)
                arena_drop(&errand->arena, /* wipe= */ false);
}

struct channel *errand_done(struct storage_operation *operation) {
        struct errand *errand = (struct errand *)(void *)operation;
        pthread_mutex_lock(&errand->channel->mutex);
        arena_drop(&errand->arena, /* wipe= */ false);
        errand->under_way = false;
        return errand->channel;
}

// --- Organizations and sessions ---

struct organization *organization_find(struct channel *channel, const char *id) {
        struct organization *organization;
        HASH_FIND_STR(channel->organizations, id, organization);
        return organization;
}

struct organization *organization_have(struct channel *channel, const char *id) {
        struct organization *organization = organization_find(channel, id);
        if (organization)
                return organization;
        organization = calloc(1, sizeof *organization);
        if (!organization)
                return NULL;
        snprintf(organization->id, sizeof organization->id, "%s", id);
        organization->waiting = ALL_KINDS;
        HASH_ADD_STR(channel->organizations, id, organization);
        return organization;
}

void organization_drop_if_empty(struct channel *channel, struct organization *organization) {
        if (organization->sessions || organization->watchers)
                return;
        if (organization->changed_prev)
                DL_DELETE2(channel->changed, organization, changed_prev, changed_next);
        HASH_DEL(channel->organizations, organization);
        free(organization);
}

void organization_changed(struct channel *channel, struct organization *organization, unsigned changes) {
        organization->changed |= changes;
        if (!organization->changed_prev) // utlist's first has one too
                DL_APPEND2(channel->changed, organization, changed_prev, changed_next);
}

int64_t channel_newer(struct channel *channel, const struct session *session) {
        struct session *other;
        HASH_FIND_STR(channel->sessions, session->agent_id, other);
        return other && other->epoch > session->epoch ? other->epoch : 0;
}

bool channel_enter(struct channel *channel, struct session *session) {
        struct session *older;
        session->organization = organization_have(channel, session->organization_id);
        if (!session->organization)
                return false;
        HASH_FIND_STR(channel->sessions, session->agent_id, older);
        if (older) {
                session_supersede(older, session->epoch);
                channel_leave(channel, older);
                session->organization = organization_have(channel, session->organization_id);
                if (!session->organization)
                        return false;
        }
        HASH_ADD_STR(channel->sessions, agent_id, session);
        struct organization *organization = session->organization;
        session->next = organization->sessions;
        if (session->next)
                session->next->prev = session;
        organization->sessions = session;
        session_hold(session);
        return true;
}

void channel_leave(struct channel *channel, struct session *session) {
        struct organization *organization = session->organization;
        if (!organization)
                return;
        if (channel->check_next == session)
                channel->check_next = session->hh.next;
        if (channel->renew_next == session)
                channel->renew_next = session->hh.next;
        HASH_DEL(channel->sessions, session);
        dispatch_forget(session);
        *(session->prev ? &session->prev->next : &organization->sessions) = session->next;
        if (session->next)
                session->next->prev = session->prev;
        session->prev = session->next = NULL;
        session->organization = NULL;
        organization_drop_if_empty(channel, organization);
        session_release(session);
}

void channel_note_end(
        struct channel *channel, const char *organization_id, const char *agent_id, int64_t epoch, const char *reason) {
        struct batch *batch = &channel->closes;
        Devopsgenie__Internal__Session *item = batch_add(batch, NULL, &devopsgenie__internal__session__descriptor, 0);
        if (!item)
                return; // it is noted when the replica's lease lapses, or by the next session
        item->organization_id = batch_text(batch, organization_id);
        item->agent_id = batch_text(batch, agent_id);
        item->session_epoch = epoch;
        item->reason = batch_text(batch, reason);
}

unsigned channel_sessions(struct channel *channel) {
        pthread_mutex_lock(&channel->mutex);
        unsigned count = HASH_COUNT(channel->sessions);
        pthread_mutex_unlock(&channel->mutex);
        return count;
}

// --- Changes ---

static void note_agent(struct channel *channel, const struct organization *organization, const char *agent_id) {
        for (struct session *session = organization->sessions; session; session = session->next)
                if (!agent_id || !strcmp(session->agent_id, agent_id))
                        check_session(channel, session);
}

void channel_note(
        struct channel *channel, unsigned changes, const char *organization_id, const char *agent_id, bool tell) {
        struct organization *organization = organization_find(channel, organization_id);
        if (organization) {
                organization_changed(channel, organization, changes & ~(unsigned)CHANGE_AGENTS);
                if (changes & CHANGE_AGENTS)
                        note_agent(channel, organization, agent_id);
        }
        if (tell)
                notice_add(channel, changes, organization_id, agent_id);
}

// Those that have been looked at; what waits for a statement to end stays.
static void forget_changes(struct channel *channel) {
        struct organization *organization, *next;
        DL_FOREACH_SAFE2(channel->changed, organization, next, changed_next) {
                if (organization->changed || organization->asking)
                        continue;
                DL_DELETE2(channel->changed, organization, changed_prev, changed_next);
                organization->changed_prev = organization->changed_next = NULL;
        }
}

void channel_settle(struct channel *channel) {
        struct batch *const batches[] = {&channel->closes, &channel->claims, &channel->starts, &channel->rejections,
                &channel->endings, &channel->effects, &channel->logs, &channel->answers, &channel->checks};
        struct organization *organization;
        bool cancels = false;
        if (channel->stopped)
                return;
        for (organization = channel->look_everywhere ? channel->organizations : NULL; organization;
                organization = organization->hh.next)
                organization_changed(channel, organization, CHANGE_ALL);
        channel->look_everywhere = false;
        DL_FOREACH2(channel->changed, organization, changed_next) {
                if (organization->changed & (CHANGE_EVENTS | CHANGE_LOGS))
                        watchers_wake(organization, organization->changed);
                organization->changed &= ~(unsigned)(CHANGE_EVENTS | CHANGE_LOGS);
                cancels |= (organization->changed & CHANGE_CANCELS) != 0;
        }
        dispatch(channel);
        if (cancels)
                cancels_look(channel);
        forget_changes(channel);
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
                batch_send(batches[i], /* empty= */ false);
        notice_send(channel);
}

void channel_changed(struct channel *channel, unsigned changes, const char *organization_id, const char *agent_id) {
        if (!channel)
                return;
        pthread_mutex_lock(&channel->mutex);
        channel_note(channel, changes, organization_id, agent_id, /* tell= */ true);
        channel_settle(channel);
        pthread_mutex_unlock(&channel->mutex);
}

// --- Time ---

static void watch_sessions(struct channel *channel, int64_t now) {
        int64_t silent = now - (int64_t)channel->config.silence_ms * MILLISECOND;
        struct session *session, *next;
        HASH_ITER(hh, channel->sessions, session, next) {
                session_second(session, now);
                if (session->end.reason && session->end.time < now - END_MS * MILLISECOND)
                        stream_abort(session->call);                // it does not read why it ends
                if (session->paused && !session_is_behind(session)) // it is not silent: nobody listens to it now
                        session->heard = now;
                if (session->heard >= silent)
                        continue;
                if (session_is_behind(session))
                        session_end(session, CODE_RESOURCE_EXHAUSTED, "READER_TOO_SLOW", "PROTOCOL",
                                "the agent does not read what it is sent");
                else
                        session_end(session, CODE_DEADLINE_EXCEEDED, "SILENT", "SILENT",
                                "nothing was heard of the agent for too long");
        }
}

static void end_drained(struct channel *channel) {
        for (struct session *session = channel->sessions; session; session = session->hh.next)
                session_end(session, CODE_UNAVAILABLE, "DRAINED", "DRAINED", "this server stops");
}

// Who watches looks from time to time, in case a hint was lost; not all organizations in the same second.
static void look_again(struct channel *channel) {
        unsigned i = channel->second++;
        for (struct organization *organization = channel->organizations; organization;
                organization = organization->hh.next)
                if (i++ % LOOK_SECONDS == 0)
                        organization_changed(channel, organization, CHANGE_EVENTS | CHANGE_LOGS);
}

void channel_tick(struct channel *channel) {
        pthread_mutex_lock(&channel->mutex);
        int64_t now = now_ns();
        bool second = now >= channel->next_tick;
        if (channel->drain_end && now >= channel->drain_end)
                end_drained(channel);
        if (second) {
                channel->next_tick = now + SECOND_MS * MILLISECOND;
                watch_sessions(channel, now);
                look_again(channel);
                if (batch_is_idle(&channel->ticks))
                        ticks_prepare(channel);
                if (channel->second % CHECK_SECONDS == 0)
                        checks_prepare(channel);
                if (channel->second % STRAY_SECONDS == 0)
                        strays_look(channel);
        }
        batch_send(&channel->ticks, /* empty= */ second);
        channel_settle(channel);
        pthread_mutex_unlock(&channel->mutex);
}

void channel_drain(struct channel *channel, unsigned spread_ms, unsigned deadline_ms) {
        pthread_mutex_lock(&channel->mutex);
        unsigned count = HASH_COUNT(channel->sessions), i = 0;
        channel->draining = true;
        channel->drain_end = now_ns() + deadline_ms * MILLISECOND;
        // Slots at even distances: the others take the agents in at a steady rate.
        for (struct session *session = channel->sessions; session; session = session->hh.next, i++)
                session_drain(session, (int64_t)spread_ms * i / count, deadline_ms);
        for (struct organization *organization = channel->organizations; organization;
                organization = organization->hh.next)
                watchers_wake(organization, ~0U); // they see that it drains
        pthread_mutex_unlock(&channel->mutex);
}

// --- Its life ---

// The messages that batches are sent as; what does not change in them is set once.
struct containers {
        Google__Protobuf__Duration lease, offer_limit, replica_lease;
        Devopsgenie__Internal__Sessions closes, checks;
        Devopsgenie__Internal__Claims claims;
        Devopsgenie__Internal__Starts starts;
        Devopsgenie__Internal__Rejections rejections;
        Devopsgenie__Internal__Endings endings;
        Devopsgenie__Internal__Effects effects;
        Devopsgenie__Internal__LogPieces logs;
        Devopsgenie__Internal__CancelAnswers answers;
        Devopsgenie__Internal__Tick ticks;
};

struct whole_channel {
        struct channel channel; // first
        struct containers containers;
};

static void closes_done(struct channel *channel, const struct load *load, const PGresult *result) {
        (void)result;
        for (unsigned i = 0; i < load->count; i++)
                channel_note(channel, CHANGE_EVENTS,
                        ((const Devopsgenie__Internal__Session *)(const void *)load->items[i])->organization_id, NULL,
                        /* tell= */ true);
}

static void make_batches(struct channel *channel, struct containers *c) {
        c->lease = duration_of(channel->config.lease_ms);
        c->offer_limit = duration_of(channel->config.offer_ms);
        c->replica_lease = duration_of(REPLICA_LEASE_MS);
        devopsgenie__internal__sessions__init(&c->closes);
        devopsgenie__internal__sessions__init(&c->checks);
        devopsgenie__internal__claims__init(&c->claims);
        devopsgenie__internal__starts__init(&c->starts);
        devopsgenie__internal__rejections__init(&c->rejections);
        devopsgenie__internal__endings__init(&c->endings);
        devopsgenie__internal__effects__init(&c->effects);
        devopsgenie__internal__log_pieces__init(&c->logs);
        devopsgenie__internal__cancel_answers__init(&c->answers);
        devopsgenie__internal__tick__init(&c->ticks);
        c->claims.replica_id = c->starts.replica_id = c->ticks.replica_id = channel->replica_id;
        c->claims.offer_limit = &c->offer_limit;
        c->starts.lease = c->ticks.lease = &c->lease;
        c->ticks.replica_lease = &c->replica_lease;
        const struct {
                struct batch *batch;
                enum internal_statement statement;
                ProtobufCMessage *container;
                void (*done)(struct channel *, const struct load *, const PGresult *);
        } all[] = {
                {&channel->closes, INTERNAL_CLOSE_SESSIONS, &c->closes.base, closes_done},
                {&channel->claims, INTERNAL_CLAIM_TASKS, &c->claims.base, dispatch_done},
                {&channel->starts, INTERNAL_START_TASKS, &c->starts.base, starts_done},
                {&channel->rejections, INTERNAL_REJECT_TASKS, &c->rejections.base, rejections_done},
                {&channel->endings, INTERNAL_END_TASKS, &c->endings.base, endings_done},
                {&channel->effects, INTERNAL_NOTE_EFFECTS, &c->effects.base, effects_done},
                {&channel->logs, INTERNAL_APPEND_LOGS, &c->logs.base, logs_done},
                {&channel->answers, INTERNAL_ANSWER_CANCELS, &c->answers.base, answers_done},
                {&channel->ticks, INTERNAL_CHANNEL_TICK, &c->ticks.base, ticks_done},
                {&channel->checks, INTERNAL_CHECK_SESSIONS, &c->checks.base, checks_done},
        };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
                all[i].batch->channel = channel;
                all[i].batch->statement = all[i].statement;
                all[i].batch->container = all[i].container;
                all[i].batch->done = all[i].done;
        }
}

struct channel *channel_new(const struct channel_config *config, char **ret_error) {
        struct whole_channel *whole = calloc(1, sizeof *whole);
        *ret_error = NULL;
        if (!whole)
                return NULL;
        struct channel *channel = &whole->channel;
        char name[64];
        channel->config = *config;
        pthread_mutex_init(&channel->mutex, NULL);
        uuid_v7_text(channel->replica_id);
        make_batches(channel, &whole->containers);
        channel->notices.channel = channel->cancels.channel = channel->strays.channel = channel->leaving.channel =
                channel;
        snprintf(name, sizeof name, "genie_%s", channel->replica_id);
        channel->listener = listen_start(&(struct listen_config){
                .url = config->database_url,
                .role = config->role,
                .channel = name,
                .heard = notice_heard,
                .context = channel,
        });
        if (channel->listener)
                return channel;
        *ret_error = strdup("no thread or memory to listen with");
        channel_free(channel);
        return NULL;
}

static bool is_busy(struct channel *channel) {
        const struct batch *const batches[] = {&channel->closes, &channel->claims, &channel->starts,
                &channel->rejections, &channel->endings, &channel->effects, &channel->logs, &channel->answers,
                &channel->ticks, &channel->checks};
        bool busy = channel->notices.under_way || channel->cancels.under_way || channel->strays.under_way ||
                    channel->leaving.under_way;
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
                busy |= batches[i]->sent != NULL;
        return busy;
}

// Bounded by the statements' timeouts, and by LEAVE_MS where the database is away.
static void await(struct channel *channel, unsigned limit_ms) {
        for (unsigned i = 0; i < limit_ms; i++) {
                pthread_mutex_lock(&channel->mutex);
                bool busy = is_busy(channel);
                pthread_mutex_unlock(&channel->mutex);
                if (!busy)
                        return;
                nanosleep(&(struct timespec){.tv_nsec = MILLISECOND}, NULL);
        }
}

static void left(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        (void)outcome; // where it fails, the lease lapses
        (void)result;
        pthread_mutex_unlock(&errand_done(operation)->mutex);
}

void channel_stop(struct channel *channel) {
        if (!channel)
                return;
        listen_stop(channel->listener);
        channel->listener = NULL;
        await(channel, LEAVE_MS); // sessions that have just ended are noted
        pthread_mutex_lock(&channel->mutex);
        channel->stopped = true;
        Devopsgenie__Internal__Replica replica = DEVOPSGENIE__INTERNAL__REPLICA__INIT;
        replica.replica_id = channel->replica_id;
        arena_init(&channel->leaving.arena, BIND_ARENA);
        errand_send(&channel->leaving, INTERNAL_LEAVE_REPLICA, &replica.base, left);
        pthread_mutex_unlock(&channel->mutex);
        await(channel, LEAVE_MS);
}

void channel_free(struct channel *channel) {
        if (!channel)
                return;
        struct batch *const batches[] = {&channel->closes, &channel->claims, &channel->starts, &channel->rejections,
                &channel->endings, &channel->effects, &channel->logs, &channel->answers, &channel->ticks,
                &channel->checks};
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
                batch_drop(batches[i]);
        free(channel->replicas);
        pthread_mutex_destroy(&channel->mutex);
        free(channel);
}
