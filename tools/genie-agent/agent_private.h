// The agent's state, for the files that make the loop: agent.c (time), session.c (streams), hear*.c (what comes), say.c
// (what goes), recover.c (what a process before left).
#pragma once

#include "tools/client/client_channel.h"
#include "tools/genie-agent/agent.h"
#include "tools/genie-agent/job_private.h"
#include "tools/genie-agent/journal.h"
#include "tools/genie-agent/lease.h"
#include "tools/genie-agent/log.h"
#include "tools/genie-agent/text.h"

enum { JOBS_MAX = 1000, ANSWERS_MAX = 64, LEAVING_MAX = 4, HOUR_MS = 3600000 };

// Says Hello → stands → leaves; the other edges are ends. session_state.dot is a drawing.
enum session_state { SESSION_GREETING, SESSION_STANDING, SESSION_LEAVING };

struct session {
        struct agent *agent;
        struct client_channel *channel;
        enum session_state state;
        int64_t epoch, seq, taken_seq;
        int64_t opened_ms, heard_ms; // Hello is sent when it is opened
        int64_t stood_ms;            // when Welcome came
        bool writing;                // a message is on its way out
        bool cancelled, half_closed; // from this side
        bool used_offered_key;
        int64_t heartbeat_ms, silence_ms, lease_ms, renew_ms, log_window;
        size_t log_chunk;
        int64_t renew_at_ms, heartbeat_at_ms,
                log_stalled_ms; // stalled: since when no LogAck has come for what is in flight; 0: none is
        int64_t leave_at_ms;    // LEAVING: when it is cancelled
        struct lease_renewals renewals;
        bool credits_due, draining_said;
        size_t next_log; // whose turn it is
};

// An answer about an attempt that the agent does not have.
struct answer {
        char *task;
        int attempt;
        int64_t fence;
        const char *reason; // of a TaskReject, a literal; NULL: CancelAck TOO_LATE
        char message[REFUSAL_SIZE];
        bool permanent;
        int64_t retry_after_ms; // 0: not said
};

struct agent {
        const struct agent_config *config;
        struct journal *journal;
        struct client_loop *loop;
        pthread_mutex_t lock;
        int64_t now_ms, wake_ms; // of this turn; when the next one is due at the latest
        char instance_id[UUID_SIZE];

        struct session *session, *next; // the one that is used; the one that is to take its place
        struct session *leaving[LEAVING_MAX];
        char *session_token;
        int64_t last_taken_seq;   // of the stream before, where there is none now
        int64_t connect_at_ms;    // when to open the next stream; INT64_MAX: not now
        unsigned failures;        // in a row
        int64_t superseded_epoch; // by whom; 0: not
        bool key_refused;         // the offered one, by the last stream

        struct job *jobs[JOBS_MAX];
        size_t job_count;
        struct answer answers[ANSWERS_MAX]; // a ring
        size_t answer_first, answer_count;

        int64_t full_check_ms;   // the disk is full: no offers, and the next look at it; 0: it is not
        atomic_bool told_to_end; // by a signal
        bool draining;           // shutting down: no more offers
        int64_t shutdown_at_ms, give_up_at_ms;
        bool goodbye_due, goodbye_said;
};

// Whether the time has come; else the loop will be back by then.
static inline bool agent_is_due(struct agent *agent, int64_t at_ms) {
        if (agent->now_ms >= at_ms)
                return true;
        if (at_ms < agent->wake_ms)
                agent->wake_ms = at_ms;
        return false;
}

struct job *agent_find_job(const struct agent *agent, const char *task, int attempt);

// How many more tasks of a kind there is room for.
long agent_free_slots(const struct agent *agent, const struct kind *kind);

// Stops what runs, and forgets it: all of it is another's.
void agent_lose_all(struct agent *agent);

// The answer waits for its turn; where too many wait it is left out: the platform asks again, or stops waiting.
void agent_answer(struct agent *agent, const char *task, int attempt, int64_t fence, const char *reason,
        const char *message, bool permanent, int64_t retry_after_ms);

// Another instance has taken over: everything stops, and the next try is a long time away.
void agent_superseded(struct agent *agent, int64_t epoch);

// session.c
struct session *session_open(struct agent *agent); // NULL: not now
void session_check(struct session *session);       // its times
void session_leave(struct session *session);       // half-closes it, and sees to its end
void session_sent(struct session *session);        // the message is on its way
void session_cancel(struct session *session, const char *why);
void session_ended(struct session *session, const struct client_error *error); // frees it

// hear.c: takes a message.
void session_hear(struct session *session, const void *data, size_t size);

// Milliseconds, from 0 to `most`; `fallback` where it is not set.
int64_t hear_duration_ms(const Google__Protobuf__Duration *duration, int64_t fallback, int64_t most);

// hear_welcome.c
void hear_welcome(struct session *session, const Devopsgenie__V1__Welcome *welcome);
void hear_grant(struct session *session, const Devopsgenie__V1__StartGrant *grant);

// hear_offer.c: takes the assignment over, or drops it.
void hear_offer(struct session *session, Devopsgenie__V1__TaskAssign *assign);

// say.c: sends what is most urgent, if there is something and it can be sent.
void session_say(struct session *session);

// recover.c
bool agent_recover(struct agent *agent) __attribute__((warn_unused_result));
