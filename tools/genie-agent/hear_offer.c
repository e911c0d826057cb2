// Offers: what the agent takes, and why it refuses the rest.
#include "tools/genie-agent/agent_private.h"

#include <errno.h>

enum {
        TASK_NAME_MAX = 200,
        FULL_RETRY_MS = 30000,
        FULL_CHECK_MS = 5000,
        ROOM_FOR_A_JOB = 64 << 10, // its effects and its result
};

// Why an offer is not taken; NULL: it is.
struct refusal {
        const char *reason;
        char message[REFUSAL_SIZE];
        bool permanent;
        int64_t retry_after_ms;
};

static bool refuse(struct refusal *refusal, const char *reason, const char *message, int64_t retry_after_ms) {
        refusal->reason = reason;
        snprintf(refusal->message, sizeof refusal->message, "%s", message);
        refusal->retry_after_ms = retry_after_ms;
        return false;
}

// An older attempt of the same task is over: this offer proves it. It may take a moment to stop.
static bool stop_older(struct agent *agent, const Devopsgenie__V1__TaskAssign *assign) {
        bool stopped = true;
        for (size_t i = 0; i < agent->job_count; i++) {
                struct job *job = agent->jobs[i];
                if (strcmp(job->assign->task, assign->task) != 0 || job->assign->attempt >= assign->attempt)
                        continue;
                job_lose(job);
                stopped &= !job->has_thread;
        }
        return stopped;
}

static bool keep_offer(struct agent *agent, const Devopsgenie__V1__TaskAssign *assign) {
        size_t size = devopsgenie__v1__task_assign__get_packed_size(assign);
        return journal_reserve(agent->journal, size + ROOM_FOR_A_JOB * (agent->job_count + 1)) &&
               journal_append(agent->journal, JOURNAL_OFFER, assign->task, assign->attempt, &assign->base);
}

static bool can_take(struct agent *agent, const Devopsgenie__V1__TaskAssign *assign, const struct kind *kind,
        struct refusal *refusal) {
        if (!kind || kind->slots(agent->config) <= 0)
                return refuse(refusal, "KIND_NOT_OFFERED", "this agent does no tasks of this kind", HOUR_MS);
        if (!assign->payload || assign->payload->kind_case != kind->payload)
                return refuse(refusal, "PAYLOAD_MISSING", "the payload is not of the task's kind", HOUR_MS);
        if (agent->draining)
                return refuse(refusal, "SHUTTING_DOWN", "the agent is ending", 0);
        if (!stop_older(agent, assign))
                return refuse(refusal, "ATTEMPT_STOPPING", "the attempt before is still being stopped", 2000);
        if (agent->job_count == JOBS_MAX || agent_free_slots(agent, kind) <= 0)
                return refuse(refusal, "NO_FREE_SLOT", "the agent has as many tasks as it takes", 0);
        refusal->reason = kind->refusal(agent->config, assign->payload, refusal->message);
        refusal->permanent = refusal->reason != NULL;
        return !refusal->permanent;
}

static void disk_is_full(struct agent *agent, const char *what) {
        agent_log(LOG_ERROR, what, "error", strerror(errno), NULL);
        agent->full_check_ms = agent->now_ms + FULL_CHECK_MS;
}

void hear_offer(struct session *session, Devopsgenie__V1__TaskAssign *assign) {
        struct agent *agent = session->agent;
        const struct kind *kind = kind_find(assign->kind);
        struct refusal refusal = {0};
        struct job *job = agent_find_job(agent, assign->task, assign->attempt);

        if (job) {
                job->ack_due |= job->state == STATE_OFFERED;
                devopsgenie__v1__task_assign__free_unpacked(assign, NULL);
                return;
        }
        if (!*assign->task || strlen(assign->task) > TASK_NAME_MAX) { // such a one cannot even be refused
                devopsgenie__v1__task_assign__free_unpacked(assign, NULL);
                return;
        }
        if (can_take(agent, assign, kind, &refusal)) {
                if (!keep_offer(agent, assign)) {
                        disk_is_full(agent, "an offer cannot be written down");
                        refuse(&refusal, "JOURNAL_FULL", "the agent's journal cannot be written", FULL_RETRY_MS);
                } else if (!(job = job_new(agent, assign, kind))) {
                        disk_is_full(agent, "a log cannot be opened");
                        refuse(&refusal, "JOURNAL_FULL", "the agent's state directory cannot be written",
                                FULL_RETRY_MS);
                }
        }
        if (job) {
                job->ack_due = true;
                agent->jobs[agent->job_count++] = job;
                return;
        }
        agent_log(LOG_WARNING, "offer refused", "task", assign->task, "reason", refusal.reason, NULL);
        agent_answer(agent, assign->task, assign->attempt, assign->fence, refusal.reason, refusal.message,
                refusal.permanent, refusal.retry_after_ms);
        session->credits_due = true;
        devopsgenie__v1__task_assign__free_unpacked(assign, NULL);
}
