// What the platform says, and what the agent makes of it.
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/key_store.h"
#include "tools/genie-agent/spool.h"

#include <errno.h>

enum {
        TASK_NAME_MAX = 200,
        FULL_RETRY_MS = 30000,
        FULL_CHECK_MS = 5000,
        ROOM_FOR_A_JOB = 64 << 10, // its effects and its result
        NEW_KEY_WITHIN_MS = 2000,
        HOUR_MS = 3600000,
        DAY_MS = 24 * HOUR_MS,
};

typedef Devopsgenie__V1__PlatformMessage platform_message;

// Milliseconds, from 0 to `most`; `fallback` where it is not set.
static int64_t duration_ms(const Google__Protobuf__Duration *duration, int64_t fallback, int64_t most) {
        if (!duration)
                return fallback;
        if (duration->seconds < 0 || duration->nanos < 0)
                return 0;
        if (duration->seconds > most / 1000)
                return most;
        int64_t ms = duration->seconds * 1000 + duration->nanos / 1000000;
        return ms < most ? ms : most;
}

// An interval of Welcome's; one that is not set or cannot be is the default.
static int64_t interval_ms(const Google__Protobuf__Duration *duration, int64_t fallback) {
        int64_t ms = duration_ms(duration, fallback, DAY_MS);
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

static void hear_welcome(struct session *session, const Devopsgenie__V1__Welcome *welcome) {
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

// Takes the assignment over, or drops it.
static void hear_offer(struct session *session, Devopsgenie__V1__TaskAssign *assign) {
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

static void hear_grant(struct session *session, const Devopsgenie__V1__StartGrant *grant) {
        struct job *job = agent_find_job(session->agent, grant->task, grant->attempt);
        if (!job || job->assign->fence != grant->fence || !job->acked_ms)
                return;
        if (job->state == STATE_OFFERED)
                start_first_time(job, job->acked_ms, session->lease_ms);
        else if (job->state == STATE_RECOVERED)
                go_on(session, job);
}

static void hear_lease_ack(struct session *session, const Devopsgenie__V1__LeaseAck *ack) {
        int64_t sent_ms;
        if (!lease_renewal_answered(&session->renewals, ack->renew_seq, &sent_ms))
                return;
        for (size_t i = 0; i < session->agent->job_count; i++) {
                struct job *job = session->agent->jobs[i];
                if (job->state == STATE_RUNNING && job->renewed_seq && job->renewed_seq <= ack->renew_seq)
                        job_extend_lease(job, sent_ms, session->lease_ms);
        }
}

static void hear_lease_lost(struct session *session, const Devopsgenie__V1__LeaseLost *lost) {
        struct job *job = agent_find_job(session->agent, lost->task, lost->attempt);
        if (!job || job->assign->fence != lost->fence)
                return;
        agent_log(LOG_WARNING, "lease lost", "task", lost->task, "reason", lost->reason, NULL);
        job_lose(job);
}

static void hear_effect_ack(struct session *session, const Devopsgenie__V1__SideEffectAck *ack) {
        struct job *job = agent_find_job(session->agent, ack->task, ack->attempt);
        // Where a key was noted twice, the one that was said is the newest that is not due any more.
        for (struct effect *effect = job ? job->effects : NULL; effect; effect = effect->next)
                if (!effect->acked && !effect->due && !strcmp(effect->key, ack->key)) {
                        effect->acked = true;
                        pthread_cond_broadcast(&job->changed);
                        return;
                }
}

static void hear_log_ack(struct session *session, const platform_message *message, const Devopsgenie__V1__LogAck *ack) {
        struct job *job = agent_find_job(session->agent, ack->task, ack->attempt);
        int part = ack->stream == DEVOPSGENIE__V1__LOG_STREAM__STDERR ? 1 : 0;
        session->log_window = ack->window;
        session->log_stalled_ms = session->agent->now_ms;
        if (!job)
                return;
        struct log_window *window = &job->logs[part].window;
        int64_t before = window->durable;
        if (ack->problem == DEVOPSGENIE__V1__LOG_ACK__PROBLEM__CHUNK_TOO_LARGE && session->log_chunk > 1024)
                session->log_chunk /= 2;
        if (ack->problem == DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FULL ||
                ack->problem == DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FENCED) {
                job->log_unwanted = true;
                for (int i = 0; i < JOB_LOGS; i++)
                        log_window_give_up(&job->logs[i].window);
        } else {
                log_window_acked(window, ack->next_offset, ack->problem, message->ack_seq);
        }
        spool_release(job->logs[part].file, before, window->durable);
        pthread_cond_broadcast(&job->changed);
        if (ack->problem == DEVOPSGENIE__V1__LOG_ACK__PROBLEM__FENCED && job->state != STATE_ENDED)
                job_lose(job);
}

static void hear_result_ack(struct session *session, const Devopsgenie__V1__ResultAck *ack) {
        struct job *job = agent_find_job(session->agent, ack->task, ack->attempt);
        if (!job || job->state != STATE_ENDED || strcmp(job->result->result_id, ack->result_id) != 0)
                return;
        switch (ack->status) {
        case DEVOPSGENIE__V1__RESULT_ACK__STATUS__ACCEPTED:
        case DEVOPSGENIE__V1__RESULT_ACK__STATUS__DUPLICATE:
                job_reported(job);
                break;
        case DEVOPSGENIE__V1__RESULT_ACK__STATUS__FENCED:
                agent_log(LOG_WARNING, "the result came too late", "task", ack->task, NULL);
                job_lose(job);
                break;
        case DEVOPSGENIE__V1__RESULT_ACK__STATUS__STATUS_UNSPECIFIED:
        case _DEVOPSGENIE__V1__RESULT_ACK__STATUS_IS_INT_SIZE:
        default:
                break;
        }
}

static void cancel_running(struct job *job, const Devopsgenie__V1__Cancel *cancel) {
        bool forced = cancel->mode == DEVOPSGENIE__V1__TASK_CANCELLATION__MODE__FORCED;
        job->cancelled = true;
        job->answer_due = DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__STOPPING;
        job_stop(job, forced ? JOB_CANCEL_NOW : JOB_CANCEL_GRACEFULLY,
                clock_now_ms() + duration_ms(cancel->grace, 30000, HOUR_MS));
}

static void hear_cancel(struct session *session, const Devopsgenie__V1__Cancel *cancel) {
        struct job *job = agent_find_job(session->agent, cancel->task, cancel->attempt);
        enum job_state state = job && job->assign->fence == cancel->fence ? job->state : STATE_FORGOTTEN;
        switch (state) {
        case STATE_RUNNING:
                cancel_running(job, cancel);
                break;
        case STATE_OFFERED:
        case STATE_RECOVERED:
                job->cancelled = true;
                job_end(job, NULL, NULL);
                break;
        case STATE_ENDED: // the answer's truth, and the result once more behind it
                job->result_due = true;
                job->answer_due = job->result->status == DEVOPSGENIE__V1__RESULT__STATUS__CANCELLED
                                          ? DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__STOPPED
                                          : DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__TOO_LATE;
                break;
        case STATE_LOST:
        case STATE_REPORTED:
        case STATE_FORGOTTEN:
        case STATES:
        default:
                agent_answer(session->agent, cancel->task, cancel->attempt, cancel->fence, NULL, "", false, 0);
                break;
        }
}

static void hear_key(struct session *session, const Devopsgenie__V1__KeyOffer *offer) {
        struct agent *agent = session->agent;
        __attribute__((cleanup(drop_text))) char *error = NULL;
        char configured[KEY_SIZE];
        if (!agent_config_key(agent->config, configured, &error)) {
                agent_log(LOG_ERROR, "the offered key is not taken", "error", error, NULL);
                return;
        }
        bool kept = key_store_keep(journal_folder(agent->journal), configured, offer->key);
        explicit_bzero(configured, sizeof configured);
        explicit_bzero(offer->key, strlen(offer->key));
        agent_log(kept ? LOG_INFO : LOG_ERROR, kept ? "a new key was taken" : "the offered key cannot be kept", NULL);
        if (kept && !agent->next && agent->connect_at_ms == INT64_MAX && !agent->draining)
                agent->connect_at_ms = agent->now_ms + random_below(NEW_KEY_WITHIN_MS);
}

static void hear_superseded(struct session *session, const Devopsgenie__V1__Superseded *superseded) {
        struct agent *agent = session->agent;
        if (agent->next) // perhaps by our own next stream: its Welcome will tell
                agent->superseded_epoch = superseded->session_epoch;
        else
                agent_superseded(agent, superseded->session_epoch);
}

static void hear_retry_later(struct session *session, const Devopsgenie__V1__RetryLater *later) {
        struct agent *agent = session->agent;
        int64_t after_ms = duration_ms(later->after, 5000, HOUR_MS);
        agent_log(LOG_WARNING, "the platform wants us later", "reason", later->reason, NULL);
        if (!strcmp(later->reason, "SUPERSEDED"))
                agent_superseded(agent, 0);
        else
                agent->connect_at_ms = agent->now_ms + after_ms + random_below(after_ms / 10 + 1);
        session_cancel(session, "come back later");
}

static void hear_drain(struct session *session, const Devopsgenie__V1__Drain *drain) {
        struct agent *agent = session->agent;
        if (agent->next || agent->draining || agent->connect_at_ms != INT64_MAX)
                return;
        agent->connect_at_ms = agent->now_ms + duration_ms(drain->reconnect_in, 0, HOUR_MS);
}

static void hear_part(struct session *session, platform_message *message) {
        switch (message->part_case) {
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_TASK_ASSIGN: {
                Devopsgenie__V1__TaskAssign *assign = message->task_assign;
                message->part_case = DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART__NOT_SET;
                message->task_assign = NULL; // it is the job's now
                hear_offer(session, assign);
                break;
        }
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_START_GRANT:
                hear_grant(session, message->start_grant);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LEASE_ACK:
                hear_lease_ack(session, message->lease_ack);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LEASE_LOST:
                hear_lease_lost(session, message->lease_lost);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_SIDE_EFFECT_ACK:
                hear_effect_ack(session, message->side_effect_ack);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_LOG_ACK:
                hear_log_ack(session, message, message->log_ack);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_RESULT_ACK:
                hear_result_ack(session, message->result_ack);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_CANCEL:
                hear_cancel(session, message->cancel);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_KEY_OFFER:
                hear_key(session, message->key_offer);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_SUPERSEDED:
                hear_superseded(session, message->superseded);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_DRAIN:
                hear_drain(session, message->drain);
                break;
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_PING:
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_WELCOME:
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_RETRY_LATER:
        case DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART__NOT_SET:
        case _DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART__CASE_IS_INT_SIZE:
        default: // what a newer platform says
                break;
        }
}

void session_hear(struct session *session, const void *data, size_t size) {
        platform_message *message = devopsgenie__v1__platform_message__unpack(NULL, size, data);
        if (!message) {
                session_cancel(session, "a message cannot be read");
                return;
        }
        session->heard_ms = session->agent->now_ms;
        if (message->seq > session->taken_seq && !session->cancelled) { // else: said before
                session->taken_seq = message->seq;
                if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_WELCOME)
                        hear_welcome(session, message->welcome);
                else if (message->part_case == DEVOPSGENIE__V1__PLATFORM_MESSAGE__PART_RETRY_LATER &&
                         session->state != SESSION_LEAVING)
                        hear_retry_later(session, message->retry_later);
                else if (session->state == SESSION_STANDING) // the stream after a LEAVING one has its jobs
                        hear_part(session, message);
        }
        devopsgenie__v1__platform_message__free_unpacked(message, NULL);
}
