// What the parts of bench-agents share: agents.c connects and keeps time, agent.c speaks the task channel's protocol,
// tasks.c keeps tasks going.
#pragma once

#include "tests/bench/connection.h"
#include "tests/bench/histogram.h"

#include <devopsgenie/v1/task_channel_service.pb-c.h>
#include <sys/epoll.h>

enum {
        AGENTS_MAX = 100000,
        TASKS_MAX = 100000,
        CREDITS_MAX = 100,
        REFUSED_SECONDS = 120,
        TASK_NAME = 160,
        LOG_CHUNK = 65536,
        CREATORS = 4, // connections for CreateTask
        CREATE_MAX = 512,
};

struct options {
        const char *endpoint, *ca, *keys;
        unsigned agents, tasks, credits, log_bytes;
        double seconds;
};

// What epoll has a pointer to.
struct peer {
        struct connection *connection;
        uint32_t events;
        struct agent *agent; // NULL: a connection for CreateTask
        bool wanted;         // a turn
};

enum agent_state { AGENT_AWAY, AGENT_CONNECTING, AGENT_WELCOMED, AGENT_ENDED };

struct agent {
        struct load *load;
        struct peer peer;
        struct call stream;
        unsigned number, tries;
        enum agent_state state;
        char key[80], organization_key[80], slug[80];
        int64_t sent, taken, heartbeat_ns, renew_ns, epoch;
        uint64_t next, next_renewal; // when it is to do something
        struct task *tasks[CREDITS_MAX];
        unsigned task_count;
        bool credits_changed;
        int64_t window; // how much more log may be on the way
};

// A place in the loop: one task is under way there at any time.
struct task {
        struct call create;
        unsigned char request[CREATE_MAX];
        struct load *load;
        unsigned round; // counts the tasks of this place
        uint64_t begin_ns;
        char name[TASK_NAME];
        int32_t attempt;
        int64_t fence, log_sent, log_known;
        bool create_pending, started, done;
};

struct load {
        struct options options;
        struct agent *agents;
        struct task *tasks;
        struct peer creators[CREATORS];
        SSL_CTX *tls;
        int epoll;
        unsigned welcomed, connecting, under_way, failures, refused[REFUSED_SECONDS];
        uint64_t random, begin_ns, refused_ns, count_ns, deadline_ns, next_scan, ended, all_ended, bytes, all_bytes;
        struct histogram starts;
        char problem[200];
};

uint64_t now_ns(void);
bool counts(const struct load *load);                 // whether what is done now does
void peer_turn(struct load *load, struct peer *peer); // a turn of its connection; what then is to be done
bool turn(struct load *load, struct peer *peer) __attribute__((warn_unused_result));
uint64_t random_below(struct load *load, uint64_t below);

// agent.c
bool agent_say_hello(struct agent *agent) __attribute__((warn_unused_result));
void agent_before_turn(struct agent *agent);             // sends what follows from the messages that have come
bool agent_pass_time(struct agent *agent, uint64_t now); // heartbeat and leases; whether something is to be sent
void agent_forget_tasks(struct agent *agent);

// tasks.c
bool tasks_begin(struct load *load) __attribute__((warn_unused_result));
struct task *task_of_key(struct load *load, const char *idempotency_key); // NULL: of another run
void task_started(struct task *task);
void task_ended(struct task *task, bool accepted);
