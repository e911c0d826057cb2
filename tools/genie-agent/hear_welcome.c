// Which attempts begin and go on: Welcome with its dispositions, and StartGrant.
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/spool.h"

enum { DAY_MS = 24 * 3600000 };

// An interval of Welcome's; one that is not set or cannot be is the default.
static int64_t interval_ms(const Google__Protobuf__Duration *duration, int64_t fallback) {
        int64_t ms = hear_duration_ms(duration, fallback, DAY_MS);
        return ms > 0 ? ms : fallback;
}

// Where a log goes on, as the platform has it.
static void restart_log(struct job *job, int part, int64_t offset) {
        struct log_window *window = &job->logs[part].window;
        if (offset < 0)
                offset = 0;
        if (offset < window->durable)
                agent_log(LOG_ERROR, "the platform has less of a log than it had acknowledged", "task",
                        job->assign->task, NULL);
        int64_t before = window->durable;
        log_window_restart(window, offset);
        spool_release(job->logs[part].file, before, window->durable);
}

static void restart_logs(struct job *job, const Devopsgenie__V1__Disposition *disposition) {
        int64_t offsets[JOB_LOGS] = {0};
        for (size_t i = 0; i < disposition->n_log_offsets; i++) {
                const Devopsgenie__V1__LogOffset *offset = disposition->log_offsets[i];
                int part = (int)offset->stream - 1;
                if (part >= 0 && part < JOB_LOGS)
                        offsets[part] = offset->offset;
        }
        for (int i = 0; i < JOB_LOGS; i++)
                restart_log(job, i, offsets[i]);
}

// A job begins, or goes on after a process before this one.
static void start(struct job *job, int64_t leased_from_ms, int64_t lease_ms) {
        job_extend_lease(job, leased_from_ms, lease_ms);
        if (!job_start(job))
                job_end(job, "INTERNAL", "the agent can start no more threads");
        else
                agent_log(LOG_INFO, "task started", "task", job->assign->task, NULL);
}

static void start_first_time(struct job *job, int64_t leased_from_ms, int64_t lease_ms) {
        if (!job->kind) { // the offer was taken by a process that knew it
                job_end(job, "KIND_NOT_OFFERED", "this agent does no tasks of this kind");
                return;
        }
        const Devopsgenie__V1__LeasedTask message = {PROTOBUF_C_MESSAGE_INIT(&devopsgenie__v1__leased_task__descriptor),
                .task = job->assign->task, .attempt = job->assign->attempt, .fence = job->assign->fence};
        if (journal_append(job->agent->journal, JOURNAL_START, message.task, message.attempt, &message.base))
                start(job, leased_from_ms, lease_ms);
        else
                job_end(job, "JOURNAL_FULL", "the agent's journal cannot be written");
}

static void go_on(struct session *session, struct job *job) {
        switch (job->state) {
        case STATE_OFFERED:
                start_first_time(job, session->opened_ms, session->lease_ms);
                break;
        case STATE_RECOVERED:
                if (job->kind && job->kind->resumable)
                        start(job, session->opened_ms, session->lease_ms);
                else
                        job_end(job, "AGENT_RESTARTED", "the agent ended while it ran; what it has done is not known");
                break;
        case STATE_RUNNING:
                job_extend_lease(job, session->opened_ms, session->lease_ms);
                break;
        case STATE_LOST:
        case STATE_ENDED: // its result is said again
        case STATE_REPORTED:
        case STATE_FORGOTTEN:
        case STATES:
        default:
                break;
        }
}

static void take_result_known(struct job *job) {
        switch (job->state) {
        case STATE_RECOVERED:
        case STATE_ENDED:
        case STATE_REPORTED:
                job_reported(job);
                break;
        case STATE_OFFERED:
        case STATE_RUNNING:
        case STATE_LOST:
        case STATE_FORGOTTEN:
        case STATES:
        default:
                job_lose(job);
                break;
        }
}

static void take_disposition(struct session *session, const Devopsgenie__V1__Disposition *disposition) {
        struct job *job = agent_find_job(session->agent, disposition->task, disposition->attempt);
        if (!job)
                return;
        switch (disposition->decision) {
        case DEVOPSGENIE__V1__DISPOSITION__DECISION__CONTINUE:
                restart_logs(job, disposition);
                go_on(session, job);
                break;
        case DEVOPSGENIE__V1__DISPOSITION__DECISION__RESULT_KNOWN:
                restart_logs(job, disposition);
                take_result_known(job);
                break;
        case DEVOPSGENIE__V1__DISPOSITION__DECISION__ABORT_FENCED:
        case DEVOPSGENIE__V1__DISPOSITION__DECISION__UNKNOWN:
                job->log_unwanted = true;
                job_lose(job);
                break;
        case DEVOPSGENIE__V1__DISPOSITION__DECISION__OFFERED:
                job->ack_due = true;
                break;
        case DEVOPSGENIE__V1__DISPOSITION__DECISION__DECISION_UNSPECIFIED:
        case _DEVOPSGENIE__V1__DISPOSITION__DECISION_IS_INT_SIZE:
        default:
                break;
        }
}

static void take_limits(struct session *session, const Devopsgenie__V1__Welcome *welcome) {
        session->heartbeat_ms = interval_ms(welcome->heartbeat_interval, 20000) / 10 * 9;
        session->silence_ms = interval_ms(welcome->silence_limit, 60000);
        session->lease_ms = interval_ms(welcome->lease, 30000);
        session->renew_ms = interval_ms(welcome->renew_interval, 5000);
        session->log_window = welcome->log_window_bytes;
        session->log_chunk = 64 << 10;
        if (welcome->max_log_chunk_bytes > 0 && welcome->max_log_chunk_bytes < 64 << 10)
                session->log_chunk = (size_t)welcome->max_log_chunk_bytes;
        session->heartbeat_at_ms = session->agent->now_ms + session->heartbeat_ms;
        session->renew_at_ms = session->agent->now_ms + session->renew_ms;
}

// The stream takes the place of the one before it, whose attempts are its own from now on.
static void take_over(struct session *session) {
        struct agent *agent = session->agent;
        struct session *before = agent->session;
        agent->session = session;
        agent->next = NULL;
        session->state = SESSION_STANDING;
        session->stood_ms = agent->now_ms;
        session->credits_due = true;
        agent->connect_at_ms = INT64_MAX;
        if (!before)
                return;
        for (unsigned i = 0; i < LEAVING_MAX; i++)
                if (!agent->leaving[i]) {
                        agent->leaving[i] = before;
                        break;
                }
        session_leave(before);
}

void hear_welcome(struct session *session, const Devopsgenie__V1__Welcome *welcome) {
        struct agent *agent = session->agent;
        char epoch[24];
        if (session->state != SESSION_GREETING || session != agent->next)
                return;
        if (agent->superseded_epoch > welcome->session_epoch) {
                session_cancel(session, "another instance has taken over");
                agent_superseded(agent, agent->superseded_epoch);
                return;
        }
        agent->superseded_epoch = 0;
        session->epoch = welcome->session_epoch;
        take_over(session);
        take_limits(session, welcome);
        free(agent->session_token);
        agent->session_token = must(strdup(welcome->session_token));
        agent->key_refused = false;
        for (size_t i = 0; i < agent->job_count; i++)
                job_new_stream(agent->jobs[i]);
        for (size_t i = 0; i < welcome->n_dispositions; i++)
                take_disposition(session, welcome->dispositions[i]);
        snprintf(epoch, sizeof epoch, "%lld", (long long)welcome->session_epoch);
        agent_log(LOG_INFO, "connected", "epoch", epoch, NULL);
}

void hear_grant(struct session *session, const Devopsgenie__V1__StartGrant *grant) {
        struct job *job = agent_find_job(session->agent, grant->task, grant->attempt);
        if (!job || job->assign->fence != grant->fence || !job->acked_ms)
                return;
        if (job->state == STATE_OFFERED)
                start_first_time(job, job->acked_ms, session->lease_ms);
        else if (job->state == STATE_RECOVERED)
                go_on(session, job);
}
