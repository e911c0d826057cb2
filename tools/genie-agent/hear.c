// What the platform says, and what the agent makes of it; Welcome and StartGrant are in hear_welcome.c, offers in
// hear_offer.c.
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/key_store.h"
#include "tools/genie-agent/spool.h"

enum { NEW_KEY_WITHIN_MS = 2000 };

typedef Devopsgenie__V1__PlatformMessage platform_message;

int64_t hear_duration_ms(const Google__Protobuf__Duration *duration, int64_t fallback, int64_t most) {
        if (!duration)
                return fallback;
        if (duration->seconds < 0 || duration->nanos < 0)
                return 0;
        if (duration->seconds > most / 1000)
                return most;
        int64_t ms = duration->seconds * 1000 + duration->nanos / 1000000;
        return ms < most ? ms : most;
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
                clock_now_ms() + hear_duration_ms(cancel->grace, 30000, HOUR_MS));
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
        int64_t after_ms = hear_duration_ms(later->after, 5000, HOUR_MS);
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
        agent->connect_at_ms = agent->now_ms + hear_duration_ms(drain->reconnect_in, 0, HOUR_MS);
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
