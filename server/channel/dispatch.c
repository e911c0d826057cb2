// Offers. Where tasks may wait, the sessions that can take some are put to the database, which chooses and locks. One
// statement is under way at a time, for at most CLAIMS_MAX sessions. It says which kinds an organization has none of:
// nobody is asked for those again until somebody says that there are some.
#include "server/channel/session_private.h"
#include "storage/row.h"

#include <string.h>

enum {
        CLAIMS_MAX = 256,
        CLAIM_FREE = 8, // offered to one session in a turn, so that others get some
};

void dispatch_ask(struct session *session) {
        struct organization *organization = session->organization;
        if (!organization || !organization->waiting || session->ask_prev) // utlist's first has one too
                return;
        bool some = false;
        for (int kind = 1; kind < KINDS; kind++)
                some = some || session_free(session, kind) > 0;
        if (!some)
                return;
        DL_APPEND2(organization->asking, session, ask_prev, ask_next);
        organization_changed(session->channel, organization, 0);
}

void dispatch_forget(struct session *session) {
        if (!session->ask_prev)
                return;
        DL_DELETE2(session->organization->asking, session, ask_prev, ask_next);
        session->ask_prev = session->ask_next = NULL;
}

static bool add_claim(struct channel *channel, struct session *session, int kind) {
        struct batch *batch = &channel->claims;
        int free = session_free(session, kind);
        if (free <= 0)
                return true;
        Devopsgenie__Internal__Claim *claim = batch_add(batch, session, &devopsgenie__internal__claim__descriptor, 0);
        if (!claim)
                return false;
        claim->organization_id = batch_text(batch, session->organization_id);
        claim->agent_id = batch_text(batch, session->agent_id);
        claim->session_epoch = session->epoch;
        claim->kind = kind;
        claim->free = free < CLAIM_FREE ? free : CLAIM_FREE;
        return true;
}

// Asks for up to `room` sessions of an organization; kind by kind, since the database passes over a kind of which it
// has nothing.
static unsigned add_claims(struct channel *channel, struct organization *organization, unsigned room) {
        struct session *asked[CLAIMS_MAX];
        unsigned count = 0;
        bool good = true;
        while (organization->asking && count < room) {
                asked[count++] = organization->asking;
                dispatch_forget(organization->asking);
        }
        for (int kind = 1; kind < KINDS; kind++)
                for (unsigned i = 0; good && organization->waiting & 1U << kind && i < count; i++)
                        good = add_claim(channel, asked[i], kind);
        return good ? count : room; // out of memory: the next tick's hints come again
}

// Those who still have sessions to ask for come last the next time, and leave room for others.
void dispatch(struct channel *channel) {
        struct organization *organization, *next;
        unsigned room = CLAIMS_MAX;
        if (!batch_is_idle(&channel->claims) || channel->draining)
                return;
        DL_FOREACH_SAFE2(channel->changed, organization, next, changed_next) {
                if (organization->changed & CHANGE_TASKS) {
                        organization->changed &= ~(unsigned)CHANGE_TASKS;
                        organization->waiting = ALL_KINDS;
                        for (struct session *session = organization->sessions; session; session = session->next)
                                dispatch_ask(session);
                }
                room -= add_claims(channel, organization, room);
                if (room)
                        continue;
                DL_DELETE2(channel->changed, organization, changed_prev, changed_next);
                DL_APPEND2(channel->changed, organization, changed_prev, changed_next);
                break;
        }
        batch_send(&channel->claims, /* empty= */ false);
}

// A row is an offer, or without a task says that nothing of the kind waits; whoever got something may take more.
void dispatch_done(struct channel *channel, const struct load *load, const PGresult *result) {
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t i = row_int(result, row, "item") - 1;
                if (i < 0 || i >= load->count)
                        continue;
                struct session *session = load->sessions[i];
                struct organization *organization = session->organization;
                if (!PQgetisnull(result, row, PQfnumber(result, "task_id"))) {
                        session_offer(session, result, row);
                        dispatch_ask(session);
                        channel_note(channel, CHANGE_EVENTS, session->organization_id, NULL, /* tell= */ true);
                } else if (organization && !(organization->changed & CHANGE_TASKS)) { // no hint since it looked
                        organization->waiting &= ~(1U << row_int(result, row, "kind"));
                }
        }
}
