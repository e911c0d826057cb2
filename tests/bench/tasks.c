// Keeps tasks going: each is created, taken by some agent, and ends; another one follows in its place.
#include "tests/bench/agents.h"

#include <devopsgenie/v1/task_service.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool create(struct task *task) {
        struct load *load = task->load;
        unsigned number = (unsigned)(task - load->tasks);
        struct agent *agent = &load->agents[number % load->options.agents]; // of its organization, whoever takes it
        Devopsgenie__V1__CreateTaskRequest request = DEVOPSGENIE__V1__CREATE_TASK_REQUEST__INIT;
        Devopsgenie__V1__Task made = DEVOPSGENIE__V1__TASK__INIT;
        Devopsgenie__V1__TaskPayload payload = DEVOPSGENIE__V1__TASK_PAYLOAD__INIT;
        Devopsgenie__V1__Command command = DEVOPSGENIE__V1__COMMAND__INIT;
        char parent[120], key[80], name[] = "bench";
        snprintf(parent, sizeof parent, "organizations/%s", agent->slug);
        snprintf(key, sizeof key, "bench-%d-%u-%u", (int)getpid(), number, ++task->round);
        command.name = name;
        payload.kind_case = DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_COMMAND;
        payload.command = &command;
        made.payload = &payload;
        made.idempotency_key = key;
        request.parent = parent;
        request.task = &made;
        size_t size = devopsgenie__v1__create_task_request__pack(&request, task->request + CALL_PREFIX);
        memset(task->request, 0, CALL_PREFIX);
        task->request[3] = (unsigned char)(size >> 8);
        task->request[4] = (unsigned char)size;
        task->create.request_size = CALL_PREFIX + size;
        task->begin_ns = now_ns();
        task->started = task->done = false;
        task->create_pending = true;
        task->log_sent = task->log_known = 0;
        struct peer *creator = &load->creators[number % CREATORS];
        if (!connection_submit(creator->connection, &task->create, "/devopsgenie.v1.TaskService/CreateTask",
                    agent->organization_key))
                return false;
        load->under_way++;
        return true;
}

// The next one, when the task has ended and the answer to CreateTask has come, whichever is the later.
static void next(struct task *task) {
        struct load *load = task->load;
        if (!task->done || task->create_pending || now_ns() >= load->deadline_ns)
                return;
        if (!create(task))
                load->failures++;
        load->creators[(task - load->tasks) % CREATORS].wanted = true;
}

static void created(struct call *call) {
        struct task *task = call->owner;
        task->create_pending = false;
        if (!call->status)
                next(task);
        else {
                if (!task->load->failures++)
                        fprintf(stderr, "bench-agents: CreateTask: status %d: %s\n", call->status,
                                call->status_message);
                task->load->under_way--;
        }
}

bool tasks_begin(struct load *load) {
        load->tasks = calloc(load->options.tasks, sizeof *load->tasks);
        for (unsigned i = 0; i < CREATORS; i++) {
                load->creators[i].connection = connection_open(load->tls, load->options.endpoint, created);
                if (!load->creators[i].connection)
                        return false;
        }
        for (unsigned i = 0; load->tasks && i < load->options.tasks; i++) {
                struct task *task = &load->tasks[i];
                task->load = load;
                task->create.owner = task;
                task->create.request = task->request;
                if (!create(task))
                        return false;
        }
        for (unsigned i = 0; i < CREATORS; i++)
                if (!turn(load, &load->creators[i]))
                        return false;
        return load->tasks != NULL;
}

struct task *task_of_key(struct load *load, const char *idempotency_key) {
        int run;
        unsigned number, round;
        if (sscanf(idempotency_key, "bench-%d-%u-%u", &run, &number, &round) != 3 || run != (int)getpid() ||
                number >= load->options.tasks || load->tasks[number].round != round)
                return NULL;
        return &load->tasks[number];
}

void task_started(struct task *task) {
        if (counts(task->load))
                histogram_add(&task->load->starts, now_ns() - task->begin_ns);
}

void task_ended(struct task *task, bool accepted) {
        struct load *load = task->load;
        load->under_way--;
        load->failures += !accepted;
        load->all_ended += accepted;
        load->ended += accepted && counts(load);
        task->done = true;
        next(task);
}
