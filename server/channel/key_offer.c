// A key that is handed over in the channel: made here, known to the database by its hash alone, and told to the agent
// once that is durable.
#include "auth/api_key.h"
#include "server/channel/session_private.h"
#include "server/log.h"
#include "storage/row.h"
#include "storage/uuid.h"

#include <stdlib.h>
#include <string.h>

enum { OFFER_ARENA = 64 << 10 };

struct key_offer {
        struct storage_operation operation; // first
        struct arena arena;
        struct session *session; // held
        char key[API_KEY_TEXT + 1], id[UUID_SIZE];
};

static void drop(struct key_offer *offer) {
        offer->session->key_offer_under_way = false;
        session_release(offer->session);
        arena_drop(&offer->arena, /* wipe= */ false);
        explicit_bzero(offer, sizeof *offer);
        free(offer);
}

static void tell(struct key_offer *offer, int64_t overlap_ms) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__KeyOffer part = DEVOPSGENIE__V1__KEY_OFFER__INIT;
        Google__Protobuf__Duration overlap = duration_of(overlap_ms);
        part.key = offer->key;
        part.overlap = &overlap;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_KEY_OFFER;
        message.key_offer = &part;
        session_post(offer->session, &message);
        offer->session->key_told = true;
}

static void done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct key_offer *offer = (struct key_offer *)(void *)operation;
        struct channel *channel = offer->session->channel;
        pthread_mutex_lock(&channel->mutex);
        if (outcome == STORAGE_OK && PQntuples(result) == 1)
                tell(offer, row_int(result, 0, "overlap_ms"));
        drop(offer); // what failed is tried again when the session is next checked
        pthread_mutex_unlock(&channel->mutex);
}

void session_offer_key(struct session *session) {
        unsigned char hash[API_KEY_HASH];
        char prefix[API_KEY_PREFIX + 1];
        if (session->key_offer_under_way || session->key_told || !session->call)
                return;
        struct key_offer *offer = calloc(1, sizeof *offer);
        if (!offer)
                return;
        arena_init(&offer->arena, OFFER_ARENA);
        offer->session = session;
        session_hold(session);
        session->key_offer_under_way = true;
        uuid_v7_text(offer->id);
        Devopsgenie__Internal__KeyMade made = DEVOPSGENIE__INTERNAL__KEY_MADE__INIT;
        made.agent_id = session->agent_id;
        made.session_epoch = session->epoch;
        made.agent_key_id = offer->id;
        made.key_prefix = arena_alloc(&offer->arena, sizeof prefix);
        made.secret_sha256.data = arena_alloc(&offer->arena, sizeof hash);
        made.secret_sha256.len = sizeof hash;
        bool good = made.key_prefix && made.secret_sha256.data &&
                    api_key_make(agent_key_scheme, offer->key, prefix, hash);
        if (good) {
                memcpy(made.key_prefix, prefix, sizeof prefix);
                memcpy(made.secret_sha256.data, hash, sizeof hash);
                good = channel_submit(session->channel, &offer->operation, &offer->arena, INTERNAL_OFFER_KEY,
                        &made.base, session->organization_id, done);
        }
        if (!good)
                drop(offer);
}
