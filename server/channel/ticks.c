// What a replica does every second: its agents' leases, and looks at what may have happened without its hearing of it.
// Three statements in two seconds and one in ten, however many agents there are.
#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "storage/row.h"

#include <stdlib.h>
#include <string.h>

enum { RENEWALS_MAX = LOAD_ITEMS, CHECKS_MAX = LOAD_ITEMS, REPLICAS_MAX = 1000, LOOK_ARENA = 1 << 20 };

// --- Leases ---

static bool add_renewal(struct session *session, struct attempt *attempt) {
        struct batch *batch = &session->channel->ticks;
        Devopsgenie__Internal__Renewal *item = batch_add(
                batch, session, &devopsgenie__internal__renewal__descriptor, 0);
        item = item && (item->attempt = batch_add_part(batch, sizeof *item->attempt)) ? item : NULL;
        if (!item)
                return false;
        devopsgenie__internal__attempt__init(item->attempt);
        item->attempt->organization_id = batch_text(batch, session->organization_id);
        item->attempt->agent_id = batch_text(batch, session->agent_id);
        item->attempt->task_id = batch_text(batch, attempt->task);
        item->attempt->attempt = attempt->number;
        item->attempt->fence = attempt->fence;
        item->percent = attempt->percent;
        item->step = batch_text(batch, attempt->step ? attempt->step : "");
        attempt->renew = false;
        return true;
}

static unsigned count_renewals(const struct session *session) {
        unsigned count = 0;
        for (unsigned i = 0; i < session->attempt_count; i++)
                count += session->attempts[i].renew && session->attempts[i].state == ATTEMPT_RUNNING;
        return count;
}

static void acknowledge(struct session *session) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__LeaseAck ack = DEVOPSGENIE__V1__LEASE_ACK__INIT;
        ack.renew_seq = session->renew_under_way;
        session->renew_under_way = 0;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LEASE_ACK;
        message.lease_ack = &ack;
        session_post(session, &message);
}

// Of a session whose agent has renewed, all attempts go with this tick, so that one LeaseAck answers for all. False
// where there is no room for them.
static bool add_renewals(struct session *session, unsigned *count) {
        unsigned wanted = session->renew_seq ? count_renewals(session) : 0;
        if (!session->renew_seq)
                return true;
        if (*count + wanted > RENEWALS_MAX)
                return false;
        *count += wanted;
        for (unsigned i = 0; i < session->attempt_count; i++)
                if (session->attempts[i].renew && session->attempts[i].state == ATTEMPT_RUNNING &&
                        !add_renewal(session, &session->attempts[i]))
                        return false;
        session->renew_under_way = session->renew_seq;
        session->renew_seq = 0;
        if (!wanted)
                acknowledge(session);
        return true;
}

// Nothing is under way. Who finds no room is the first the next time.
void ticks_prepare(struct channel *channel) {
        struct session *session = channel->renew_next ? channel->renew_next : channel->sessions;
        unsigned count = 0;
        for (unsigned left = HASH_COUNT(channel->sessions); left && add_renewals(session, &count); left--)
                session = session->hh.next ? session->hh.next : channel->sessions;
        channel->renew_next = session;
}

static void take_lost(const struct load *load, const PGresult *result, int row) {
        int64_t i = row_int(result, row, "item") - 1;
        if (i < 0 || i >= load->count)
                return;
        const Devopsgenie__Internal__Attempt *attempt =
                ((const Devopsgenie__Internal__Renewal *)(const void *)load->items[i])->attempt;
        session_lose(load->sessions[i], attempt->task_id, attempt->attempt, attempt->fence, "EXPIRED");
}

static void take_cancel(struct channel *channel, const PGresult *result, int row) {
        char agent_id[UUID_SIZE], task_id[UUID_SIZE];
        struct session *session;
        row_uuid(result, row, "agent_id", agent_id);
        row_uuid(result, row, "task_id", task_id);
        HASH_FIND_STR(channel->sessions, agent_id, session);
        if (session)
                session_cancel(session, task_id, (int32_t)row_int(result, row, "attempt"),
                        row_int(result, row, "fence"), (int)row_int(result, row, "mode"),
                        row_int(result, row, "grace_ms"));
}

static void take_replica(struct channel *channel, const PGresult *result, int row) {
        if (channel->replica_count == REPLICAS_MAX)
                return;
        char(*replicas)[UUID_SIZE] = reallocarray(
                channel->replicas, channel->replica_count + 1, sizeof *channel->replicas);
        if (!replicas)
                return;
        channel->replicas = replicas;
        row_uuid(result, row, "other_replica_id", replicas[channel->replica_count++]);
}

static void take_rows(struct channel *channel, const struct load *load, const PGresult *result) {
        for (int row = 0; row < PQntuples(result); row++) {
                char what[16], organization_id[UUID_SIZE];
                row_text(result, row, "what", what, sizeof what);
                row_uuid(result, row, "organization_id", organization_id);
                if (!strcmp(what, "LOST") && load)
                        take_lost(load, result, row);
                else if (!strcmp(what, "CANCEL"))
                        take_cancel(channel, result, row);
                else if (!strcmp(what, "PENDING"))
                        channel_note(channel, CHANGE_TASKS, organization_id, NULL, /* tell= */ false);
                else if (!strcmp(what, "REPLICA"))
                        take_replica(channel, result, row);
        }
}

void ticks_done(struct channel *channel, const struct load *load, const PGresult *result) {
        channel->replica_count = 0;
        take_rows(channel, load, result);
        for (unsigned i = 0; i < load->count; i++)
                if (load->sessions[i]->renew_under_way)
                        acknowledge(load->sessions[i]);
}

// --- Sessions that are checked, some every other second ---

void checks_prepare(struct channel *channel) {
        struct batch *batch = &channel->checks;
        if (!batch_is_idle(batch))
                return;
        for (unsigned i = 0; i < CHECKS_MAX && channel->sessions; i++) {
                struct session *session = channel->check_next ? channel->check_next : channel->sessions;
                check_session(channel, session);
                channel->check_next = session->hh.next;
                if (!channel->check_next)
                        break; // all have been, now or in the seconds before
        }
}

void check_session(struct channel *channel, struct session *session) {
        struct batch *batch = &channel->checks;
        Devopsgenie__Internal__Session *item = batch_add(
                batch, session, &devopsgenie__internal__session__descriptor, 0);
        if (!item)
                return;
        item->organization_id = batch_text(batch, session->organization_id);
        item->agent_id = batch_text(batch, session->agent_id);
        item->agent_key_id = batch_text(batch, session->agent_key_id);
        item->session_epoch = session->epoch;
}

void checks_done(struct channel *channel, const struct load *load, const PGresult *result) {
        (void)channel;
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t i = row_int(result, row, "item") - 1;
                if (i < 0 || i >= load->count)
                        continue;
                struct session *session = load->sessions[i];
                int64_t epoch = row_int(result, row, "current_epoch");
                if (row_bool(result, row, "ended"))
                        session_end(session, CODE_UNAUTHENTICATED, "CREDENTIALS_INVALID", "CREDENTIALS_ENDED",
                                "the agent, or the key that it came with, has ended");
                else if (epoch > session->epoch)
                        session_supersede(session, epoch);
                else if (row_bool(result, row, "closed"))
                        session_end(session, CODE_UNAVAILABLE, "SESSION_LOST", "CLOSED",
                                "this server was taken for lost; connect again");
                else if (row_bool(result, row, "key_offered"))
                        session_offer_key(session);
        }
}

// --- Cancels that are looked for because somebody said that there are some ---

static void looked(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct channel *channel = errand_done(operation);
        if (outcome == STORAGE_OK) // else the next tick looks
                take_rows(channel, NULL, result);
        channel_settle(channel);
        pthread_mutex_unlock(&channel->mutex);
}

void cancels_look(struct channel *channel) {
        if (channel->cancels.under_way || channel->stopped)
                return;
        Devopsgenie__Internal__CancelsWanted wanted = DEVOPSGENIE__INTERNAL__CANCELS_WANTED__INIT;
        struct arena *arena = &channel->cancels.arena;
        unsigned count = HASH_COUNT(channel->organizations);
        arena_init(arena, LOOK_ARENA + (size_t)count * 100);
        wanted.replica_id = channel->replica_id;
        wanted.organization_ids = arena_alloc(arena, (count + 1) * sizeof(char *));
        for (struct organization *organization = channel->changed; wanted.organization_ids && organization;
                organization = organization->changed_next)
                if (organization->changed & CHANGE_CANCELS) {
                        wanted.organization_ids[wanted.n_organization_ids++] = organization->id;
                        organization->changed &= ~(unsigned)CHANGE_CANCELS;
                }
        if (wanted.n_organization_ids)
                errand_send(&channel->cancels, INTERNAL_FIND_CANCELS, &wanted.base, looked);
        else
                arena_drop(arena, /* wipe= */ false);
}

// --- Sessions that the database knows of and this replica does not ---

static void compared(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct channel *channel = errand_done(operation);
        for (int row = 0; outcome == STORAGE_OK && row < PQntuples(result); row++) {
                char organization_id[UUID_SIZE], agent_id[UUID_SIZE];
                int64_t epoch = row_int(result, row, "session_epoch");
                struct session *session;
                row_uuid(result, row, "organization_id", organization_id);
                row_uuid(result, row, "agent_id", agent_id);
                HASH_FIND_STR(channel->sessions, agent_id, session);
                if (!session || session->epoch < epoch)
                        channel_note_end(channel, organization_id, agent_id, epoch, "CLOSED");
        }
        channel_settle(channel);
        pthread_mutex_unlock(&channel->mutex);
}

void strays_look(struct channel *channel) {
        if (channel->strays.under_way || channel->stopped)
                return;
        Devopsgenie__Internal__Replica replica = DEVOPSGENIE__INTERNAL__REPLICA__INIT;
        replica.replica_id = channel->replica_id;
        arena_init(&channel->strays.arena, LOOK_ARENA);
        errand_send(&channel->strays, INTERNAL_FIND_NEW_SESSIONS, &replica.base, compared);
}
