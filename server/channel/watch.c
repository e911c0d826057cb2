// Streams that wait for something: ReadTaskLog, WatchTasks, WatchAgents. Each reads on with one statement at a time,
// when somebody says that there may be more and the caller has read what it was sent.
#include "server/channel/session_private.h"
#include "server/rpc/server.h"
#include "storage/row.h"

#include <devopsgenie/v1/agent_service.pb-c.h>
#include <devopsgenie/v1/task_service.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Devopsgenie__V1__ReadTaskLogRequest LogRequest;
typedef Devopsgenie__V1__ReadTaskLogResponse LogResponse;

static const int64_t HOLD_NS = 100000000;
enum { POSITION_SIZE = 24, TEXT_SIZE = 1100, PIECE_MAX = 65536, NUMBER_SIZE = 24 };

struct watch {
        struct watcher watcher; // first
        void (*look)(struct call *call);
        bool looking, sending, again; // a statement is under way; the caller reads; there may be more
        int64_t hold;                 // not looked at before this time; CLOCK_MONOTONIC nanoseconds
        // Events: where the last one was.
        char position[POSITION_SIZE], sequence[NUMBER_SIZE], task[UUID_SIZE];
        bool told; // the first message
        // Logs.
        int32_t attempt;
        int64_t offsets[LOG_PARTS];
        char numbers[4][NUMBER_SIZE];
};

// --- What all of them do ---

void watchers_wake(struct organization *organization, unsigned changes) {
        for (struct watcher *watcher = organization->watchers; watcher; watcher = watcher->next)
                if (watcher->wants & changes)
                        stream_wake(watcher->call);
}

static void lock(struct call *call) { pthread_mutex_lock(&server_channel(call->server)->mutex); }

static void unlock(struct call *call) { pthread_mutex_unlock(&server_channel(call->server)->mutex); }

static struct watch *join(struct call *call, unsigned wants, void (*look)(struct call *call)) {
        struct watch *watch = arena_alloc(&call->arena, sizeof *watch);
        if (!watch)
                return NULL;
        watch->look = look;
        watch->watcher.call = call;
        watch->watcher.wants = wants;
        lock(call);
        struct organization *organization = organization_have(
                server_channel(call->server), call->principal.organization_id);
        if (organization) {
                watch->watcher.organization = organization;
                watch->watcher.next = organization->watchers;
                watch->watcher.link = &organization->watchers;
                if (watch->watcher.next)
                        watch->watcher.next->link = &watch->watcher.next;
                organization->watchers = &watch->watcher;
        }
        unlock(call);
        call->state = organization ? watch : NULL;
        return call->state;
}

static void leave(struct call *call) {
        struct watch *watch = call->state;
        if (!watch)
                return;
        lock(call);
        *watch->watcher.link = watch->watcher.next;
        if (watch->watcher.next)
                watch->watcher.next->link = watch->watcher.link;
        organization_drop_if_empty(server_channel(call->server), watch->watcher.organization);
        unlock(call);
        call->state = NULL;
}

static void look_if_free(struct call *call) {
        struct watch *watch = call->state;
        if (!watch || watch->looking || watch->sending || !watch->again)
                return;
        if (now_ns() < watch->hold) { // the channel's next turn wakes it again
                lock(call);
                organization_changed(server_channel(call->server), watch->watcher.organization, watch->watcher.wants);
                unlock(call);
                return;
        }
        watch->again = false;
        watch->looking = true;
        stream_forget(call);
        watch->look(call);
}

static void run(struct call *call, enum internal_statement statement, call_query_done *done) {
        if (!call_query(call, statement, NULL, done))
                stream_finish(call);
}

static bool is_draining(struct call *call) {
        lock(call);
        bool draining = server_channel(call->server)->draining;
        unlock(call);
        return draining;
}

static void woken(struct call *call) {
        struct watch *watch = call->state;
        if (!watch)
                return;
        if (is_draining(call)) {
                call_refuse(call, CODE_UNAVAILABLE, "SERVER_STOPPING", "this server stops; go on at another");
                stream_finish(call);
                return;
        }
        watch->again = true;
        look_if_free(call);
}

static void drained(struct call *call) {
        struct watch *watch = call->state;
        if (!watch)
                return;
        watch->sending = false;
        look_if_free(call);
}

static void ignore_half_close(struct call *call) { (void)call; }

static void send(struct call *call, const ProtobufCMessage *message) {
        struct watch *watch = call->state;
        watch->sending = true;
        if (!stream_send(call, message)) // cannot be: a page is shorter than the queue
                stream_finish(call);
}

static void give(struct call *call, unsigned i, const char *text) {
        call->given[i] = (struct storage_value){text, (int)strlen(text)};
}

// --- Events ---

// `POSITION:SEQUENCE`, both decimal.
static bool read_token(struct watch *watch, const char *token) {
        size_t position = strspn(token, "0123456789"), sequence;
        if (!position || position >= POSITION_SIZE - 4 || token[position] != ':')
                return false;
        sequence = strspn(token + position + 1, "0123456789");
        if (!sequence || sequence > 18 || token[position + 1 + sequence])
                return false;
        memcpy(watch->position, token, position);
        memcpy(watch->sequence, token + position + 1, sequence + 1);
        return true;
}

static void start_events(struct call *call, struct watch *watch, const char *token) {
        if (!watch) {
                call_refuse(call, CODE_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
        } else if (*token && !read_token(watch, token)) {
                call_refuse_field(call, "resume_token", "is not the resume_token of a message of this stream");
        } else {
                if (!*token) { // from now on: behind the last event that the first look sees
                        memcpy(watch->position, "0", 2);
                        memcpy(watch->sequence, "0", 2);
                }
                watch->told = *token != 0;
                watch->again = true;
                look_if_free(call);
                return;
        }
        stream_finish(call);
}

static void give_position(struct call *call) {
        struct watch *watch = call->state;
        // Nothing is above the highest position: the first look learns alone where the last event is.
        give(call, 0, watch->told ? watch->position : "18446744073709551615");
        give(call, 1, watch->sequence);
}

static void token_of(const char *position, const char *sequence, char ret_token[POSITION_SIZE + NUMBER_SIZE]) {
        snprintf(ret_token, POSITION_SIZE + NUMBER_SIZE, "%s:%s", position, sequence);
}

// The watch goes on at a row's event. A position is always that of an event, which is durable; a transaction's that
// wrote none may be given to another one after PostgreSQL's crash.
static void move_to(struct watch *watch, const PGresult *result, int row, const char *position, const char *sequence) {
        row_text(result, row, position, watch->position, sizeof watch->position);
        snprintf(watch->sequence, sizeof watch->sequence, "%lld", (long long)row_int(result, row, sequence));
}

// A position that no event of this database can have had yet.
static bool is_ahead(const struct watch *watch, const PGresult *result) {
        char bound[POSITION_SIZE];
        row_text(result, 0, "bound", bound, sizeof bound);
        return strtoull(watch->position, NULL, 10) >= strtoull(bound, NULL, 10);
}

// Takes over a page of events. The rows' positions are the watch's from then on.
static void take_events(struct call *call, PGresult *result, void (*tell)(struct call *, PGresult *, int row)) {
        struct watch *watch = call->state;
        if (!watch)
                return; // the caller has gone meanwhile
        watch->looking = false;
        if (!watch->told) {
                watch->told = true;
                move_to(watch, result, 0, "last_position", "last_sequence");
                tell(call, result, -1);
                watch->again = true;
        } else if (!PQgetisnull(result, 0, PQfnumber(result, "position"))) {
                for (int row = 0; row < PQntuples(result); row++) {
                        move_to(watch, result, row, "position", "sequence");
                        tell(call, result, row);
                }
                watch->again = true;
        } else if (is_ahead(watch, result)) {
                call_refuse(call, CODE_OUT_OF_RANGE, "RESUME_TOKEN_AHEAD",
                        "the resume_token is of another database, or of a later time of this one: list, and watch from "
                        "now on");
                stream_finish(call);
                return;
        } else {
                // Others' events that were passed over are not looked at again.
                move_to(watch, result, 0, "last_position", "last_sequence");
                if (row_bool(result, 0, "more_comes")) { // behind a transaction that still runs: soon
                        watch->hold = now_ns() + HOLD_NS;
                        lock(call);
                        organization_changed(
                                server_channel(call->server), watch->watcher.organization, watch->watcher.wants);
                        unlock(call);
                }
        }
        look_if_free(call);
}

static Google__Protobuf__Timestamp time_of(const PGresult *result, int row, const char *column) {
        Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        int64_t microseconds = row_unix_microseconds(result, row, column);
        time.seconds = microseconds / 1000000;
        time.nanos = (int32_t)(microseconds % 1000000 * 1000);
        return time;
}

// --- WatchTasks ---

static int state_number(const PGresult *result, int row, const char *column) {
        char name[40];
        row_text(result, row, column, name, sizeof name);
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(
                &devopsgenie__v1__task__state__descriptor, name);
        return value ? value->value : 0;
}

static void tell_task(struct call *call, PGresult *result, int row) {
        const struct watch *watch = call->state;
        Devopsgenie__V1__WatchTasksResponse event = DEVOPSGENIE__V1__WATCH_TASKS_RESPONSE__INIT;
        Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        char token[POSITION_SIZE + NUMBER_SIZE], task[UUID_SIZE], name[TASK_NAME], reason[TEXT_SIZE], actor[TEXT_SIZE];
        token_of(watch->position, watch->sequence, token);
        event.resume_token = token;
        if (row >= 0) {
                row_uuid(result, row, "task_id", task);
                snprintf(name, sizeof name, "organizations/%s/tasks/%s", call->principal.organization_slug, task);
                row_text(result, row, "reason", reason, sizeof reason);
                row_text(result, row, "actor", actor, sizeof actor);
                time = time_of(result, row, "event_time");
                event.task = name;
                event.from_state = (Devopsgenie__V1__Task__State)state_number(result, row, "from_state");
                event.to_state = (Devopsgenie__V1__Task__State)state_number(result, row, "to_state");
                event.attempt = (int32_t)row_int(result, row, "attempt");
                event.reason = reason;
                event.actor = actor;
                event.event_time = &time;
        }
        send(call, &event.base);
}

static void task_events_read(struct call *call, PGresult *result) { take_events(call, result, tell_task); }

static void look_for_task_events(struct call *call) {
        const struct watch *watch = call->state;
        give_position(call);
        give(call, 2, watch->task);
        run(call, INTERNAL_WATCH_TASKS, task_events_read);
}

static void watch_tasks(struct call *call, ProtobufCMessage *message) {
        const Devopsgenie__V1__WatchTasksRequest *request = (const void *)message;
        struct watch *watch = join(call, CHANGE_EVENTS, look_for_task_events);
        if (watch && *request->task && !task_named(call->principal.organization_slug, request->task, watch->task)) {
                call_refuse_field(
                        call, "task", "is no organizations/%s/tasks/{task}", call->principal.organization_slug);
                stream_finish(call);
                return;
        }
        start_events(call, watch, request->resume_token);
}

extern const struct stream_handler task_service_watch_tasks;
const struct stream_handler task_service_watch_tasks = {
        .message = watch_tasks, .half_closed = ignore_half_close, .woken = woken, .drained = drained, .closed = leave};

// --- WatchAgents ---

static void tell_agent(struct call *call, PGresult *result, int row) {
        const struct watch *watch = call->state;
        Devopsgenie__V1__WatchAgentsResponse event = DEVOPSGENIE__V1__WATCH_AGENTS_RESPONSE__INIT;
        Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        char token[POSITION_SIZE + NUMBER_SIZE], agent[UUID_SIZE], name[TASK_NAME], reason[TEXT_SIZE];
        token_of(watch->position, watch->sequence, token);
        event.resume_token = token;
        if (row >= 0) {
                row_uuid(result, row, "agent_id", agent);
                snprintf(name, sizeof name, "organizations/%s/agents/%s", call->principal.organization_slug, agent);
                row_text(result, row, "reason", reason, sizeof reason);
                time = time_of(result, row, "event_time");
                event.agent = name;
                event.event = (Devopsgenie__V1__WatchAgentsResponse__Event)row_int(result, row, "event");
                event.reason = reason;
                event.event_time = &time;
        }
        send(call, &event.base);
}

static void agent_events_read(struct call *call, PGresult *result) { take_events(call, result, tell_agent); }

static void look_for_agent_events(struct call *call) {
        give_position(call);
        run(call, INTERNAL_WATCH_AGENTS, agent_events_read);
}

static void watch_agents(struct call *call, ProtobufCMessage *message) {
        const Devopsgenie__V1__WatchAgentsRequest *request = (const void *)message;
        start_events(call, join(call, CHANGE_EVENTS, look_for_agent_events), request->resume_token);
}

extern const struct stream_handler agent_service_watch_agents;
const struct stream_handler agent_service_watch_agents = {
        .message = watch_agents, .half_closed = ignore_half_close, .woken = woken, .drained = drained, .closed = leave};

// --- ReadTaskLog ---

static bool wants_part(const LogRequest *request, int part) {
        return request->stream == DEVOPSGENIE__V1__LOG_STREAM__LOG_STREAM_UNSPECIFIED ||
               (int)request->stream == part + 1;
}

// Sends a piece from where the caller is in it. One that does not follow has been overtaken by retention: it is skipped
// to, since what was before is gone.
static void send_piece(struct call *call, const PGresult *result, int row) {
        struct watch *watch = call->state;
        LogResponse piece = DEVOPSGENIE__V1__READ_TASK_LOG_RESPONSE__INIT;
        int part = (int)row_int(result, row, "stream") - 1, field = PQfnumber(result, "data");
        int64_t begin = row_int(result, row, "log_offset"), size = PQgetlength(result, row, field);
        int64_t known = watch->offsets[part] > begin ? watch->offsets[part] - begin : 0;
        if (known >= size)
                return;
        piece.attempt = watch->attempt;
        piece.stream = (Devopsgenie__V1__LogStream)(part + 1);
        piece.offset = begin + known;
        piece.data.data = (uint8_t *)PQgetvalue(result, row, field) + known;
        piece.data.len = (size_t)(size - known);
        watch->offsets[part] = begin + size;
        send(call, &piece.base);
}

// Rows are sorted by part and offset; the parts are merged by time. A part whose page is full may go on before what the
// other has later: it ends there.
static unsigned send_pieces(struct call *call, const PGresult *result) {
        enum { PAGE = 16 };
        int count = PQntuples(result), second = 0, sent = 0, stream = PQfnumber(result, "stream");
        if (!count || PQgetisnull(result, 0, stream))
                return 0;
        while (second < count && row_int(result, second, "stream") == 1)
                second++;
        for (int a = 0, b = second; a < second || b < count; sent++) {
                bool first = b == count || (a < second && row_unix_microseconds(result, a, "log_time") <=
                                                                  row_unix_microseconds(result, b, "log_time"));
                if ((a == second && second == PAGE) || (b == count && count - second == PAGE))
                        break;
                send_piece(call, result, first ? a++ : b++);
        }
        return (unsigned)sent;
}

// What follows a look that found no more pieces.
static void end_or_wait(struct call *call, const PGresult *result) {
        const LogRequest *request = (const void *)call->request;
        struct watch *watch = call->state;
        bool attempt_over = row_bool(result, 0, "started") && row_bool(result, 0, "attempt_ended") &&
                            !row_bool(result, 0, "more_comes");
        int64_t next_attempt = row_int(result, 0, "next_attempt");
        for (int part = 0; part < LOG_PARTS; part++) {
                int64_t end = row_int(result, 0, part ? "stderr_offset" : "stdout_offset");
                if (wants_part(request, part) && watch->offsets[part] > end && (attempt_over || !request->follow))
                        call_refuse(
                                call, CODE_OUT_OF_RANGE, "OFFSET_BEYOND_END", "the log ends at %lld", (long long)end);
        }
        if (call->refusal.code != CODE_OK || !request->follow || (attempt_over && request->attempt)) {
                stream_finish(call);
        } else if (attempt_over && next_attempt) {
                watch->attempt = (int32_t)next_attempt;
                memset(watch->offsets, 0, sizeof watch->offsets);
                watch->again = true;
        } else if ((attempt_over || !watch->attempt) && row_bool(result, 0, "task_ended"))
                stream_finish(call);
}

static void log_read(struct call *call, PGresult *result) {
        const LogRequest *request = (const void *)call->request;
        struct watch *watch = call->state;
        if (!watch)
                return; // the caller has gone meanwhile
        watch->looking = false;
        if (!PQntuples(result)) {
                call_refuse(call, CODE_NOT_FOUND, "NOT_FOUND", "there is no %s", call->name);
                call->refusal.about_resource = true;
                stream_finish(call);
                return;
        }
        if (request->attempt && !row_bool(result, 0, "started")) {
                call_refuse(call, CODE_OUT_OF_RANGE, "ATTEMPT_UNKNOWN", "attempt %d has not been started",
                        request->attempt);
                stream_finish(call);
                return;
        }
        watch->attempt = (int32_t)row_int(result, 0, "attempt");
        if (send_pieces(call, result))
                watch->again = true;
        else
                end_or_wait(call, result);
        look_if_free(call);
}

static void look_at_log(struct call *call) {
        const LogRequest *request = (const void *)call->request;
        struct watch *watch = call->state;
        snprintf(watch->numbers[0], NUMBER_SIZE, "%d", watch->attempt);
        snprintf(watch->numbers[1], NUMBER_SIZE, "%d", (int)request->stream);
        snprintf(watch->numbers[2], NUMBER_SIZE, "%lld", (long long)watch->offsets[0]);
        snprintf(watch->numbers[3], NUMBER_SIZE, "%lld", (long long)watch->offsets[1]);
        for (unsigned i = 0; i < 4; i++)
                give(call, i, watch->numbers[i]);
        run(call, INTERNAL_READ_TASK_LOG, log_read);
}

static void read_log(struct call *call, ProtobufCMessage *message) {
        const LogRequest *request = (const void *)message;
        if (request->offset && request->stream == DEVOPSGENIE__V1__LOG_STREAM__LOG_STREAM_UNSPECIFIED) {
                call_refuse_field(call, "offset", "needs a stream: each part of a log has offsets of its own");
                stream_finish(call);
                return;
        }
        struct watch *watch = join(call, CHANGE_LOGS | CHANGE_EVENTS, look_at_log);
        if (!watch) {
                call_refuse(call, CODE_RESOURCE_EXHAUSTED, "OVERLOADED", "out of memory");
                stream_finish(call);
                return;
        }
        watch->attempt = request->attempt;
        watch->offsets[0] = wants_part(request, 0) ? request->offset : 0;
        watch->offsets[1] = wants_part(request, 1) ? request->offset : 0;
        watch->again = true;
        look_if_free(call);
}

extern const struct stream_handler task_service_read_task_log;
const struct stream_handler task_service_read_task_log = {
        .message = read_log, .half_closed = ignore_half_close, .woken = woken, .drained = drained, .closed = leave};
