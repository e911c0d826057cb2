// An agent's side of the task channel, as far as it is needed to load a server: it trusts what it is told.
#include "tests/bench/agents.h"

#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Devopsgenie__V1__WorkerMessage WorkerMessage;
typedef Devopsgenie__V1__PlatformMessage PlatformMessage;

uint64_t random_below(struct load *load, uint64_t below) {
        uint64_t z = load->random += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        return (uint64_t)((unsigned __int128)z * below >> 64);
}

// Protobuf-c's strings are not const; nothing writes to them.
static char *text(const char *constant) {
        union {
                const char *in;
                char *out;
        } pointer = {.in = constant};
        return pointer.out;
}

// What is sent on a connection that is broken is lost: its next turn tells.
static bool say(struct agent *agent, WorkerMessage *message) {
        static unsigned char buffer[LOG_CHUNK + 4096];
        message->seq = ++agent->sent;
        message->ack_seq = agent->taken;
        size_t size = devopsgenie__v1__worker_message__get_packed_size(message);
        if (size > sizeof buffer)
                return false;
        devopsgenie__v1__worker_message__pack(message, buffer);
        agent->next = now_ns() + (uint64_t)agent->heartbeat_ns;
        return connection_send(agent->peer.connection, &agent->stream, buffer, size);
}

// --- What comes ---

static uint64_t nanoseconds(const Google__Protobuf__Duration *duration) {
        return duration ? (uint64_t)duration->seconds * 1000000000u + (uint64_t)duration->nanos : 0;
}

static void take_welcome(struct agent *agent, const Devopsgenie__V1__Welcome *welcome) {
        uint64_t heartbeat = nanoseconds(welcome->heartbeat_interval);
        agent->heartbeat_ns = (int64_t)heartbeat;
        agent->renew_ns = (int64_t)nanoseconds(welcome->renew_interval);
        agent->epoch = welcome->session_epoch;
        agent->window = welcome->log_window_bytes;
        agent->state = AGENT_WELCOMED;
        agent->tries = 0;
        agent->credits_changed = agent->load->options.tasks > 0;
        agent->next = now_ns() + random_below(agent->load, heartbeat); // not all at once
        agent->load->connecting--;
        agent->load->welcomed++;
}

static void take_offer(struct agent *agent, const Devopsgenie__V1__TaskAssign *offer) {
        WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        Devopsgenie__V1__TaskAck ack = DEVOPSGENIE__V1__TASK_ACK__INIT;
        struct task *task = task_of_key(agent->load, offer->idempotency_key);
        if (!task || agent->task_count == CREDITS_MAX)
                return;
        snprintf(task->name, sizeof task->name, "%s", offer->task);
        task->attempt = offer->attempt;
        task->fence = offer->fence;
        agent->tasks[agent->task_count++] = task;
        ack.task = task->name;
        ack.attempt = task->attempt;
        ack.fence = task->fence;
        message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_TASK_ACK;
        message.task_ack = &ack;
        (void)say(agent, &message);
}

static struct task *find_task(const struct agent *agent, const char *name, int32_t attempt) {
        for (unsigned i = 0; i < agent->task_count; i++)
                if (agent->tasks[i]->attempt == attempt && !strcmp(agent->tasks[i]->name, name))
                        return agent->tasks[i];
        return NULL;
}

static void send_result(struct agent *agent, struct task *task) {
        WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        Devopsgenie__V1__Result result = DEVOPSGENIE__V1__RESULT__INIT;
        Devopsgenie__V1__LogOffset end = DEVOPSGENIE__V1__LOG_OFFSET__INIT, *ends[] = {&end};
        char id[40];
        snprintf(id, sizeof id, "%08x-%04x-4000-8000-%012x", (unsigned)(task - agent->load->tasks),
                task->round & 0xffffu, task->round);
        end.stream = DEVOPSGENIE__V1__LOG_STREAM__STDOUT;
        end.offset = task->log_sent;
        result.task = task->name;
        result.attempt = task->attempt;
        result.fence = task->fence;
        result.result_id = id;
        result.status = DEVOPSGENIE__V1__RESULT__STATUS__SUCCEEDED;
        result.log_offsets = ends;
        result.n_log_offsets = 1;
        message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_RESULT;
        message.result = &result;
        (void)say(agent, &message);
}

// Text as a build writes it.
static const unsigned char *log_text(struct load *load, size_t *ret_size) {
        static unsigned char made[1 << 20];
        enum { LINE = 160 };
        for (size_t at = 0; !made[LINE] && at + LINE < sizeof made;)
                at += (size_t)snprintf((char *)made + at, LINE,
                        "2026-11-25T22:%02u:%02u.%03uZ [%4u/2048] Building C object src/module-%u/file-%u.c.o %08x\n",
                        (unsigned)random_below(load, 60), (unsigned)random_below(load, 60),
                        (unsigned)random_below(load, 1000), (unsigned)random_below(load, 2048),
                        (unsigned)random_below(load, 40), (unsigned)random_below(load, 400),
                        (unsigned)random_below(load, UINT32_MAX));
        *ret_size = sizeof made - LINE;
        return made;
}

static void send_log(struct agent *agent, struct task *task) {
        size_t text_size;
        const unsigned char *log = log_text(agent->load, &text_size);
        int64_t length = agent->load->options.log_bytes;
        while (task->log_sent < length && agent->window > 0) {
                WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
                Devopsgenie__V1__LogChunk chunk = DEVOPSGENIE__V1__LOG_CHUNK__INIT;
                int64_t left = length - task->log_sent, size = left < LOG_CHUNK ? left : LOG_CHUNK;
                if (size > agent->window)
                        break;
                chunk.task = task->name;
                chunk.attempt = task->attempt;
                chunk.fence = task->fence;
                chunk.stream = DEVOPSGENIE__V1__LOG_STREAM__STDOUT;
                chunk.offset = task->log_sent;
                chunk.data.len = (size_t)size;
                chunk.data.data = (uint8_t *)(uintptr_t)log + random_below(agent->load, text_size - LOG_CHUNK);
                chunk.crc32c = ~crc32_iscsi(chunk.data.data, (int)size, ~0U);
                message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_LOG_CHUNK;
                message.log_chunk = &chunk;
                if (!say(agent, &message))
                        return;
                task->log_sent += size;
                agent->window -= size;
        }
}

static void take_grant(struct agent *agent, const Devopsgenie__V1__StartGrant *grant) {
        struct task *task = find_task(agent, grant->task, grant->attempt);
        if (!task || task->started)
                return;
        task->started = true;
        task_started(task);
        if (agent->load->options.log_bytes)
                send_log(agent, task);
        else
                send_result(agent, task);
}

static void take_log_ack(struct agent *agent, const Devopsgenie__V1__LogAck *ack) {
        struct load *load = agent->load;
        struct task *task = find_task(agent, ack->task, ack->attempt);
        if (!task || ack->stream != DEVOPSGENIE__V1__LOG_STREAM__STDOUT)
                return;
        if (ack->problem) {
                snprintf(load->problem, sizeof load->problem, "log problem %d", (int)ack->problem);
                load->failures++;
                return;
        }
        int64_t more = ack->next_offset - task->log_known;
        task->log_known = ack->next_offset;
        agent->window += more;
        load->all_bytes += (uint64_t)more;
        load->bytes += counts(load) ? (uint64_t)more : 0;
        if (task->log_known == load->options.log_bytes)
                send_result(agent, task);
        else
                send_log(agent, task);
}

static void forget_task(struct agent *agent, const struct task *task) {
        for (unsigned i = 0; i < agent->task_count; i++)
                if (agent->tasks[i] == task)
                        agent->tasks[i] = agent->tasks[--agent->task_count];
        agent->credits_changed = true;
}

static void take_result_ack(struct agent *agent, const Devopsgenie__V1__ResultAck *ack) {
        struct task *task = find_task(agent, ack->task, ack->attempt);
        if (!task)
                return;
        forget_task(agent, task);
        task_ended(task, ack->status == DEVOPSGENIE__V1__RESULT_ACK__STATUS__ACCEPTED);
}

static void take_lost(struct agent *agent, const Devopsgenie__V1__LeaseLost *lost) {
        struct task *task = find_task(agent, lost->task, lost->attempt);
        if (!task)
                return;
        forget_task(agent, task);
        task_ended(task, /* accepted= */ false);
}

static void take_message(struct call *call, const uint8_t *data, size_t size) {
        struct agent *agent = call->owner;
        PlatformMessage *message = devopsgenie__v1__platform_message__unpack(NULL, size, data);
        if (!message)
                return;
        agent->taken = message->seq;
        if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_WELCOME)
                take_welcome(agent, message->welcome);
        else if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_TASK_ASSIGN)
                take_offer(agent, message->task_assign);
        else if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_START_GRANT)
                take_grant(agent, message->start_grant);
        else if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LOG_ACK)
                take_log_ack(agent, message->log_ack);
        else if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_RESULT_ACK)
                take_result_ack(agent, message->result_ack);
        else if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LEASE_LOST)
                take_lost(agent, message->lease_lost);
        devopsgenie__v1__platform_message__free_unpacked(message, NULL);
        agent_before_turn(agent);
}

// --- What is sent by itself ---

bool agent_say_hello(struct agent *agent) {
        WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        Devopsgenie__V1__Hello hello = DEVOPSGENIE__V1__HELLO__INIT;
        int32_t version = 1;
        Devopsgenie__V1__TaskKind kind = DEVOPSGENIE__V1__TASK_KIND__COMMAND;
        char id[40], token[24] = "";
        snprintf(id, sizeof id, "00000000-0000-4000-8000-%012x", agent->number);
        if (agent->epoch)
                snprintf(token, sizeof token, "%lld", (long long)agent->epoch);
        hello.protocol_versions = &version;
        hello.n_protocol_versions = 1;
        hello.instance_id = id;
        hello.session_token = token;
        hello.kinds = &kind;
        hello.n_kinds = 1;
        hello.version = text("bench");
        message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_HELLO;
        message.hello = &hello;
        agent->stream = (struct call){.message = take_message, .owner = agent};
        agent->sent = agent->taken = 0;
        return connection_submit(agent->peer.connection, &agent->stream, "/devopsgenie.v1.TaskChannelService/Connect",
                       agent->key) &&
               say(agent, &message);
}

static void send_credits(struct agent *agent) {
        WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        Devopsgenie__V1__Credits credits = DEVOPSGENIE__V1__CREDITS__INIT;
        Devopsgenie__V1__KindCredits kind = DEVOPSGENIE__V1__KIND_CREDITS__INIT, *kinds[] = {&kind};
        kind.kind = DEVOPSGENIE__V1__TASK_KIND__COMMAND;
        kind.free = (int32_t)(agent->load->options.credits - agent->task_count);
        credits.free = kinds;
        credits.n_free = 1;
        message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_CREDITS;
        message.credits = &credits;
        (void)say(agent, &message);
}

void agent_before_turn(struct agent *agent) {
        if (!agent->credits_changed || agent->state != AGENT_WELCOMED)
                return;
        agent->credits_changed = false;
        send_credits(agent);
}

static void renew(struct agent *agent) {
        WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        Devopsgenie__V1__LeaseRenew renewal = DEVOPSGENIE__V1__LEASE_RENEW__INIT;
        Devopsgenie__V1__LeasedTask leased[CREDITS_MAX], *list[CREDITS_MAX];
        for (unsigned i = 0; i < agent->task_count; i++)
                if (agent->tasks[i]->started) {
                        list[renewal.n_tasks] = &leased[renewal.n_tasks];
                        devopsgenie__v1__leased_task__init(list[renewal.n_tasks]);
                        list[renewal.n_tasks]->task = agent->tasks[i]->name;
                        list[renewal.n_tasks]->attempt = agent->tasks[i]->attempt;
                        list[renewal.n_tasks++]->fence = agent->tasks[i]->fence;
                }
        renewal.tasks = list;
        message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_LEASE_RENEW;
        message.lease_renew = &renewal;
        if (renewal.n_tasks)
                (void)say(agent, &message);
}

bool agent_pass_time(struct agent *agent, uint64_t now) {
        int64_t sent = agent->sent;
        if (agent->task_count && now >= agent->next_renewal) {
                agent->next_renewal = now + (uint64_t)agent->renew_ns;
                renew(agent);
        }
        if (now >= agent->next) {
                WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
                Devopsgenie__V1__Heartbeat heartbeat = DEVOPSGENIE__V1__HEARTBEAT__INIT;
                message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_HEARTBEAT;
                message.heartbeat = &heartbeat;
                (void)say(agent, &message);
        }
        return agent->sent != sent;
}

void agent_forget_tasks(struct agent *agent) {
        while (agent->task_count)
                task_ended(agent->tasks[--agent->task_count], /* accepted= */ false);
}
