// TaskChannelService.Connect: a call's stream becomes a session, and what comes on it goes there.
#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "server/rpc/validate.h"
#include "storage/uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Devopsgenie__V1__Hello Hello;
typedef Devopsgenie__Internal__SessionStart SessionStart;

enum {
        PROTOCOL_VERSION = 1,
        FINISH_SECONDS = 10,
        LOG_CHUNK_MAX = 65536,
        RENEWALS_PER_LEASE = 4,
        BUDGET_FIRST = 1000,
        RETRY_SUPERSEDED_MS = 60000,
        RETRY_DRAINING_MS = 1000,
};

static void finish(struct call *call, enum code code, const char *reason, const char *text) {
        if (code != CODE_OK)
                call_refuse(call, code, reason, "%s", text);
        stream_finish(call);
}

static void lock(struct call *call) { pthread_mutex_lock(&server_channel(call->server)->mutex); }

static void unlock(struct call *call) { pthread_mutex_unlock(&server_channel(call->server)->mutex); }

// --- Hello ---

static bool speaks(const Hello *hello, int version) {
        for (size_t i = 0; i < hello->n_protocol_versions; i++)
                if (hello->protocol_versions[i] == version)
                        return true;
        return false;
}

// The attempts that the agent says it has; those that name no task of its organization are left out, and are UNKNOWN.
static bool list_running(struct call *call, const struct session *session, const Hello *hello, SessionStart *start) {
        start->running = arena_alloc(&call->arena, (hello->n_running + 1) * sizeof *start->running);
        for (size_t i = 0; start->running && i < hello->n_running; i++) {
                Devopsgenie__Internal__Attempt *attempt = arena_alloc(&call->arena, sizeof *attempt);
                char *task = arena_alloc(&call->arena, UUID_SIZE);
                if (!attempt || !task)
                        return false;
                devopsgenie__internal__attempt__init(attempt);
                if (!task_named(session->slug, hello->running[i]->task, task))
                        memcpy(task, "00000000-0000-0000-0000-000000000000", UUID_SIZE);
                attempt->task_id = task;
                attempt->attempt = hello->running[i]->attempt;
                attempt->fence = hello->running[i]->fence;
                start->running[start->n_running++] = attempt;
        }
        return start->running != NULL;
}

static bool copy_map(struct call *call, const Hello *hello, SessionStart *start) {
        start->labels = arena_alloc(&call->arena, (hello->n_labels + 1) * sizeof *start->labels);
        for (size_t i = 0; start->labels && i < hello->n_labels; i++) {
                Devopsgenie__Internal__SessionStart__LabelsEntry *entry = arena_alloc(&call->arena, sizeof *entry);
                if (!entry)
                        return false;
                devopsgenie__internal__session_start__labels_entry__init(entry);
                entry->key = hello->labels[i]->key;
                entry->value = hello->labels[i]->value;
                start->labels[start->n_labels++] = entry;
        }
        return start->labels != NULL;
}

static bool list_kinds(struct call *call, const Hello *hello, SessionStart *start) {
        start->kinds = arena_alloc(&call->arena, (hello->n_kinds + 1) * sizeof *start->kinds);
        for (size_t i = 0; start->kinds && i < hello->n_kinds; i++)
                if (hello->kinds[i] > 0 && (int)hello->kinds[i] < KINDS) // others are a later version's
                        start->kinds[start->n_kinds++] = (int32_t)hello->kinds[i];
        return start->kinds != NULL;
}

static struct session *new_session(struct call *call, const WorkerMessage *message) {
        const struct principal *principal = &call->principal;
        struct session *session = calloc(1, sizeof *session);
        if (!session)
                return NULL;
        session->channel = server_channel(call->server);
        session->call = call;
        session->references = 1; // the call's
        session->hello = message->hello;
        session->seq_taken = message->seq;
        session->budget = BUDGET_FIRST;
        session->heard = now_ns();
        memcpy(session->agent_id, principal->agent_id, UUID_SIZE);
        memcpy(session->agent_key_id, principal->agent_key_id, UUID_SIZE);
        memcpy(session->organization_id, principal->organization_id, UUID_SIZE);
        snprintf(session->slug, sizeof session->slug, "%s", principal->organization_slug);
        return session;
}

// --- Welcome ---

static enum attempt_state state_of(int decision) {
        return decision == DEVOPSGENIE__V1__DISPOSITION__DECISION__CONTINUE  ? ATTEMPT_RUNNING
               : decision == DEVOPSGENIE__V1__DISPOSITION__DECISION__OFFERED ? ATTEMPT_OFFERED
                                                                             : ATTEMPT_ENDED;
}

// One disposition, and where the attempt goes on the session knows it from now on.
static Devopsgenie__V1__Disposition *dispose(struct session *session, const Devopsgenie__V1__RunningTask *running,
        int decision, int64_t stdout_offset, int64_t stderr_offset) {
        struct arena *arena = &session->call->arena;
        Devopsgenie__V1__Disposition *disposition = arena_alloc(arena, sizeof *disposition);
        Devopsgenie__V1__LogOffset *offsets = arena_alloc(arena, LOG_PARTS * sizeof *offsets);
        Devopsgenie__V1__LogOffset **list = arena_alloc(arena, LOG_PARTS * sizeof(Devopsgenie__V1__LogOffset *));
        char task[UUID_SIZE];
        if (!disposition || !offsets || !list)
                return NULL;
        devopsgenie__v1__disposition__init(disposition);
        disposition->task = running->task;
        disposition->attempt = running->attempt;
        disposition->decision = (Devopsgenie__V1__Disposition__Decision)decision;
        if (decision != DEVOPSGENIE__V1__DISPOSITION__DECISION__CONTINUE &&
                decision != DEVOPSGENIE__V1__DISPOSITION__DECISION__RESULT_KNOWN &&
                decision != DEVOPSGENIE__V1__DISPOSITION__DECISION__OFFERED)
                return disposition;
        for (int i = 0; i < LOG_PARTS; i++) {
                devopsgenie__v1__log_offset__init(&offsets[i]);
                offsets[i].stream = i ? DEVOPSGENIE__V1__LOG_STREAM__STDERR : DEVOPSGENIE__V1__LOG_STREAM__STDOUT;
                offsets[i].offset = i ? stderr_offset : stdout_offset;
                list[i] = &offsets[i];
        }
        disposition->log_offsets = list;
        disposition->n_log_offsets = LOG_PARTS;
        if (task_named(session->slug, running->task, task))
                session_adopt(session, task, running->attempt, running->fence, state_of(decision), stdout_offset,
                        stderr_offset);
        return disposition;
}

static void welcome(struct session *session, const Devopsgenie__Internal__SessionStarted *started) {
        const struct channel_config *config = &session->channel->config;
        const Hello *hello = session->hello;
        PlatformMessage message = DEVOPSGENIE__V1__PLATFORM_MESSAGE__INIT;
        Devopsgenie__V1__Welcome part = DEVOPSGENIE__V1__WELCOME__INIT;
        Google__Protobuf__Duration heartbeat = duration_of(config->heartbeat_ms),
                                   silence = duration_of(config->silence_ms), lease = duration_of(config->lease_ms),
                                   renew = duration_of(config->lease_ms / RENEWALS_PER_LEASE),
                                   offer = duration_of(config->offer_ms);
        char token[32];
        snprintf(token, sizeof token, "%lld", (long long)session->epoch);
        part.protocol_version = PROTOCOL_VERSION;
        part.session_epoch = session->epoch;
        part.session_token = token;
        part.heartbeat_interval = &heartbeat;
        part.silence_limit = &silence;
        part.lease = &lease;
        part.renew_interval = &renew;
        part.offer_limit = &offer;
        part.max_log_chunk_bytes = LOG_CHUNK_MAX;
        part.log_window_bytes = config->log_window_bytes;
        part.max_log_bytes = config->max_log_bytes;
        part.dispositions = arena_alloc(
                &session->call->arena, (hello->n_running + 1) * sizeof(Devopsgenie__V1__Disposition *));
        for (size_t i = 0; part.dispositions && i < hello->n_running && i < started->n_decisions; i++) {
                Devopsgenie__V1__Disposition *disposition = dispose(session, hello->running[i], started->decisions[i],
                        started->stdout_offsets[i], started->stderr_offsets[i]);
                if (!disposition)
                        break;
                part.dispositions[part.n_dispositions++] = disposition;
        }
        message.part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_WELCOME;
        message.welcome = &part;
        session_post(session, &message);
}

// --- The session begins ---

static void begin(struct session *session, const Devopsgenie__Internal__SessionStarted *started) {
        struct channel *channel = session->channel;
        session->epoch = started->session_epoch;
        // Of two that began at once, the answer for the newer may have come first.
        int64_t newer = channel_newer(channel, session);
        if (started->superseded) {
                session_retry_later(session, RETRY_SUPERSEDED_MS, "SUPERSEDED");
                session_end(session, CODE_UNAVAILABLE, "SUPERSEDED", "PROTOCOL",
                        "a newer instance of the agent is connected");
                return;
        }
        if (newer) {
                session_supersede(session, newer);
                return;
        }
        if (!channel_enter(channel, session)) {
                session_end(session, CODE_RESOURCE_EXHAUSTED, "OVERLOADED", "PROTOCOL", "out of memory");
                return;
        }
        welcome(session, started);
        if (channel->draining) // since this one said Hello
                session_drain(session, 0, (channel->drain_end - now_ns()) / 1000000);
        if (started->key_offered)
                session_offer_key(session);
        if (session->hello->n_running)
                channel_note(channel, CHANGE_CANCELS, session->organization_id, NULL, /* tell= */ false);
        channel_note(channel, CHANGE_EVENTS, session->organization_id, NULL, /* tell= */ true);
        // An older session of the agent may be another replica's.
        channel_note(channel, CHANGE_AGENTS, session->organization_id, session->agent_id, /* tell= */ true);
        channel_settle(channel);
}

static void opened(struct call *call, PGresult *result) {
        struct session *session = call->state;
        Devopsgenie__Internal__SessionStarted started = DEVOPSGENIE__INTERNAL__SESSION_STARTED__INIT;
        if (!PQntuples(result)) {
                call_refuse(call, CODE_UNAUTHENTICATED, "CREDENTIALS_INVALID", "the credentials are not valid here");
                return;
        }
        if (binding_response(server_binding(call->server, INTERNAL_OPEN_SESSION), result, 1, &call->arena,
                    &started.base) != BINDING_OK) {
                call_fail(call, "open_session");
                return;
        }
        lock(call);
        begin(session, &started);
        unlock(call);
        stream_read(call);
}

static void open(struct call *call, const WorkerMessage *message) {
        struct channel *channel = server_channel(call->server);
        const Hello *hello = message->hello;
        struct session *session = new_session(call, message);
        SessionStart *start = arena_alloc(&call->arena, sizeof *start);
        Google__Protobuf__Duration *lease = arena_alloc(&call->arena, sizeof *lease);
        call->state = session;
        if (!session || !start || !lease) {
                finish(call, CODE_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
                return;
        }
        devopsgenie__internal__session_start__init(start);
        *lease = duration_of(channel->config.lease_ms);
        start->agent_id = session->agent_id;
        start->agent_key_id = session->agent_key_id;
        start->replica_id = channel->replica_id;
        start->instance_id = hello->instance_id;
        start->last_epoch = strtoll(hello->session_token, NULL, 10);
        start->version = hello->version;
        start->lease = lease;
        if (!copy_map(call, hello, start) || !list_kinds(call, hello, start) ||
                !list_running(call, session, hello, start))
                finish(call, CODE_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        else if (!call_query(call, INTERNAL_OPEN_SESSION, &start->base, opened))
                stream_finish(call);
}

static bool is_draining(struct call *call) {
        lock(call);
        bool draining = server_channel(call->server)->draining;
        unlock(call);
        return draining;
}

static void say_hello(struct call *call, const WorkerMessage *message) {
        const Hello *hello = message->part_case == DEVOPSGENIE__V1__WORKER_MESSAGE__PART_HELLO ? message->hello : NULL;
        if (!hello) {
                finish(call, CODE_INVALID_ARGUMENT, "HELLO_MISSING", "the first message must be a Hello");
        } else if (!speaks(hello, PROTOCOL_VERSION)) {
                call_refuse(call, CODE_FAILED_PRECONDITION, "PROTOCOL_UNSUPPORTED",
                        "this server speaks version %d of the protocol, and none of the agent's", PROTOCOL_VERSION);
                call_refusal_metadata(call, "supported", "1");
                stream_finish(call);
        } else if (is_draining(call)) {
                struct session *session = new_session(call, message);
                call->state = session;
                if (session) {
                        lock(call);
                        session_retry_later(session, RETRY_DRAINING_MS, "DRAINING");
                        unlock(call);
                }
                finish(call, CODE_UNAVAILABLE, "DRAINED", "this server stops");
        } else
                open(call, message);
}

// --- The stream ---

static void act(struct call *call) {
        struct session *session = call->state;
        enum { READ, WAIT, END } next;
        lock(call);
        if (!session->end.reason && session->result) {
                session_resume(session);
                channel_settle(session->channel);
        }
        if (session->end.reason) {
                next = END;
        } else {
                session->paused = !session_wants_message(session);
                next = session->paused ? WAIT : READ;
        }
        unlock(call);
        if (next == END)
                finish(call, session->end.code, session->end.reason, session->end.message);
        else if (next == READ)
                stream_read(call);
}

static void message(struct call *call, ProtobufCMessage *received) {
        const WorkerMessage *message = (const WorkerMessage *)(const void *)received;
        struct session *session = call->state;
        if (!session) { // it has been checked
                say_hello(call, message);
                return;
        }
        if (!validate_message(call, call->method->rules, received)) {
                stream_finish(call);
                return;
        }
        lock(call);
        if (!session->end.reason)
                session_take(session, message);
        channel_settle(session->channel);
        unlock(call);
        act(call);
}

static void half_closed(struct call *call) {
        struct session *session = call->state;
        lock(call);
        if (session)
                session_end(session, CODE_OK, "", "CLOSED", "");
        unlock(call);
        if (!session)
                stream_finish(call);
}

static void woken(struct call *call) {
        struct session *session = call->state;
        if (!session)
                return;
        lock(call);
        bool acts = session->paused || session->end.reason;
        unlock(call);
        if (acts)
                act(call);
}

static void drained(struct call *call) {
        struct session *session = call->state;
        if (session && session->paused) // this thread alone writes it
                act(call);
}

static void closed(struct call *call) {
        struct session *session = call->state;
        if (!session)
                return;
        lock(call);
        session->call = NULL;
        session->hello = NULL;
        if (session->organization) {
                channel_note_end(session->channel, session->organization_id, session->agent_id, session->epoch,
                        session->end.reason ? session->end.told : "CLOSED");
                channel_leave(session->channel, session);
                channel_settle(session->channel);
        }
        session_release(session);
        unlock(call);
        call->state = NULL;
}

extern const struct stream_handler task_channel_service_connect;
const struct stream_handler task_channel_service_connect = {.message = message,
        .half_closed = half_closed,
        .woken = woken,
        .drained = drained,
        .closed = closed,
        .patience = FINISH_SECONDS};
