// Offers. For organizations whose tasks may wait, the sessions that can take some are put to the database, which
// chooses and locks. One statement is under way at a time, for at most CLAIMS_MAX sessions; an organization's round
// goes on until all of its sessions have been asked since something changed.
#include "server/channel/session_private.h"
#include "storage/row.h"

#include <string.h>

enum {
        CLAIMS_MAX = 256,
        CLAIM_FREE = 8, // offered to one session in a turn, so that others get some
};

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

// Asks for the sessions of an organization, from where the last round left off; kind by kind, since the database passes
// over a kind of which it has nothing.
static bool add_claims(struct channel *channel, struct organization *organization, unsigned *asked) {
        struct session *begin = organization->next_served ? organization->next_served : organization->sessions;
        unsigned count = CLAIMS_MAX - *asked < organization->round ? CLAIMS_MAX - *asked : organization->round;
        for (int kind = 1; kind < KINDS; kind++) {
                struct session *session = begin;
                for (unsigned i = 0; session && i < count; i++) {
                        if (!add_claim(channel, session, kind))
                                return false;
                        session = session->next ? session->next : organization->sessions;
                        organization->next_served = session;
                }
        }
        organization->round -= count;
        *asked += count;
        return true;
}

// Whose round is over comes last the next time, so that those who are always busy leave room for the others.
void dispatch(struct channel *channel) {
        struct organization *organization, *next;
        unsigned asked = 0;
        if (!batch_is_idle(&channel->claims) || channel->draining)
                return;
        DL_FOREACH_SAFE2(channel->changed, organization, next, changed_next) {
                if (organization->changed & CHANGE_TASKS) {
                        organization->changed &= ~(unsigned)CHANGE_TASKS;
                        organization->round = organization->session_count;
                }
                if (!organization->round)
                        continue;
                if (asked == CLAIMS_MAX || !add_claims(channel, organization, &asked))
                        break;
                if (!organization->round) {
                        DL_DELETE2(channel->changed, organization, changed_prev, changed_next);
                        DL_APPEND2(channel->changed, organization, changed_prev, changed_next);
                }
        }
        batch_send(&channel->claims, /* empty= */ false);
}

// Where an organization had something, it may have more.
void dispatch_done(struct channel *channel, const struct load *load, const PGresult *result) {
        for (int row = 0; row < PQntuples(result); row++) {
                int64_t i = row_int(result, row, "item") - 1;
                if (i < 0 || i >= load->count)
                        continue;
                struct session *session = load->sessions[i];
                session_offer(session, result, row);
                channel_note(channel, CHANGE_TASKS, session->organization_id, NULL, /* tell= */ false);
                channel_note(channel, CHANGE_EVENTS, session->organization_id, NULL, /* tell= */ true);
        }
}
