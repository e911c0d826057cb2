#include "storage/storage.h"

#include "storage/connection.h"
#include "storage/lane.h"
#include "storage/storage_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 32 };

// Timers are looked at this often at least, and not more often than that.
#define LONGEST_SLEEP (1 * SECOND)
#define SHORTEST_SLEEP (1 * MILLISECOND)
// While a lane is saturated its submitters do not wake the thread, so it looks by itself for what is cancelled or late.
#define SATURATED_SLEEP (10 * MILLISECOND)

int64_t storage_clock(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return time.tv_sec * SECOND + time.tv_nsec;
}

// Edge-triggered: each write is one wake-up, and nobody has to read the counter.
static void wake(struct storage *storage) {
        uint64_t one = 1;
        while (write(storage->event, &one, sizeof one) < 0 && errno == EINTR)
                ;
}

void storage_look(struct storage *storage) {
        if (!atomic_exchange(&storage->look, true))
                wake(storage);
}

bool storage_submit(struct storage *storage, struct storage_operation *operation) {
        struct lane_state *lane = &storage->lanes[operation->statement->lane];
        unsigned limit = storage->config.queue_limit[lane->number];
        // Counted before `stopping` is read: the thread that stops either sees the count or is seen.
        if (atomic_fetch_add(&lane->pending, 1) >= limit || atomic_load(&storage->stopping)) {
                atomic_fetch_sub(&lane->pending, 1);
                return false;
        }
        operation->state = 0;
        struct storage_operation *first = atomic_load_explicit(&storage->inbox, memory_order_relaxed);
        do
                operation->next = first;
        while (!atomic_compare_exchange_weak(&storage->inbox, &first, operation));
        // The thread sets `wake`, then looks into the inbox a last time before it sleeps.
        if (atomic_load(&lane->wake) && atomic_exchange(&lane->wake, false))
                wake(storage);
        return true;
}

void storage_cancel(struct storage *storage, struct storage_operation *operation) {
        operation->cancelled = true;
        storage_look(storage);
}

// Hands what was submitted to the lanes, oldest first.
static void empty_inbox(struct storage *storage) {
        struct storage_operation *newest = atomic_exchange(&storage->inbox, NULL), *oldest = NULL;
        while (newest) {
                struct storage_operation *next = newest->next;
                newest->next = oldest;
                oldest = newest;
                newest = next;
        }
        while (oldest) {
                struct storage_operation *next = oldest->next;
                lane_accept(&storage->lanes[oldest->statement->lane], oldest);
                oldest = next;
        }
}

static void sweep(struct storage *storage) {
        storage->last_look = storage->now;
        storage->next_sweep = storage->now + LONGEST_SLEEP;
        for (unsigned i = 0; i < LANE_COUNT; i++)
                lane_sweep(&storage->lanes[i]);
}

// How long the thread may sleep, in milliseconds; from now on submitters wake it where that is of use.
static int prepare_sleep(struct storage *storage) {
        int64_t now = storage_clock(), until = storage->next_sweep;
        if (until < storage->last_look + SHORTEST_SLEEP)
                until = storage->last_look + SHORTEST_SLEEP;
        for (unsigned i = 0; i < LANE_COUNT; i++) {
                bool saturated = lane_saturated(&storage->lanes[i]);
                atomic_store(&storage->lanes[i].wake, !saturated);
                if (saturated && until > now + SATURATED_SLEEP)
                        until = now + SATURATED_SLEEP;
        }
        if (storage->held && until > now + MILLISECOND)
                until = now + MILLISECOND;
        if (atomic_load(&storage->stopping) && until > storage->stop_at)
                until = storage->stop_at;
        if (atomic_load(&storage->inbox) || until <= now)
                return 0;
        return (int)((until - now + MILLISECOND - 1) / MILLISECOND);
}

static void wait_for_events(struct storage *storage) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(storage->epoll, events, EVENTS, prepare_sleep(storage));
        for (unsigned i = 0; i < LANE_COUNT; i++)
                atomic_store_explicit(&storage->lanes[i].wake, false, memory_order_relaxed);
        storage->now = storage_clock();
        for (int i = 0; i < count; i++)
                if (events[i].data.ptr)
                        connection_event(events[i].data.ptr, events[i].events);
}

static void turn(struct storage *storage) {
        wait_for_events(storage);
        empty_inbox(storage);
        if (atomic_exchange(&storage->look, false))
                storage_sweep_by(storage, storage->now);
        if (storage->now >= storage->next_sweep && storage->now >= storage->last_look + SHORTEST_SLEEP)
                sweep(storage);
        bool stopping = atomic_load(&storage->stopping);
        for (unsigned i = 0; i < LANE_COUNT; i++)
                if (stopping)
                        lane_clear_queue(&storage->lanes[i], STORAGE_CANCELLED);
                else
                        lane_dispatch(&storage->lanes[i]);
        if (storage->config.turn_ended)
                storage->held = storage->config.turn_ended(
                        storage->config.context, atomic_load(&storage->lanes[LANE_READ].pending) > 0);
}

static bool has_pending(struct storage *storage) {
        for (unsigned i = 0; i < LANE_COUNT; i++)
                if (atomic_load(&storage->lanes[i].pending))
                        return true;
        return false;
}

static bool has_stopped(struct storage *storage) {
        return atomic_load(&storage->stopping) && (!has_pending(storage) || storage->now >= storage->stop_at);
}

static void *run(void *argument) {
        struct storage *storage = argument;
        while (!has_stopped(storage))
                turn(storage);
        for (unsigned i = 0; i < LANE_COUNT; i++)
                lane_close(&storage->lanes[i]);
        // What was under way is settled now; what is being submitted this moment comes yet.
        do {
                empty_inbox(storage);
                for (unsigned i = 0; i < LANE_COUNT; i++)
                        lane_clear_queue(&storage->lanes[i], STORAGE_CANCELLED);
        } while (has_pending(storage));
        if (storage->config.turn_ended)
                storage->config.turn_ended(storage->config.context, /* more= */ false);
        return NULL;
}

// Signals are other threads' business.
static int start_thread(struct storage *storage) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = pthread_create(&storage->thread, NULL, run, storage);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!error)
                pthread_setname_np(storage->thread, "storage");
        return error;
}

// Frees a storage without a thread.
static void release(struct storage *storage) {
        for (unsigned i = 0; i < LANE_COUNT; i++)
                lane_drop(&storage->lanes[i]);
        for (PQconninfoOption *option = storage->target; option && option->keyword; option++)
                if (option->val)
                        explicit_bzero(option->val, strlen(option->val));
        PQconninfoFree(storage->target);
        if (storage->epoll >= 0)
                close(storage->epoll);
        if (storage->event >= 0)
                close(storage->event);
        pthread_cond_destroy(&storage->changed);
        pthread_mutex_destroy(&storage->mutex);
        free(storage);
}

// Whether the configuration can be worked with at all.
static bool parse_config(struct storage *storage) {
        for (const struct storage_statement *const *at = storage->config.statements; at && *at; at++)
                if ((*at)->parameter_count < 0 || (*at)->parameter_count > MAX_PARAMETERS) {
                        storage_log(storage, "statement with too many parameters", (*at)->name);
                        return false;
                }
        char *error = NULL;
        storage->target = PQconninfoParse(storage->config.url, &error);
        if (!storage->target)
                storage_log(storage, "database URL malformed", "see libpq's connection strings");
        PQfreemem(error); // it may quote the URL, and so the password
        return storage->target;
}

static bool set_up(struct storage *storage) {
        storage->epoll = epoll_create1(EPOLL_CLOEXEC);
        storage->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        if (storage->epoll < 0 || storage->event < 0 ||
                epoll_ctl(storage->epoll, EPOLL_CTL_ADD, storage->event, &event) < 0)
                return false;
        storage->now = storage_clock();
        for (unsigned i = 0; i < LANE_COUNT; i++) {
                if (!storage->config.connections[i])
                        storage->config.queue_limit[i] = 0;
                if (!lane_init(&storage->lanes[i], storage, (enum lane)i))
                        return false;
        }
        int error = start_thread(storage);
        errno = error;
        return !error;
}

struct storage *storage_start(const struct storage_config *config) {
        struct storage *storage = calloc(1, sizeof *storage);
        if (!storage)
                return NULL;
        storage->config = *config;
        storage->epoll = storage->event = -1;
        pthread_mutex_init(&storage->mutex, NULL);
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&storage->changed, &attributes);
        pthread_condattr_destroy(&attributes);
        int error = EINVAL;
        if (parse_config(storage)) {
                if (set_up(storage))
                        return storage;
                error = errno;
        }
        release(storage);
        errno = error;
        return NULL;
}

bool storage_ready(const struct storage *storage) {
        for (unsigned i = 0; i < LANE_COUNT; i++)
                if (storage->lanes[i].connection_count && !atomic_load(&storage->lanes[i].connected))
                        return false;
        return true;
}

bool storage_wait_ready(struct storage *storage, unsigned timeout_ms, const char **ret_error) {
        int64_t until = storage_clock() + timeout_ms * MILLISECOND;
        struct timespec time = {.tv_sec = until / SECOND, .tv_nsec = until % SECOND};
        pthread_mutex_lock(&storage->mutex);
        int waited = 0;
        while (!storage_ready(storage) && waited == 0)
                waited = pthread_cond_timedwait(&storage->changed, &storage->mutex, &time);
        bool ready = storage_ready(storage);
        if (!ready && ret_error) {
                memcpy(storage->reported_error, storage->error, sizeof storage->error);
                *ret_error = storage->reported_error;
        }
        pthread_mutex_unlock(&storage->mutex);
        return ready;
}

struct storage_stats storage_stats(const struct storage *storage) {
        struct storage_stats stats = {.batches = atomic_load_explicit(&storage->batches, memory_order_relaxed)};
        for (unsigned i = 0; i < LANE_COUNT; i++) {
                const struct lane_state *lane = &storage->lanes[i];
                stats.queued[i] = atomic_load_explicit(&lane->pending, memory_order_relaxed);
                stats.connected[i] = atomic_load_explicit(&lane->connected, memory_order_relaxed);
                stats.operations[i] = atomic_load_explicit(&lane->operations, memory_order_relaxed);
                stats.refused[i] = atomic_load_explicit(&lane->refused, memory_order_relaxed);
        }
        return stats;
}

void storage_stop(struct storage *storage, unsigned timeout_ms) {
        if (!storage)
                return;
        storage->stop_at = storage_clock() + timeout_ms * MILLISECOND;
        atomic_store(&storage->stopping, true);
        storage_look(storage);
        pthread_join(storage->thread, NULL);
        release(storage);
}
