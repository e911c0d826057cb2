// What the agent says next. Nothing waits in a queue: each state of the agent has a flag for what it has to say, and
// the most urgent one is looked for when a message can go out. So a control message waits for one chunk of log at most,
// and there is nothing to overflow.
#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/checksum.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/spool.h"

#include <assert.h>

enum { PROGRESS_EVERY_MS = 250, LOG_CHUNK_MOST = 64 << 10 };

typedef Devopsgenie__V1__WorkerMessage worker_message;

#define PART(message, upper, member, value)                                                                            \
        ((message)->part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_##upper, (message)->member = (value))

// Numbers the message and sends it.
static void send(struct session *session, worker_message *message) {
        message->seq = ++session->seq;
        message->ack_seq = session->taken_seq;
        size_t size = devopsgenie__v1__worker_message__get_packed_size(message);
        uint8_t *packed = must(malloc(size));
        devopsgenie__v1__worker_message__pack(message, packed);
        client_channel_send(session->channel, packed, size);
        session->writing = true;
        free(packed);
        devopsgenie__v1__worker_message__init(message); // what it pointed to ends with its sayer
}

static void set_duration(Google__Protobuf__Duration *duration, int64_t ms) {
        google__protobuf__duration__init(duration);
        duration->seconds = ms / 1000;
        duration->nanos = (int32_t)(ms % 1000) * 1000000;
}

static bool say_draining(struct session *session, worker_message *message) {
        static Devopsgenie__V1__Draining draining = DEVOPSGENIE__V1__DRAINING__INIT;
        if (!session->agent->draining || session->draining_said)
                return false;
        session->draining_said = true;
        PART(message, DRAINING, draining, &draining);
        send(session, message);
        return true;
}

static bool say_answer(struct session *session, worker_message *message) {
        struct agent *agent = session->agent;
        if (agent->answer_count == 0)
                return false;
        struct answer *answer = &agent->answers[agent->answer_first];
        agent->answer_first = (agent->answer_first + 1) % ANSWERS_MAX;
        agent->answer_count--;
        Devopsgenie__V1__TaskReject reject = DEVOPSGENIE__V1__TASK_REJECT__INIT;
        Devopsgenie__V1__CancelAck too_late = DEVOPSGENIE__V1__CANCEL_ACK__INIT;
        Google__Protobuf__Duration retry_after;
        set_duration(&retry_after, answer->retry_after_ms);
        if (answer->reason) {
                reject.task = answer->task;
                reject.attempt = answer->attempt;
                reject.fence = answer->fence;
                reject.reason = unconst(answer->reason);
                reject.message = answer->message;
                reject.permanent = answer->permanent;
                reject.retry_after = answer->retry_after_ms ? &retry_after : NULL;
                PART(message, TASK_REJECT, task_reject, &reject);
        } else {
                too_late.task = answer->task;
                too_late.attempt = answer->attempt;
                too_late.fence = answer->fence;
                too_late.answer = DEVOPSGENIE__V1__TASK_CANCELLATION__ANSWER__TOO_LATE;
                PART(message, CANCEL_ACK, cancel_ack, &too_late);
        }
        send(session, message);
        free(answer->task);
        return true;
}

static bool say_task_ack(struct session *session, struct job *job, worker_message *message) {
        Devopsgenie__V1__TaskAck ack = DEVOPSGENIE__V1__TASK_ACK__INIT;
        if (!job->ack_due)
                return false;
        job->ack_due = false;
        job->acked_ms = clock_now_ms(); // the lease is not older than this
        ack.task = job->assign->task;
        ack.attempt = job->assign->attempt;
        ack.fence = job->assign->fence;
        PART(message, TASK_ACK, task_ack, &ack);
        send(session, message);
        return true;
}

static bool say_cancel_ack(struct session *session, struct job *job, worker_message *message) {
        Devopsgenie__V1__CancelAck ack = DEVOPSGENIE__V1__CANCEL_ACK__INIT;
        if (!job->answer_due)
                return false;
        ack.task = job->assign->task;
        ack.attempt = job->assign->attempt;
        ack.fence = job->assign->fence;
        ack.answer = job->answer_due;
        job->answer_due = 0;
        PART(message, CANCEL_ACK, cancel_ack, &ack);
        send(session, message);
        return true;
}

static bool say_result(struct session *session, struct job *job, worker_message *message) {
        if (!job->result_due)
                return false;
        job->result_due = false;
        PART(message, RESULT, result, job->result);
        send(session, message);
        return true;
}

static bool say_effect(struct session *session, struct job *job, worker_message *message) {
        struct effect *effect = NULL;
        for (struct effect *each = job->effects; each; each = each->next)
                if (each->due)
                        effect = each; // the oldest
        if (!effect)
                return false;
        Devopsgenie__V1__SideEffect said = DEVOPSGENIE__V1__SIDE_EFFECT__INIT;
        effect->due = false;
        said.task = job->assign->task;
        said.attempt = job->assign->attempt;
        said.fence = job->assign->fence;
        said.key = effect->key;
        said.reference = effect->reference;
        PART(message, SIDE_EFFECT, side_effect, &said);
        send(session, message);
        return true;
}

static bool say_progress(struct session *session, struct job *job, worker_message *message) {
        Devopsgenie__V1__Progress progress = DEVOPSGENIE__V1__PROGRESS__INIT;
        if (!job->progress_due || job->state != STATE_RUNNING ||
                !agent_is_due(session->agent, job->progress_sent_ms + PROGRESS_EVERY_MS))
                return false;
        job->progress_due = false;
        job->progress_sent_ms = session->agent->now_ms;
        progress.task = job->assign->task;
        progress.attempt = job->assign->attempt;
        progress.fence = job->assign->fence;
        progress.percent = job->percent;
        progress.step = job->step;
        PART(message, PROGRESS, progress, &progress);
        send(session, message);
        return true;
}

static bool say_credits(struct session *session, worker_message *message) {
        struct agent *agent = session->agent;
        Devopsgenie__V1__KindCredits each[8], *list[8];
        Devopsgenie__V1__Credits credits = DEVOPSGENIE__V1__CREDITS__INIT;
        if (!session->credits_due)
                return false;
        session->credits_due = false;
        credits.free = list;
        bool none = agent->draining || agent->full_check_ms || agent->job_count + 100 > JOBS_MAX;
        for (size_t i = 0; i < kind_count && i < sizeof each / sizeof *each && !none; i++) {
                long slots = agent_free_slots(agent, &kinds[i]);
                if (slots <= 0)
                        continue;
                devopsgenie__v1__kind_credits__init(&each[i]);
                each[i].kind = kinds[i].kind;
                each[i].free = (int32_t)slots;
                list[credits.n_free++] = &each[i];
        }
        PART(message, CREDITS, credits, &credits);
        send(session, message);
        return true;
}

static bool say_renewal(struct session *session, worker_message *message) {
        struct agent *agent = session->agent;
        if (!agent_is_due(agent, session->renew_at_ms))
                return false;
        session->renew_at_ms = agent->now_ms + session->renew_ms;
        Devopsgenie__V1__LeasedTask *each = must(calloc(agent->job_count + 1, sizeof *each));
        Devopsgenie__V1__LeasedTask **list = must(calloc(agent->job_count + 1, sizeof *list));
        Devopsgenie__V1__LeaseRenew renew = DEVOPSGENIE__V1__LEASE_RENEW__INIT;
        renew.tasks = list;
        for (size_t i = 0; i < agent->job_count; i++) {
                struct job *job = agent->jobs[i];
                if (!job_is_leased(job))
                        continue;
                devopsgenie__v1__leased_task__init(&each[i]);
                each[i].task = job->assign->task;
                each[i].attempt = job->assign->attempt;
                each[i].fence = job->assign->fence;
                list[renew.n_tasks++] = &each[i];
                if (!job->renewed_seq)
                        job->renewed_seq = session->seq + 1;
        }
        bool some = renew.n_tasks > 0;
        if (some) {
                PART(message, LEASE_RENEW, lease_renew, &renew);
                lease_renewal_sent(&session->renewals, session->seq + 1, clock_now_ms());
                send(session, message);
        }
        free(list);
        free(each);
        return some;
}

static bool say_heartbeat(struct session *session, worker_message *message) {
        static Devopsgenie__V1__Heartbeat heartbeat = DEVOPSGENIE__V1__HEARTBEAT__INIT;
        if (!agent_is_due(session->agent, session->heartbeat_at_ms))
                return false;
        session->heartbeat_at_ms = session->agent->now_ms + session->heartbeat_ms;
        PART(message, HEARTBEAT, heartbeat, &heartbeat);
        send(session, message);
        return true;
}

static bool say_goodbye(struct session *session, worker_message *message) {
        struct agent *agent = session->agent;
        if (!agent->goodbye_due || agent->goodbye_said)
                return false;
        Devopsgenie__V1__Goodbye goodbye = DEVOPSGENIE__V1__GOODBYE__INIT;
        goodbye.reason = unconst("the agent was told to end");
        agent->goodbye_said = true;
        PART(message, GOODBYE, goodbye, &goodbye);
        send(session, message);
        session_leave(session);
        return true;
}

// How much of the window is left, for all logs together.
static int64_t log_window_left(const struct session *session) {
        int64_t left = session->log_window;
        for (size_t i = 0; i < session->agent->job_count; i++)
                for (int j = 0; j < JOB_LOGS; j++)
                        left -= log_window_in_flight(&session->agent->jobs[i]->logs[j].window);
        return left;
}

static bool say_log(struct session *session, struct job *job, int part, int64_t room, worker_message *message) {
        Devopsgenie__V1__LogChunk chunk = DEVOPSGENIE__V1__LOG_CHUNK__INIT;
        struct log_window *window = &job->logs[part].window;
        uint8_t data[LOG_CHUNK_MOST];
        size_t size;
        bool eof;
        if (job->log_unwanted || job->state == STATE_OFFERED || job->state == STATE_LOST ||
                job->state == STATE_FORGOTTEN || !log_window_next(window, session->log_chunk, room, &size, &eof))
                return false;
        if (!spool_read(job->logs[part].file, window->sent, data, size)) {
                agent_log(LOG_ERROR, "the log on disk cannot be read", "task", job->assign->task, NULL);
                job->log_unwanted = true;
                return false;
        }
        chunk.task = job->assign->task;
        chunk.attempt = job->assign->attempt;
        chunk.fence = job->assign->fence;
        chunk.stream = (Devopsgenie__V1__LogStream)(part + 1);
        chunk.offset = window->sent;
        chunk.data = (ProtobufCBinaryData){size, data};
        chunk.crc32c = checksum_crc32c(data, size);
        chunk.eof = eof;
        log_window_sent(window, size, eof, session->seq + 1);
        PART(message, LOG_CHUNK, log_chunk, &chunk);
        send(session, message);
        if (!session->log_stalled_ms)
                session->log_stalled_ms = session->agent->now_ms;
        return true;
}

// Logs take turns.
static bool say_logs(struct session *session, worker_message *message) {
        const struct agent *agent = session->agent;
        int64_t room = log_window_left(session);
        size_t logs = agent->job_count * JOB_LOGS;
        for (size_t i = 0; i < logs; i++) {
                size_t turn = (session->next_log + i) % logs;
                if (say_log(session, agent->jobs[turn / JOB_LOGS], (int)(turn % JOB_LOGS), room, message)) {
                        session->next_log = turn + 1;
                        return true;
                }
        }
        return false;
}

static bool say_of_jobs(struct session *session, worker_message *message,
        bool (*say)(struct session *session, struct job *job, worker_message *message)) {
        for (size_t i = 0; i < session->agent->job_count; i++) {
                struct job *job = session->agent->jobs[i];
                bool ours = job->state != STATE_LOST && job->state != STATE_FORGOTTEN; // else nothing is said of it
                if (ours && say(session, job, message))
                        return true;
        }
        return false;
}

void session_say(struct session *session) {
        worker_message message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        if (session->state != SESSION_STANDING || session->writing || session->cancelled)
                return;
        // In the order of their urgency.
        (void)(say_renewal(session, &message) || say_draining(session, &message) || say_answer(session, &message) ||
                say_of_jobs(session, &message, say_task_ack) || say_of_jobs(session, &message, say_cancel_ack) ||
                say_of_jobs(session, &message, say_effect) || say_of_jobs(session, &message, say_result) ||
                say_credits(session, &message) || say_heartbeat(session, &message) || say_goodbye(session, &message) ||
                say_of_jobs(session, &message, say_progress) || say_logs(session, &message));
}
