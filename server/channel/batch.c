#include "server/channel/batch.h"

#include "server/channel/channel_private.h"
#include "server/log.h"
#include "server/rpc/server.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LOADS_MAX = 64, ARENA_MAX = 3 * LOAD_BYTES, PARAMETERS_MAX = 4 * LOAD_BYTES, AGAIN_MS = 500, TRIES_MAX = 5 };

static void drop_load(struct load *load) {
        if (!load)
                return;
        struct load *whole = load->whole;
        for (unsigned i = 0; i < load->count; i++)
                if (load->sessions[i])
                        session_release(load->sessions[i]);
        if (load != whole)
                free(load);
        if (--whole->parts)
                return;
        arena_drop(&whole->arena, /* wipe= */ false);
        free(whole);
}

static struct load *new_load(struct batch *batch) {
        struct load *load = batch->load_count < LOADS_MAX ? calloc(1, sizeof *load) : NULL;
        if (!load)
                return NULL;
        arena_init(&load->arena, ARENA_MAX);
        load->whole = load;
        load->parts = 1;
        assert(!batch->first == !batch->last);
        if (batch->first)
                batch->last->next = load;
        else
                batch->first = load;
        batch->last = load;
        batch->load_count++;
        return load;
}

void *batch_add(
        struct batch *batch, struct session *session, const ProtobufCMessageDescriptor *descriptor, size_t bytes) {
        struct load *load = batch->first ? batch->last : NULL;
        if (!load || load->count == LOAD_ITEMS || load->bytes + bytes > LOAD_BYTES)
                load = new_load(batch);
        ProtobufCMessage *item = load ? arena_alloc(&load->arena, descriptor->sizeof_message) : NULL;
        if (!item)
                return NULL;
        protobuf_c_message_init(descriptor, item);
        load->bytes += bytes;
        load->items[load->count] = item;
        load->sessions[load->count++] = session;
        if (session)
                session_hold(session);
        return item;
}

// The memory of a load is three times what it may hold, so that this does not fail; if it does, the text is empty.
void *batch_bytes(struct batch *batch, const void *data, size_t size) {
        char *copy = arena_copy(&batch->last->arena, data, size);
        return copy ? copy : arena_alloc(&batch->last->arena, 1);
}

char *batch_text(struct batch *batch, const char *text) { return batch_bytes(batch, text, strlen(text)); }

void *batch_add_part(struct batch *batch, size_t size) { return arena_alloc(&batch->last->arena, size); }

Google__Protobuf__Duration *batch_duration(struct batch *batch, const Google__Protobuf__Duration *duration) {
        Google__Protobuf__Duration *copy = duration ? batch_add_part(batch, sizeof *copy) : NULL;
        if (copy) {
                google__protobuf__duration__init(copy);
                copy->seconds = duration->seconds;
                copy->nanos = duration->nanos;
        }
        return copy;
}

static void set_items(ProtobufCMessage *container, struct load *load) {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
                container->descriptor, "items");
        char *at = (char *)container;
        *(size_t *)(void *)(at + field->quantifier_offset) = load->count;
        *(ProtobufCMessage ***)(void *)(at + field->offset) = load->items;
}

static void done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result);

enum submission { SUBMITTED, NOT_NOW, UNFIT };

static enum submission submit(struct batch *batch) {
        struct channel *channel = batch->channel;
        const struct binding *binding = channel_binding(channel, batch->statement);
        const char *field = NULL, *reason = NULL;
        set_items(batch->container, batch->sent);
        arena_init(&batch->parameters, PARAMETERS_MAX);
        enum binding_status status = binding_parameters(binding, batch->container,
                &(struct binding_values){.organization_id = ""}, &batch->parameters, &batch->operation.parameters,
                &field, &reason);
        if (status != BINDING_OK) { // what sessions hand in is checked before
                log_event("error", "message", "a batch does not bind", "field", field ? field : "", NULL);
                return UNFIT;
        }
        batch->operation.statement = binding_statement(binding);
        batch->operation.organization_id = "";
        batch->operation.caller = "system";
        batch->operation.method = CHANNEL_METHOD;
        batch->operation.request_id = "";
        batch->operation.done = done;
        return storage_submit(channel->config.storage, &batch->operation) ? SUBMITTED : NOT_NOW;
}

static void forget_sent(struct batch *batch) {
        drop_load(batch->sent);
        batch->sent = NULL;
        batch->load_count--;
}

static void put_first(struct batch *batch, struct load *load) {
        load->next = batch->first;
        batch->first = load;
        if (!batch->last)
                batch->last = load;
}

// What was to be sent is the first again.
static void put_back(struct batch *batch) {
        put_first(batch, batch->sent);
        batch->sent = NULL;
}

// Where a load can be parted between messages of two sessions, near its middle; 0: they are all of one.
static unsigned middle_of(const struct load *load) {
        unsigned middle = load->count / 2;
        for (unsigned far = 0; far <= middle; far++)
                for (unsigned i = middle - far; i <= middle + far; i += far ? 2 * far : 1)
                        if (i && i < load->count && load->sessions[i] != load->sessions[i - 1])
                                return i;
        return 0;
}

// What cannot be done is tried in parts, and not for ever: whose message it is has its session ended, and says it again
// in the next.
static void part_or_end(struct batch *batch) {
        struct load *load = batch->sent;
        unsigned middle = middle_of(load);
        struct load *rest = middle ? calloc(1, sizeof *rest) : NULL;
        if (!rest) {
                for (unsigned i = 0; i < load->count; i++)
                        if (load->sessions[i])
                                session_end(
                                        load->sessions[i], CODE_INTERNAL, "INTERNAL", "PROTOCOL", "an internal error");
                forget_sent(batch);
                return;
        }
        rest->whole = load->whole;
        rest->whole->parts++;
        rest->count = load->count - middle;
        memcpy(rest->items, load->items + middle, rest->count * sizeof *rest->items);
        memcpy(rest->sessions, load->sessions + middle, rest->count * sizeof(struct session *));
        load->count = middle;
        load->bytes = rest->bytes = LOAD_BYTES + 1; // nothing more goes into them
        batch->load_count++;
        put_first(batch, rest);
        put_back(batch);
}

void batch_send(struct batch *batch, bool empty) {
        if (batch->sent || (batch->again && now_ns() < batch->again) || batch->channel->stopped)
                return;
        if (!batch->first && empty)
                new_load(batch);
        while (!batch->sent && batch->first) {
                batch->sent = batch->first;
                batch->first = batch->sent->next;
                if (!batch->first)
                        batch->last = NULL;
                enum submission submission = submit(batch);
                if (submission == SUBMITTED)
                        return;
                arena_drop(&batch->parameters, /* wipe= */ false);
                if (submission == UNFIT) { // and so are the next ones sent
                        part_or_end(batch);
                        continue;
                }
                put_back(batch); // the lane is full: it stays the first
                batch->again = now_ns() + AGAIN_MS * INT64_C(1000000);
                return;
        }
}

// Whether the same may succeed later. A deadlock with a call of somebody's ends as soon as one of them starts anew;
// what is too large (54) stays so.
static bool may_pass(enum storage_outcome outcome, const PGresult *result) {
        const char *state = outcome == STORAGE_REFUSED ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : "";
        return outcome != STORAGE_REFUSED ||
               (state && (!strncmp(state, "40", 2) || (*state == '5' && strncmp(state, "54", 2))));
}

// On the storage thread.
static void done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct batch *batch = (struct batch *)(void *)operation;
        struct channel *channel = batch->channel;
        pthread_mutex_lock(&channel->mutex);
        arena_drop(&batch->parameters, /* wipe= */ false);
        if (outcome != STORAGE_OK && may_pass(outcome, result) && !channel->stopped) {
                // Ahead of what came later, in a moment.
                put_back(batch);
                batch->again = batch->failures++ < TRIES_MAX && outcome == STORAGE_REFUSED
                                       ? 0
                                       : now_ns() + AGAIN_MS * INT64_C(1000000);
        } else {
                batch->failures = 0;
                batch->again = 0;
                if (outcome == STORAGE_OK)
                        batch->done(channel, batch->sent, result);
                if (outcome == STORAGE_REFUSED) {
                        log_event("error", "message", "a statement of the task channel failed", "statement",
                                operation->statement->name, "error", PQresultErrorMessage(result), NULL);
                        part_or_end(batch);
                } else
                        forget_sent(batch);
        }
        batch_send(batch, /* empty= */ false);
        channel_settle(channel);
        pthread_mutex_unlock(&channel->mutex);
}

void batch_drop(struct batch *batch) {
        for (struct load *next; batch->first; batch->first = next) {
                next = batch->first->next;
                drop_load(batch->first);
        }
}
