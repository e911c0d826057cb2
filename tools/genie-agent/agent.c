#include "tools/genie-agent/agent_private.h"
#include "tools/genie-agent/clock.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

enum {
        TURN_MOST_MS = 60000,   // the longest that the loop sleeps
        STOP_LIMIT_MS = 5000,   // for jobs to stop at the end, behind the grace
        REPORT_LIMIT_MS = 3000, // for the last results to be acknowledged
        FULL_CHECK_MS = 5000,   // between two looks whether the disk has room
        FULL_NEED = 256 << 10,  // how much is room
};

const struct kind *kind_find(Devopsgenie__V1__TaskKind kind) {
        for (size_t i = 0; i < kind_count; i++)
                if (kinds[i].kind == kind)
                        return &kinds[i];
        return NULL;
}

struct job *agent_find_job(const struct agent *agent, const char *task, int attempt) {
        for (size_t i = 0; i < agent->job_count; i++) {
                struct job *job = agent->jobs[i];
                if (job->assign->attempt == attempt && !strcmp(job->assign->task, task) &&
                        job->state != STATE_FORGOTTEN)
                        return job;
        }
        return NULL;
}

long agent_free_slots(const struct agent *agent, const struct kind *kind) {
        long slots = kind->slots(agent->config);
        for (size_t i = 0; i < agent->job_count; i++)
                slots -= agent->jobs[i]->kind == kind && job_takes_slot(agent->jobs[i]);
        return slots;
}

void agent_answer(struct agent *agent, const char *task, int attempt, int64_t fence, const char *reason,
        const char *message, bool permanent, int64_t retry_after_ms) {
        if (agent->answer_count == ANSWERS_MAX)
                return;
        struct answer *answer = &agent->answers[(agent->answer_first + agent->answer_count++) % ANSWERS_MAX];
        *answer = (struct answer){.task = must(strdup(task)),
                .attempt = attempt,
                .fence = fence,
                .reason = reason,
                .permanent = permanent,
                .retry_after_ms = retry_after_ms};
        snprintf(answer->message, sizeof answer->message, "%s", message);
}

static void drop_answers(struct agent *agent) {
        for (; agent->answer_count; agent->answer_count--) {
                free(agent->answers[agent->answer_first].task);
                agent->answer_first = (agent->answer_first + 1) % ANSWERS_MAX;
        }
}

void agent_lose_all(struct agent *agent) {
        for (size_t i = 0; i < agent->job_count; i++) {
                agent->jobs[i]->log_unwanted = true;
                job_lose(agent->jobs[i]);
        }
}

void agent_superseded(struct agent *agent, int64_t epoch) {
        int64_t delay_ms = agent->config->superseded_delay_ms;
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)epoch);
        agent_log(LOG_ERROR, "another agent with the same key has taken over; each needs a key of its own", "epoch",
                text, NULL);
        agent->superseded_epoch = 0;
        agent_lose_all(agent);
        agent->connect_at_ms = agent->now_ms + delay_ms / 2 + random_below(delay_ms / 2 + 1);
        if (agent->session)
                session_cancel(agent->session, "superseded");
}

// A job's thread has ended.
static void join(struct agent *agent, struct job *job) {
        pthread_join(job->thread, NULL);
        job->has_thread = job->thread_ended = false;
        if (job->state == STATE_LOST)
                job_forget(job);
        if (agent->session)
                agent->session->credits_due = true;
}

// Timers of a job, and its end. Returns whether it is gone.
static bool check_job(struct agent *agent, struct job *job) {
        if (job->thread_ended)
                join(agent, job);
        int64_t lease_stop_ms = atomic_load(&job->lease_stop_ms);
        if (job->state == STATE_RUNNING && agent_is_due(agent, lease_stop_ms))
                job_stop(job, JOB_LEASE_LOST, 0); // for a thread that waits; one that looks has seen it
        if (job->state == STATE_REPORTED && job_log_done(job) && !job->has_thread)
                job_forget(job);
        if (job->state != STATE_FORGOTTEN || job->has_thread)
                return false;
        job_free(job);
        return true;
}

static void check_jobs(struct agent *agent) {
        for (size_t i = 0; i < agent->job_count;) {
                if (check_job(agent, agent->jobs[i])) {
                        agent->jobs[i] = agent->jobs[--agent->job_count];
                        if (agent->session)
                                agent->session->credits_due = true;
                } else {
                        i++;
                }
        }
}

static void check_disk(struct agent *agent) {
        if (!agent->full_check_ms || !agent_is_due(agent, agent->full_check_ms))
                return;
        agent->full_check_ms = journal_reserve(agent->journal, FULL_NEED) ? 0 : agent->now_ms + FULL_CHECK_MS;
        if (!agent->full_check_ms && agent->session) {
                agent_log(LOG_INFO, "the disk has room again", NULL);
                agent->session->credits_due = true;
        }
}

static void check_streams(struct agent *agent) {
        if (agent->session)
                session_check(agent->session);
        if (agent->next)
                session_check(agent->next);
        for (unsigned i = 0; i < LEAVING_MAX; i++)
                if (agent->leaving[i])
                        session_check(agent->leaving[i]);
        bool lonely = !agent->session && !agent->next;
        if (agent->next || (agent->draining && (agent->goodbye_due || !lonely)) ||
                !agent_is_due(agent, agent->connect_at_ms))
                return;
        agent->next = session_open(agent);
        agent->connect_at_ms = agent->next ? INT64_MAX : agent->now_ms + 5000; // a key or certificate that is not there
}

// Whether something still runs, or waits to be acknowledged.
static bool is_busy(const struct agent *agent, bool with_results) {
        for (size_t i = 0; i < agent->job_count; i++) {
                const struct job *job = agent->jobs[i];
                if (job->has_thread || (with_results && (job->state == STATE_ENDED || job->state == STATE_REPORTED)))
                        return true;
        }
        return false;
}

// SIGTERM: what runs may finish; then it is told to stop; then what there is to say is said; then Goodbye.
static void check_shutdown(struct agent *agent) {
        if (!agent->draining)
                return;
        if (agent->shutdown_at_ms && (!is_busy(agent, false) || agent_is_due(agent, agent->shutdown_at_ms))) {
                agent->shutdown_at_ms = 0;
                agent->give_up_at_ms = agent->now_ms + REPORT_LIMIT_MS + (is_busy(agent, false) ? STOP_LIMIT_MS : 0);
                for (size_t i = 0; i < agent->job_count; i++)
                        if (agent->jobs[i]->has_thread)
                                job_stop(agent->jobs[i], JOB_SHUTDOWN, agent->now_ms + STOP_LIMIT_MS);
        }
        if (!agent->shutdown_at_ms && !agent->goodbye_due &&
                ((!is_busy(agent, /* with_results= */ agent->session != NULL) && !is_busy(agent, false)) ||
                        agent_is_due(agent, agent->give_up_at_ms))) {
                agent->goodbye_due = true;
                agent->give_up_at_ms = agent->now_ms + REPORT_LIMIT_MS;
        }
}

static bool is_over(struct agent *agent) {
        if (!agent->goodbye_due)
                return false;
        return (!agent->session && !agent->next) || agent_is_due(agent, agent->give_up_at_ms);
}

static void handle(struct client_event *event) {
        struct session *session = event->owner;
        switch (event->kind) {
        case CLIENT_RECEIVED:
                session_hear(session, event->data, event->size);
                break;
        case CLIENT_SENT:
                session_sent(session);
                break;
        case CLIENT_ENDED:
                session_ended(session, &event->error);
                client_error_clear(&event->error);
                break;
        case CLIENT_NOTHING:
        case CLIENT_WOKEN:
        default:
                break;
        }
}

struct signal_watch {
        pthread_t thread;
        struct agent *agent;
        sigset_t set;
};

static void *watch_signals(void *argument) {
        struct signal_watch *watch = argument;
        int number;
        while (sigwait(&watch->set, &number) == 0) {
                if (number == SIGUSR1)
                        break; // of our own, at the end
                if (atomic_exchange(&watch->agent->told_to_end, true))
                        _exit(1);
                client_loop_wake(watch->agent->loop);
        }
        return NULL;
}

static void begin_shutdown(struct agent *agent) {
        agent_log(LOG_INFO, "ending", NULL);
        agent->draining = true;
        agent->shutdown_at_ms = agent->now_ms + agent->config->shutdown_grace_ms;
        if (agent->session)
                agent->session->credits_due = true;
}

static void run_loop(struct agent *agent) {
        struct client_event event = {.kind = CLIENT_NOTHING};
        for (bool over = false; !over;) {
                pthread_mutex_lock(&agent->lock);
                agent->now_ms = clock_now_ms();
                agent->wake_ms = agent->now_ms + TURN_MOST_MS;
                check_jobs(agent); // before what was heard: a lease that has run out stays so
                handle(&event);
                if (atomic_load(&agent->told_to_end) && !agent->draining)
                        begin_shutdown(agent);
                check_jobs(agent);
                check_disk(agent);
                check_streams(agent);
                check_shutdown(agent);
                if (agent->session)
                        session_say(agent->session);
                over = is_over(agent);
                int64_t sleep_ms = agent->wake_ms - agent->now_ms;
                pthread_mutex_unlock(&agent->lock);
                if (!over)
                        client_loop_next(agent->loop, sleep_ms, &event);
        }
}

// Ends what is still open, so that nothing is left for a leak checker. Jobs that do not stop are left to _exit.
static bool close_all(struct agent *agent) {
        struct client_event event;
        pthread_mutex_lock(&agent->lock);
        struct session *open[LEAVING_MAX + 2] = {agent->session, agent->next};
        memcpy(open + 2, agent->leaving, sizeof agent->leaving);
        for (size_t i = 0; i < sizeof open / sizeof *open; i++)
                if (open[i])
                        session_cancel(open[i], "the agent ends");
        bool left = is_busy(agent, false);
        pthread_mutex_unlock(&agent->lock);
        for (int64_t until = clock_now_ms() + 1000; clock_now_ms() < until;) {
                bool some = agent->session || agent->next;
                for (unsigned i = 0; i < LEAVING_MAX; i++)
                        some |= agent->leaving[i] != NULL;
                if (!some)
                        return !left;
                client_loop_next(agent->loop, 100, &event);
                pthread_mutex_lock(&agent->lock);
                agent->connect_at_ms = 0; // no other
                if (event.kind == CLIENT_ENDED)
                        handle(&event);
                else if (event.kind == CLIENT_SENT)
                        ((struct session *)event.owner)->writing = false;
                pthread_mutex_unlock(&agent->lock);
        }
        return false;
}

static void free_all(struct agent *agent) {
        for (size_t i = 0; i < agent->job_count; i++)
                job_free(agent->jobs[i]);
        drop_answers(agent);
        free(agent->session_token);
        client_loop_free(agent->loop);
        journal_close(agent->journal);
        pthread_mutex_destroy(&agent->lock);
        free(agent);
}

static struct agent *make(const struct agent_config *config) {
        struct agent *agent = must(calloc(1, sizeof *agent));
        char *error = NULL;
        agent->config = config;
        agent->now_ms = clock_now_ms();
        random_uuid(agent->instance_id);
        pthread_mutex_init(&agent->lock, NULL);
        agent->loop = client_loop_new();
        agent->journal = journal_open(config->state_directory, (size_t)config->journal_bytes, &error);
        if (agent->loop && agent->journal && agent_recover(agent))
                return agent;
        fprintf(stderr, "genie-agent: %s\n", error ? error : "the journal cannot be read, or there is no memory");
        free(error);
        free_all(agent);
        return NULL;
}

int agent_run(const struct agent_config *config) {
        struct signal_watch watch = {0};
        sigemptyset(&watch.set);
        sigaddset(&watch.set, SIGTERM);
        sigaddset(&watch.set, SIGINT);
        sigaddset(&watch.set, SIGUSR1);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN);                     // a file that may not grow is a full disk
        pthread_sigmask(SIG_BLOCK, &watch.set, NULL); // before there is any other thread

        struct agent *agent = make(config);
        if (!agent)
                return 1;
        watch.agent = agent;
        if (pthread_create(&watch.thread, NULL, watch_signals, &watch) != 0) {
                free_all(agent);
                return 1;
        }
        agent_log(LOG_INFO, "started", "version", GENIE_VERSION, "endpoint", config->endpoint, NULL);
        run_loop(agent);
        agent_log(LOG_INFO, "ended", NULL);
        if (!close_all(agent))
                _exit(0);
        pthread_kill(watch.thread, SIGUSR1);
        pthread_join(watch.thread, NULL);
        free_all(agent);
        return 0;
}
