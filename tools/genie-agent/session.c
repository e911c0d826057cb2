#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/clock.h"
#include "tools/genie-agent/key_store.h"

#include <assert.h>
#include <errno.h>

#define METHOD "/devopsgenie.v1.TaskChannelService/Connect"
enum { WELCOME_LIMIT_MS = 20000, LEAVE_LIMIT_MS = 5000, LOG_STALL_MS = 10000, UNAUTHENTICATED = 16 };

static void put_labels(Devopsgenie__V1__Hello *hello, const struct agent_config *config) {
        hello->labels = must(calloc(config->label_count + 1, sizeof *hello->labels));
        for (size_t i = 0; i < config->label_count; i++) {
                Devopsgenie__V1__Hello__LabelsEntry *entry = must(malloc(sizeof *entry));
                devopsgenie__v1__hello__labels_entry__init(entry);
                entry->key = must(strdup(config->labels[i].name));
                entry->value = must(strdup(config->labels[i].value));
                hello->labels[hello->n_labels++] = entry;
        }
}

static void put_kinds(Devopsgenie__V1__Hello *hello, const struct agent_config *config) {
        hello->kinds = must(calloc(kind_count + 1, sizeof *hello->kinds));
        for (size_t i = 0; i < kind_count; i++)
                if (kinds[i].slots(config) > 0)
                        hello->kinds[hello->n_kinds++] = kinds[i].kind;
}

static void put_running(Devopsgenie__V1__Hello *hello, const struct agent *agent) {
        hello->running = must(calloc(agent->job_count + 1, sizeof *hello->running));
        for (size_t i = 0; i < agent->job_count; i++) {
                const struct job *job = agent->jobs[i];
                bool ended = job->state == STATE_ENDED || job->state == STATE_REPORTED;
                if (!ended && job->state != STATE_OFFERED && job->state != STATE_RECOVERED && !job_is_leased(job))
                        continue;
                Devopsgenie__V1__RunningTask *running = must(malloc(sizeof *running));
                devopsgenie__v1__running_task__init(running);
                running->task = must(strdup(job->assign->task));
                running->attempt = job->assign->attempt;
                running->fence = job->assign->fence;
                running->result_pending = ended;
                hello->running[hello->n_running++] = running;
        }
}

static Devopsgenie__V1__Hello *make_hello(const struct agent *agent) {
        Devopsgenie__V1__Hello *hello = must(malloc(sizeof *hello));
        devopsgenie__v1__hello__init(hello);
        hello->protocol_versions = must(malloc(sizeof *hello->protocol_versions));
        hello->protocol_versions[hello->n_protocol_versions++] = 1;
        hello->instance_id = must(strdup(agent->instance_id));
        hello->session_token = must(strdup(agent->session_token ? agent->session_token : ""));
        hello->last_seen_seq = agent->session ? agent->session->taken_seq : agent->last_taken_seq;
        hello->version = must(strdup(GENIE_VERSION));
        put_labels(hello, agent->config);
        put_kinds(hello, agent->config);
        put_running(hello, agent);
        return hello;
}

static void greet(struct session *session) {
        Devopsgenie__V1__WorkerMessage message = DEVOPSGENIE__V1__WORKER_MESSAGE__INIT;
        message.seq = ++session->seq;
        message.part_case = DEVOPSGENIE__V1__WORKER_MESSAGE__PART_HELLO;
        message.hello = make_hello(session->agent);
        size_t size = devopsgenie__v1__worker_message__get_packed_size(&message);
        uint8_t *packed = must(malloc(size));
        devopsgenie__v1__worker_message__pack(&message, packed);
        client_channel_send(session->channel, packed, size);
        session->writing = true;
        devopsgenie__v1__hello__free_unpacked(message.hello, NULL);
        free(packed);
}

// The offered key where there is one; where it was refused the configured one has its turn.
static bool find_key(struct session *session, char ret_key[static KEY_SIZE], char **ret_error) {
        const struct agent *agent = session->agent;
        char configured[KEY_SIZE];
        if (!agent_config_key(agent->config, configured, ret_error))
                return false;
        session->used_offered_key = !agent->key_refused &&
                                    key_store_find(journal_folder(agent->journal), configured, ret_key);
        if (!session->used_offered_key)
                memcpy(ret_key, configured, KEY_SIZE);
        explicit_bzero(configured, sizeof configured);
        return true;
}

struct session *session_open(struct agent *agent) {
        struct session *session = must(calloc(1, sizeof *session));
        __attribute__((cleanup(drop_text))) char *error = NULL;
        char key[KEY_SIZE];
        *session = (struct session){.agent = agent, .opened_ms = agent->now_ms, .heard_ms = agent->now_ms};
        if (find_key(session, key, &error)) {
                const struct client_settings settings = {
                        .endpoint = agent->config->endpoint,
                        .ca_file = *agent->config->ca_file ? agent->config->ca_file : NULL,
                        .plaintext = agent->config->plaintext,
                        .credential = key,
                };
                session->channel = client_channel_open(agent->loop, &settings, METHOD, session, &error);
                explicit_bzero(key, sizeof key);
        }
        if (!session->channel) {
                agent_log(LOG_ERROR, "cannot connect", "error", error ? error : "out of memory", NULL);
                free(session);
                return NULL;
        }
        greet(session);
        return session;
}

void session_cancel(struct session *session, const char *why) {
        if (session->cancelled)
                return;
        session->cancelled = true;
        agent_log(LOG_WARNING, "the stream is given up", "why", why, NULL);
        client_channel_cancel(session->channel);
}

static void half_close(struct session *session) {
        if (session->writing || session->cancelled || session->half_closed)
                return;
        session->half_closed = true;
        client_channel_half_close(session->channel);
}

void session_leave(struct session *session) {
        assert(session->state == SESSION_STANDING);
        session->state = SESSION_LEAVING;
        session->leave_at_ms = session->agent->now_ms + LEAVE_LIMIT_MS;
        half_close(session);
}

void session_sent(struct session *session) {
        session->writing = false;
        if (session->state == SESSION_LEAVING)
                half_close(session);
}

// Bytes of log that are on the way on the stream that is used.
static int64_t log_bytes_in_flight(const struct agent *agent) {
        int64_t bytes = 0;
        for (size_t i = 0; i < agent->job_count; i++)
                for (int j = 0; j < JOB_LOGS; j++)
                        bytes += log_window_in_flight(&agent->jobs[i]->logs[j].window);
        return bytes;
}

// LogAcks that do not come for what is on the way, or for a window of nothing: all of it goes out again.
static void check_logs(struct session *session) {
        struct agent *agent = session->agent;
        if (!session->log_stalled_ms || !agent_is_due(agent, session->log_stalled_ms + LOG_STALL_MS))
                return;
        session->log_stalled_ms = 0;
        if (log_bytes_in_flight(agent) == 0 && session->log_window > 0)
                return;
        agent_log(LOG_WARNING, "no LogAck comes: what is not acknowledged is sent again", NULL);
        if (session->log_window <= 0)
                session->log_window = (int64_t)session->log_chunk;
        for (size_t i = 0; i < agent->job_count; i++)
                for (int j = 0; j < JOB_LOGS; j++)
                        log_window_rewind(&agent->jobs[i]->logs[j].window, /* new_stream= */ false);
}

void session_check(struct session *session) {
        struct agent *agent = session->agent;
        switch (session->state) {
        case SESSION_GREETING:
                if (agent_is_due(agent, session->opened_ms + WELCOME_LIMIT_MS))
                        session_cancel(session, "no Welcome in time");
                break;
        case SESSION_STANDING:
                if (agent_is_due(agent, session->heard_ms + session->silence_ms))
                        session_cancel(session, "nothing is heard");
                check_logs(session);
                agent_is_due(agent, session->heartbeat_at_ms); // session_say sends them; the loop is to be back
                agent_is_due(agent, session->renew_at_ms);
                break;
        case SESSION_LEAVING:
        default:
                if (agent_is_due(agent, session->leave_at_ms))
                        session_cancel(session, "it does not end");
                break;
        }
}

// Takes it out of wherever the agent has it. Whether the agent is to open another.
static bool detach(struct agent *agent, const struct session *session) {
        for (unsigned i = 0; i < LEAVING_MAX; i++)
                if (agent->leaving[i] == session)
                        agent->leaving[i] = NULL;
        if (agent->session == session) {
                agent->last_taken_seq = session->taken_seq;
                agent->session = NULL;
                return true;
        }
        if (agent->next != session)
                return false;
        agent->next = NULL;
        return true;
}

// When to try again: a random time up to a bound that doubles with each failure.
static void back_off(struct agent *agent) {
        enum { LEAST_MS = 200, MOST_MS = 30000, DOUBLINGS_MAX = 8 };
        int64_t bound_ms = (int64_t)LEAST_MS << (agent->failures < DOUBLINGS_MAX ? agent->failures : DOUBLINGS_MAX);
        agent->connect_at_ms = agent->now_ms + random_below(bound_ms < MOST_MS ? bound_ms : MOST_MS);
}

void session_ended(struct session *session, const struct client_error *error) {
        enum { STEADY_MS = 5000 }; // one that stood so long was no failure
        struct agent *agent = session->agent;
        bool wanted = detach(agent, session);
        char next[24] = "";

        if (wanted) {
                agent->key_refused = error->code == UNAUTHENTICATED && session->used_offered_key;
                bool steady = session->state != SESSION_GREETING && agent->now_ms - session->stood_ms >= STEADY_MS;
                agent->failures = steady ? 0 : agent->failures + 1;
        }
        if (wanted && !agent->next && agent->connect_at_ms == INT64_MAX)
                back_off(agent);
        if (wanted && agent->connect_at_ms != INT64_MAX)
                snprintf(next, sizeof next, "%lld", (long long)(agent->connect_at_ms - agent->now_ms));
        agent_log(wanted && !agent->draining ? LOG_WARNING : LOG_INFO, "the stream has ended", "code",
                client_code_name(error->code), "reason", error->reason, "message", error->message, "next_try_ms", next,
                NULL);
        client_channel_free(session->channel);
        free(session);
}
