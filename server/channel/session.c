#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "storage/row.h"
#include "storage/uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        UNANSWERED_MAX = 64,
        MESSAGES_A_SECOND = 1000,
        RENEWALS_A_MESSAGE = 20,    // attempts that a LeaseRenew lists count like messages
        UNREAD_MAX = 256,           // who has so many messages before it is not listened to
        UNREAD_BYTES_MAX = 1 << 20, // or gets no offers
        STEP_MAX = 800,
        RETRY_OVERLOADED_MS = 5000,
};

// The ways of an attempt; what is not here does not happen.
static const bool attempt_ways[ATTEMPT_STATES][ATTEMPT_STATES] = {
        [ATTEMPT_OFFERED] = {[ATTEMPT_STARTING] = true},
        [ATTEMPT_STARTING] = {[ATTEMPT_RUNNING] = true},
        [ATTEMPT_RUNNING] = {[ATTEMPT_ENDED] = true},
};

void attempt_move(struct session *session, struct attempt *attempt, enum attempt_state state) {
        assert(attempt_ways[attempt->state][state]);
        attempt->state = state;
        session->ended_count += state == ATTEMPT_ENDED;
}

// --- Its life ---

void session_hold(struct session *session) { session->references++; }

void session_release(struct session *session) {
        if (--session->references)
                return;
        for (unsigned i = 0; i < session->attempt_count; i++)
                free(session->attempts[i].step);
        free(session->attempts);
        free(session);
}

void session_post(struct session *session, PlatformMessage *message) {
        if (!session->call || session->end.reason)
                return;
        message->seq = ++session->seq_sent;
        message->ack_seq = session->seq_taken;
        if (!stream_post(session->call, &message->base))
                session_end(session, CODE_RESOURCE_EXHAUSTED, "READER_TOO_SLOW", "PROTOCOL",
                        "the agent does not read what it is sent");
}

void session_end(struct session *session, enum code code, const char *reason, const char *told, const char *message) {
        if (!session->call || session->end.reason)
                return;
        session->end.code = code;
        session->end.reason = reason;
        session->end.told = told;
        session->end.message = message;
        session->end.time = now_ns();
        stream_wake(session->call);
}

void session_retry_later(struct session *session, int64_t after_ms, const char *reason) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__RetryLater later = DEVOPSGENIE__V1__RETRY_LATER__INIT;
        Google__Protobuf__Duration after = duration_of(after_ms);
        later.after = &after;
        later.reason = (char *)(uintptr_t)reason;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_RETRY_LATER;
        message.retry_later = &later;
        session_post(session, &message);
}

void session_overload(struct session *session) {
        session_retry_later(session, RETRY_OVERLOADED_MS, "OVERLOADED");
        session_end(session, CODE_UNAVAILABLE, "OVERLOADED", "PROTOCOL", "too much waits for the database");
}

void session_drain(struct session *session, int64_t reconnect_in_ms, int64_t deadline_ms) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__Drain drain = DEVOPSGENIE__V1__DRAIN__INIT;
        Google__Protobuf__Duration reconnect_in = duration_of(reconnect_in_ms), deadline = duration_of(deadline_ms);
        drain.reconnect_in = &reconnect_in;
        drain.deadline = &deadline;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_DRAIN;
        message.drain = &drain;
        session_post(session, &message);
}

void session_supersede(struct session *session, int64_t epoch) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__Superseded superseded = DEVOPSGENIE__V1__SUPERSEDED__INIT;
        superseded.session_epoch = epoch;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_SUPERSEDED;
        message.superseded = &superseded;
        session_post(session, &message);
        session_end(session, CODE_ABORTED, "SUPERSEDED", "SUPERSEDED", "a newer instance of the agent has connected");
}

void session_second(struct session *session, int64_t now) {
        int64_t oldest = now - (int64_t)(session->channel->config.offer_ms + SECOND_MS) * 1000000;
        for (unsigned i = 0; i < session->attempt_count; i++)
                if (session->attempts[i].state == ATTEMPT_OFFERED && session->attempts[i].offer_time < oldest)
                        attempt_forget(session, &session->attempts[i--]);
        session->budget = MESSAGES_A_SECOND;
        if (session->paused && session->call && session_wants_message(session))
                stream_wake(session->call);
}

bool session_is_behind(const struct session *session) {
        return session->call && stream_backlog(session->call).messages > UNREAD_MAX;
}

bool session_wants_message(const struct session *session) {
        return session->budget > 0 && session->unanswered < UNANSWERED_MAX && !session->end.reason &&
               !(session->result && session->before_result) && !session_is_behind(session);
}

void session_answered(struct session *session) {
        session->unanswered--;
        if (session->paused && session->call && session_wants_message(session))
                stream_wake(session->call);
}

// --- Its attempts ---

struct attempt *attempt_find(struct session *session, const char *task, int32_t number, int64_t fence) {
        for (unsigned i = 0; i < session->attempt_count; i++) {
                struct attempt *attempt = &session->attempts[i];
                if (attempt->number == number && attempt->fence == fence && !strcmp(attempt->task, task))
                        return attempt;
        }
        return NULL;
}

void attempt_forget(struct session *session, struct attempt *attempt) {
        session->ended_count -= attempt->state == ATTEMPT_ENDED;
        free(attempt->step);
        *attempt = session->attempts[--session->attempt_count];
}

// Of those that have ended the one that came first: what follows of its logs is the most likely to be here already.
static struct attempt *oldest_ended(struct session *session) {
        struct attempt *oldest = NULL;
        for (struct attempt *attempt = session->attempts; attempt < session->attempts + session->attempt_count;
                attempt++)
                if (attempt->state == ATTEMPT_ENDED && (!oldest || attempt->offer_time < oldest->offer_time))
                        oldest = attempt;
        return oldest;
}

// One that has ended makes room, if there is none.
static bool make_room(struct session *session) {
        if (session->attempt_count < session->attempt_room)
                return true;
        if (session->attempt_room == ATTEMPTS_MAX) {
                struct attempt *ended = oldest_ended(session);
                if (ended)
                        attempt_forget(session, ended);
                return ended != NULL;
        }
        unsigned room = session->attempt_room ? 2 * session->attempt_room : 4;
        room = room < ATTEMPTS_MAX ? room : ATTEMPTS_MAX;
        struct attempt *attempts = reallocarray(session->attempts, room, sizeof *attempts);
        if (!attempts)
                return false;
        session->attempts = attempts;
        session->attempt_room = room;
        return true;
}

static struct attempt *attempt_add(struct session *session, const char *task, int32_t number, int64_t fence) {
        if (!make_room(session))
                return NULL;
        struct attempt *attempt = &session->attempts[session->attempt_count++];
        *attempt = (struct attempt){.number = number, .fence = fence};
        memcpy(attempt->task, task, sizeof attempt->task);
        attempt->log[0].end = attempt->log[1].end = LOG_OPEN;
        return attempt;
}

void session_adopt(struct session *session, const char *task, int32_t number, int64_t fence, enum attempt_state state,
        int64_t stdout_offset, int64_t stderr_offset) {
        struct attempt *attempt = attempt_add(session, task, number, fence);
        if (!attempt)
                return;
        attempt->state = state;
        session->ended_count += state == ATTEMPT_ENDED;
        attempt->offer_time = now_ns();
        attempt->log[0].accepted = attempt->log[0].durable = stdout_offset;
        attempt->log[1].accepted = attempt->log[1].durable = stderr_offset;
}

void session_name_task(const struct session *session, const char *task, char ret_name[TASK_NAME]) {
        snprintf(ret_name, TASK_NAME, "organizations/%s/tasks/%s", session->slug, task);
}

void session_post_lost(struct session *session, const char *name, int32_t number, int64_t fence, const char *reason) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__LeaseLost lost = DEVOPSGENIE__V1__LEASE_LOST__INIT;
        lost.task = (char *)(uintptr_t)name;
        lost.attempt = number;
        lost.fence = fence;
        lost.reason = (char *)(uintptr_t)reason;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LEASE_LOST;
        message.lease_lost = &lost;
        session_post(session, &message);
}

void session_lose(struct session *session, const char *task, int32_t number, int64_t fence, const char *reason) {
        char name[TASK_NAME];
        struct attempt *attempt = attempt_find(session, task, number, fence);
        session_name_task(session, task, name);
        if (attempt)
                attempt_forget(session, attempt);
        session_post_lost(session, name, number, fence, reason);
}

// --- Offers ---

int session_free(const struct session *session, int kind) {
        if (!session->call || session->end.reason || session->draining || kind <= 0 || kind >= KINDS ||
                !session->free[kind] || stream_backlog(session->call).bytes > UNREAD_BYTES_MAX)
                return 0;
        int room = (int)(ATTEMPTS_MAX - (session->attempt_count - session->ended_count));
        return session->free[kind] < room ? session->free[kind] : room;
}

// An agent gets what it has said that it can do, whatever it wants then.
static bool can_do(const struct session *session, int kind) {
        for (size_t i = 0; i < session->hello->n_kinds; i++)
                if ((int)session->hello->kinds[i] == kind)
                        return true;
        return false;
}

static void take_credits(struct session *session, const Devopsgenie__V1__Credits *credits, int64_t ack_seq) {
        memset(session->free, 0, sizeof session->free);
        for (size_t i = 0; i < credits->n_free; i++) {
                int kind = (int)credits->free[i]->kind, free = credits->free[i]->free;
                if (kind > 0 && kind < KINDS && can_do(session, kind))
                        session->free[kind] = free < 0 ? 0 : free < ATTEMPTS_MAX ? free : ATTEMPTS_MAX;
        }
        // What was offered behind the last message that the agent had seen is not in its count.
        for (unsigned i = 0; i < session->attempt_count; i++) {
                const struct attempt *attempt = &session->attempts[i];
                if (attempt->offer_seq > ack_seq && session->free[attempt->kind] > 0)
                        session->free[attempt->kind]--;
        }
        dispatch_ask(session);
}

// The elements of an array of text or int4 in PostgreSQL's binary format, without its 20 bytes of header.
struct elements {
        const char *at, *end;
};

static struct elements elements_of(const PGresult *result, int row, const char *column) {
        int field = PQfnumber(result, column);
        const char *data = PQgetvalue(result, row, field);
        int size = PQgetlength(result, row, field);
        return (struct elements){size > 20 ? data + 20 : data, size > 20 ? data + size : data};
}

// The next element's bytes; false at the end.
static bool next_element(struct elements *elements, const char **ret_data, unsigned *ret_size) {
        uint32_t size;
        if (elements->end - elements->at < 4)
                return false;
        memcpy(&size, elements->at, sizeof size);
        *ret_size = be32toh(size);
        *ret_data = elements->at + 4;
        if (*ret_size > (size_t)(elements->end - *ret_data))
                return false;
        elements->at = *ret_data + *ret_size;
        return true;
}

enum { EFFECTS_MAX = 100 };

// The effects of earlier attempts, in memory of the caller's.
static size_t read_effects(
        const PGresult *result, int row, struct arena *arena, Devopsgenie__V1__EffectRecord *ret_records[EFFECTS_MAX]) {
        struct elements keys = elements_of(result, row, "effect_keys"),
                        references = elements_of(result, row, "effect_references"),
                        attempts = elements_of(result, row, "effect_attempts");
        const char *key, *reference, *attempt;
        unsigned key_size, reference_size, attempt_size;
        size_t count = 0;
        while (count < EFFECTS_MAX && next_element(&keys, &key, &key_size) &&
                next_element(&references, &reference, &reference_size) &&
                next_element(&attempts, &attempt, &attempt_size)) {
                Devopsgenie__V1__EffectRecord *record = arena_alloc(arena, sizeof *record);
                if (!record)
                        break;
                devopsgenie__v1__effect_record__init(record);
                uint32_t number = 0;
                memcpy(&number, attempt, sizeof number);
                record->key = arena_copy(arena, key, key_size);
                record->reference = arena_copy(arena, reference, reference_size);
                record->attempt = (int32_t)be32toh(number);
                if (!record->key || !record->reference)
                        break;
                ret_records[count++] = record;
        }
        return count;
}

static void post_offer(struct session *session, const struct attempt *attempt, const PGresult *result, int row) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__TaskAssign assign = DEVOPSGENIE__V1__TASK_ASSIGN__INIT;
        Devopsgenie__V1__EffectRecord *effects[EFFECTS_MAX];
        Google__Protobuf__Duration time_to_live = duration_of(row_int(result, row, "time_to_live_ms"));
        char name[TASK_NAME], key[500];
        struct arena arena;
        arena_init(&arena, 16 << 20);
        int payload = PQfnumber(result, "payload");
        session_name_task(session, attempt->task, name);
        row_text(result, row, "idempotency_key", key, sizeof key);
        assign.task = name;
        assign.attempt = attempt->number;
        assign.fence = attempt->fence;
        assign.kind = (Devopsgenie__V1__TaskKind)attempt->kind;
        assign.payload = (Devopsgenie__V1__TaskPayload *)(void *)protobuf_c_message_unpack(
                &devopsgenie__v1__task_payload__descriptor, arena_protobuf_allocator(&arena),
                (size_t)PQgetlength(result, row, payload), (const uint8_t *)PQgetvalue(result, row, payload));
        assign.idempotency_key = key;
        assign.time_to_live = &time_to_live;
        assign.n_side_effects = read_effects(result, row, &arena, effects);
        assign.side_effects = effects;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_TASK_ASSIGN;
        message.task_assign = &assign;
        session_post(session, &message);
        arena_drop(&arena, /* wipe= */ false);
}

// Where the session has ended meanwhile, the offer lapses.
void session_offer(struct session *session, const PGresult *result, int row) {
        char task[UUID_SIZE];
        row_uuid(result, row, "task_id", task);
        struct attempt *attempt = session->call ? attempt_add(session, task, (int32_t)row_int(result, row, "attempt"),
                                                          row_int(result, row, "fence"))
                                                : NULL;
        if (!attempt)
                return;
        attempt->kind = (int)row_int(result, row, "kind");
        if (attempt->kind <= 0 || attempt->kind >= KINDS)
                attempt->kind = 0;
        if (session->free[attempt->kind] > 0)
                session->free[attempt->kind]--;
        attempt->offer_seq = session->seq_sent + 1;
        attempt->offer_time = now_ns();
        post_offer(session, attempt, result, row);
}

// --- Cancels ---

void session_cancel(
        struct session *session, const char *task, int32_t number, int64_t fence, int mode, int64_t grace_ms) {
        struct attempt *attempt = attempt_find(session, task, number, fence);
        if (attempt && attempt->state == ATTEMPT_STARTING)
                attempt->cancel_early = true; // it is looked for again when the attempt has its StartGrant
        if (!attempt || attempt->state != ATTEMPT_RUNNING ||
                (attempt->cancel_told && attempt->cancel_mode == mode && attempt->cancel_grace_ms == grace_ms))
                return;
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__Cancel cancel = DEVOPSGENIE__V1__CANCEL__INIT;
        Google__Protobuf__Duration grace = duration_of(grace_ms);
        char name[TASK_NAME];
        session_name_task(session, task, name);
        attempt->cancel_told = true;
        attempt->cancel_mode = mode;
        attempt->cancel_grace_ms = grace_ms;
        cancel.task = name;
        cancel.attempt = number;
        cancel.fence = attempt->fence;
        cancel.mode = (Devopsgenie__V1__TaskCancellation__Mode)mode;
        cancel.grace = &grace;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_CANCEL;
        message.cancel = &cancel;
        session_post(session, &message);
}

// --- What it says ---

static void take_progress(struct session *session, const Devopsgenie__V1__Progress *progress) {
        char task[UUID_SIZE];
        struct attempt *attempt = task_named(session->slug, progress->task, task)
                                          ? attempt_find(session, task, progress->attempt, progress->fence)
                                          : NULL;
        if (!attempt)
                return; // there is no answer
        int percent = progress->percent;
        attempt->percent = percent < 0 ? 0 : percent > 100 ? 100 : percent;
        free(attempt->step);
        attempt->step = strndup(progress->step, STEP_MAX);
}

static void take_renewal(struct session *session, const Devopsgenie__V1__LeaseRenew *renewal, int64_t seq) {
        for (size_t i = 0; i < renewal->n_tasks; i++) {
                const Devopsgenie__V1__LeasedTask *leased = renewal->tasks[i];
                char task[UUID_SIZE];
                struct attempt *attempt = task_named(session->slug, leased->task, task)
                                                  ? attempt_find(session, task, leased->attempt, leased->fence)
                                                  : NULL;
                if (!attempt)
                        session_post_lost(session, leased->task, leased->attempt, leased->fence, "FENCED");
                else
                        attempt->renew = attempt->state == ATTEMPT_RUNNING;
        }
        session->renew_seq = seq;
        unsigned cost = (unsigned)renewal->n_tasks / RENEWALS_A_MESSAGE;
        session->budget -= cost < session->budget ? cost : session->budget;
}

static void answer_heartbeat(struct session *session) {
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__Ping ping = DEVOPSGENIE__V1__PING__INIT;
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_PING;
        message.ping = &ping;
        session_post(session, &message);
}

void session_resume(struct session *session) {
        const Devopsgenie__V1__Result *result = session->before_result ? NULL : session->result;
        if (!result)
                return;
        session->result = NULL;
        take_result(session, result);
}

void session_take(struct session *session, const WorkerMessage *message) {
        session->heard = now_ns();
        if (session->budget)
                session->budget--;
        if (message->seq <= session->seq_taken)
                return; // a repetition
        session->seq_taken = message->seq;
        switch (message->part_case) {
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_HELLO:
                session_end(session, CODE_FAILED_PRECONDITION, "HELLO_REPEATED", "PROTOCOL", "a second Hello");
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_CREDITS:
                take_credits(session, message->credits, message->ack_seq);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_TASK_ACK:
                take_ack(session, message->task_ack);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_TASK_REJECT:
                take_rejection(session, message->task_reject);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_LEASE_RENEW:
                take_renewal(session, message->lease_renew, message->seq);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_PROGRESS:
                take_progress(session, message->progress);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_SIDE_EFFECT:
                take_effect(session, message->side_effect);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_LOG_CHUNK:
                take_log(session, message->log_chunk);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_RESULT:
                session->result = message->result;
                session_resume(session);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_CANCEL_ACK:
                take_cancel_answer(session, message->cancel_ack);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_HEARTBEAT:
                answer_heartbeat(session);
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_DRAINING:
                session->draining = true;
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART_GOODBYE:
                session_end(session, CODE_OK, "", "GOODBYE", "");
                break;
        case DEVOPSGENIE__V1__WORKER_MESSAGE__PART__NOT_SET: // a member of a later version
        default:
                break;
        }
}
