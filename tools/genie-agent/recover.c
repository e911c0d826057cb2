// What a process before this one has left in the state folder.
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/spool.h"

static void recover_offer(struct agent *agent, const void *data, size_t size) {
        Devopsgenie__V1__TaskAssign *assign = devopsgenie__v1__task_assign__unpack(NULL, size, data);
        struct job *job = NULL;
        if (assign && agent->job_count < JOBS_MAX && !agent_find_job(agent, assign->task, assign->attempt))
                job = job_new(agent, assign, kind_find(assign->kind));
        if (job)
                agent->jobs[agent->job_count++] = job;
        else if (assign)
                devopsgenie__v1__task_assign__free_unpacked(assign, NULL);
}

static void recover_start(struct agent *agent, const void *data, size_t size) {
        Devopsgenie__V1__LeasedTask *started = devopsgenie__v1__leased_task__unpack(NULL, size, data);
        struct job *job = started ? agent_find_job(agent, started->task, started->attempt) : NULL;
        if (job && job->state == STATE_OFFERED)
                job->state = STATE_RECOVERED;
        if (started)
                devopsgenie__v1__leased_task__free_unpacked(started, NULL);
}

static void recover_effect(struct agent *agent, const void *data, size_t size) {
        Devopsgenie__V1__SideEffect *effect = devopsgenie__v1__side_effect__unpack(NULL, size, data);
        struct job *job = effect ? agent_find_job(agent, effect->task, effect->attempt) : NULL;
        if (job)
                job_add_effect(job, effect->key, effect->reference);
        if (effect)
                devopsgenie__v1__side_effect__free_unpacked(effect, NULL);
}

static void recover_result(struct agent *agent, const void *data, size_t size) {
        Devopsgenie__V1__Result *result = devopsgenie__v1__result__unpack(NULL, size, data);
        struct job *job = result ? agent_find_job(agent, result->task, result->attempt) : NULL;
        if (job && !job->result) {
                job->state = STATE_ENDED;
                job->result = result;
                job->logs[0].window.closed = job->logs[1].window.closed = true;
        } else if (result) {
                devopsgenie__v1__result__free_unpacked(result, NULL);
        }
}

static void recover_record(void *context, enum journal_type type, const void *data, size_t size) {
        static void (*const recover[])(struct agent *, const void *, size_t) = {
                [JOURNAL_OFFER] = recover_offer,
                [JOURNAL_START] = recover_start,
                [JOURNAL_EFFECT] = recover_effect,
                [JOURNAL_RESULT] = recover_result,
        };
        if ((size_t)type < sizeof recover / sizeof *recover && recover[type])
                recover[type](context, data, size);
}

static bool is_wanted(void *context, const char *name) {
        const struct agent *agent = context;
        char wanted[SPOOL_NAME_SIZE];
        for (size_t i = 0; i < agent->job_count; i++)
                for (int j = 0; j < JOB_LOGS; j++) {
                        const Devopsgenie__V1__TaskAssign *assign = agent->jobs[i]->assign;
                        spool_name(assign->task, assign->attempt, j + 1, wanted);
                        if (!strcmp(wanted, name))
                                return true;
                }
        return false;
}

bool agent_recover(struct agent *agent) {
        char torn[24];
        if (journal_torn(agent->journal)) {
                snprintf(torn, sizeof torn, "%zu", journal_torn(agent->journal));
                agent_log(LOG_WARNING, "the journal had a torn end, which was cut off", "bytes", torn, NULL);
        }
        if (!journal_replay(agent->journal, recover_record, agent))
                return false;
        spool_sweep(journal_folder(agent->journal), is_wanted, agent);
        for (size_t i = 0; i < agent->job_count; i++)
                agent_log(LOG_INFO, "recovered", "task", agent->jobs[i]->assign->task, "state",
                        job_state_name(agent->jobs[i]->state), NULL);
        return true;
}
