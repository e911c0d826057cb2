// An agent's session: what it may be given, what it has, and what it says. Everything here under the channel's mutex.
//
// A session belongs to its call's stream; statements that are under way hold it beyond the call's end, when `call` is
// NULL and nothing is sent any more.
#pragma once

#include "server/rpc/call.h"

#include <devopsgenie/v1/task_channel_service.pb-c.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

struct channel;
struct load;
struct organization;

typedef Devopsgenie__V1__PlatformMessage PlatformMessage;
typedef Devopsgenie__V1__WorkerMessage WorkerMessage;

enum { ATTEMPTS_MAX = 1000, LOG_PARTS = 2, TASK_KINDS = 3 };
#define LOG_OPEN INT64_MAX

// What a session knows of an attempt. drawn in ARCHITECTURE.md from the table in session.c.
enum attempt_state {
        ATTEMPT_OFFERED,  // TaskAssign is sent
        ATTEMPT_STARTING, // TaskAck has come, RUNNING is not durable yet
        ATTEMPT_RUNNING,  // StartGrant is sent
        ATTEMPT_ENDED,    // its result is known; logs may follow
        ATTEMPT_STATES
};

struct attempt {
        char task[UUID_SIZE];
        int32_t number;
        int64_t fence;
        enum attempt_state state;
        int kind;
        int64_t offer_seq, offer_time; // the TaskAssign's
        struct {
                int64_t accepted, durable; // how far the log is taken in, and how far it is written
                unsigned on_way;           // pieces that wait to be written
                bool answered;             // some of them have been
                int64_t end;               // where it ends, as was told; LOG_OPEN: it was not
        } log[LOG_PARTS];
        int percent;
        char *step;
        bool renew, cancel_early, cancel_told, log_full;
        int cancel_mode;
        int64_t cancel_grace_ms;
};

struct session {
        struct channel *channel;
        struct call *call; // NULL: it has ended
        struct organization *organization;
        unsigned references;
        char agent_id[UUID_SIZE], agent_key_id[UUID_SIZE], organization_id[UUID_SIZE], slug[SLUG_MAX + 1];
        int64_t epoch;
        const Devopsgenie__V1__Hello *hello; // the call's, as long as there is a call
        int64_t seq_sent, seq_taken, heard;
        int free[TASK_KINDS];
        bool draining; // the agent wants no more
        bool key_offer_under_way, key_told;
        unsigned unanswered;                   // requests of its that wait for the database
        unsigned before_result;                // of them, side effects and answers to Cancels: a Result waits for them
        const Devopsgenie__V1__Result *result; // that waits; in the stream's memory, until the next message is read
        unsigned budget;                       // how many more messages are read before the next second
        bool paused;                           // nothing is read now
        unsigned pieces_on_way;                // of logs, that are not written yet
        int64_t log_on_way;                    // bytes of logs that are not written yet
        int64_t renew_seq, renew_under_way;    // LeaseRenew to be acknowledged; 0: none
        struct attempt *attempts;
        unsigned attempt_count, attempt_room, ended_count; // of which so many have ended, and make room for others
        struct {                                           // why it is to end; NULL reason: it is not
                enum code code;
                const char *reason, *told, *message; // for the call; WatchAgentsResponse.reason
                int64_t time;                        // since when; CLOCK_MONOTONIC nanoseconds
        } end;
        struct session *prev, *next;         // of the organization
        struct session *ask_prev, *ask_next; // of those that may take its tasks (dispatch.c)
        UT_hash_handle hh;
};

void session_hold(struct session *session);
void session_release(struct session *session);

// Sends a message; seq and ack_seq are set here.
void session_post(struct session *session, PlatformMessage *message);

// Ends the session's call soon. The first reason stands. All texts are static; `told`: what watchers are told.
void session_end(struct session *session, enum code code, const char *reason, const char *told, const char *message);

// Tells the agent to come back later; who calls ends the session. `reason` is static.
void session_retry_later(struct session *session, int64_t after_ms, const char *reason);

// Ends it because there is no room for what it says.
void session_overload(struct session *session);

// Tells the agent to come back to another server.
void session_drain(struct session *session, int64_t reconnect_in_ms, int64_t deadline_ms);

// Takes a message in. Its memory is the session's until it wants the next one.
void session_take(struct session *session, const WorkerMessage *message);

// Takes in what has waited for its turn.
void session_resume(struct session *session);

// What of Hello.running goes on: an attempt that the session knows from now on.
void session_adopt(struct session *session, const char *task, int32_t number, int64_t fence, enum attempt_state state,
        int64_t stdout_offset, int64_t stderr_offset);

// An offer is made: row `row` of claim_tasks.
void session_offer(struct session *session, const PGresult *result, int row);

// How many more tasks of a kind it can be offered now.
int session_free(const struct session *session, int kind);

// Tells an attempt to stop, unless it has been told so already.
void session_cancel(
        struct session *session, const char *task, int32_t number, int64_t fence, int mode, int64_t grace_ms);

// An attempt is no longer the session's.
void session_lose(struct session *session, const char *task, int32_t number, int64_t fence, const char *reason);

// A newer session of the agent has taken over.
void session_supersede(struct session *session, int64_t epoch);

// Makes a key and tells it to the agent.
void session_offer_key(struct session *session);

// Offers that were not answered are forgotten; the next second's messages may be read.
void session_second(struct session *session, int64_t now);

// Whether it takes the next message now.
bool session_wants_message(const struct session *session);

// Whether its agent does not read what it is told.
bool session_is_behind(const struct session *session);

// What came of its statements.
void starts_done(struct channel *channel, const struct load *load, const PGresult *result);
void rejections_done(struct channel *channel, const struct load *load, const PGresult *result);
void endings_done(struct channel *channel, const struct load *load, const PGresult *result);
void effects_done(struct channel *channel, const struct load *load, const PGresult *result);
void logs_done(struct channel *channel, const struct load *load, const PGresult *result);
void answers_done(struct channel *channel, const struct load *load, const PGresult *result);
