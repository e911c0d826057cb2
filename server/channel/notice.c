// Hints between replicas: what has changed, as PostgreSQL's notifications, one channel for each replica. One statement
// is under way at a time; what comes meanwhile goes with the next. A payload is a list of `ORGANIZATION CHANGES
// [AGENT];`, or `*` where the list would be too long.
#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "storage/uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOTICE_ARENA = 1 << 20 };

void notice_add(struct channel *channel, unsigned changes, const char *organization_id, const char *agent_id) {
        char entry[100];
        if (!channel->replica_count || !strcmp(channel->notice, "*"))
                return;
        int size = snprintf(entry, sizeof entry, "%s %u %s;", organization_id, changes, agent_id ? agent_id : "");
        if (strstr(channel->notice, entry))
                return;
        if (channel->notice_size + (size_t)size < sizeof channel->notice) {
                memcpy(channel->notice + channel->notice_size, entry, (size_t)size + 1);
                channel->notice_size += (size_t)size;
        } else {
                memcpy(channel->notice, "*", 2);
                channel->notice_size = 1;
        }
}

static void sent(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        (void)result;
        (void)outcome; // a hint that is lost is made up for by the others' own looks
        struct channel *channel = errand_done(operation);
        notice_send(channel);
        pthread_mutex_unlock(&channel->mutex);
}

void notice_send(struct channel *channel) {
        if (!channel->notice_size || channel->notices.under_way || channel->stopped)
                return;
        Devopsgenie__Internal__Notices notices = DEVOPSGENIE__INTERNAL__NOTICES__INIT;
        struct arena *arena = &channel->notices.arena;
        arena_init(arena, NOTICE_ARENA);
        notices.channels = arena_alloc(arena, channel->replica_count * sizeof(char *));
        for (unsigned i = 0; notices.channels && i < channel->replica_count; i++)
                notices.channels[notices.n_channels++] = arena_printf(arena, "genie_%s", channel->replicas[i]);
        notices.payload = arena_copy(arena, channel->notice, channel->notice_size);
        if (notices.channels && notices.payload)
                errand_send(&channel->notices, INTERNAL_NOTIFY, &notices.base, sent);
        else
                arena_drop(arena, /* wipe= */ false);
        channel->notice_size = 0;
        channel->notice[0] = 0;
}

static void take_entry(struct channel *channel, const char *entry) {
        char organization_id[UUID_SIZE], *end;
        size_t size = strcspn(entry, " ");
        if (size != UUID_SIZE - 1)
                return;
        memcpy(organization_id, entry, size);
        organization_id[size] = 0;
        unsigned changes = (unsigned)strtoul(entry + size, &end, 10);
        channel_note(channel, changes, organization_id, *end == ' ' && end[1] ? end + 1 : NULL, /* tell= */ false);
}

void notice_heard(void *context, const char *payload) {
        struct channel *channel = context;
        pthread_mutex_lock(&channel->mutex);
        if (!payload || !strcmp(payload, "*")) {
                channel->look_everywhere = true;
        } else {
                char *copy = strdup(payload), *save = NULL;
                for (char *entry = copy ? strtok_r(copy, ";", &save) : NULL; entry; entry = strtok_r(NULL, ";", &save))
                        take_entry(channel, entry);
                free(copy);
        }
        channel_settle(channel);
        pthread_mutex_unlock(&channel->mutex);
}
