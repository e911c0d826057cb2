// Agents from one thread, each with a connection of its own. Prints JSON objects, a line each.
//
//   bench-agents idle|work --endpoint HOST:PORT --ca FILE --keys FILE --agents N [OPTION…]
//
//   idle   connects all and keeps them, with heartbeats; those that are cut off come back, by the first try within a
//          second, and later ones within five. An object whenever all are there: when that began and ended, how many
//          tries were refused in each second of it, and when the last one (times of CLOCK_MONOTONIC). Ends when
//          standard input does
//   work   keeps a number of tasks going: each is created (COMMAND), started, sends its log, and ends; then comes the
//          next in its place. An object at the end: what was done, and from CreateTask to StartGrant how long it took
//
//   --keys FILE         an agent's key a line, then, in `work`, its organization's API key and slug
//   --seconds S         for how long tasks are counted, from two seconds after the first one; all that is done, with
//                       what comes before and after, is told too (`all_…`): the CPU is that of all
//   --tasks N           how many are under way
//   --credits N         how many an agent takes at a time (default 10)
//   --log-bytes N       how long a task's log is (default 0)
#include "tests/bench/agents.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
        HANDSHAKES_MAX = 64,
        SCAN_NS = 50000000,
        SOURCES = 8,
        EVENTS = 256,
        WELCOME_SECONDS = 60,
        WARM_UP_SECONDS = 2,
        DRAIN_SECONDS = 60
};
static const uint64_t SECOND = 1000000000;

uint64_t now_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

bool counts(const struct load *load) {
        uint64_t now = now_ns();
        return now >= load->count_ns && now <= load->deadline_ns;
}

static double cpu_seconds(void) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// --- Connections ---

bool turn(struct load *load, struct peer *peer) {
        bool good = connection_turn(peer->connection);
        uint32_t events = good ? connection_events(peer->connection) : 0;
        if (good && events != peer->events) {
                struct epoll_event event = {.events = events, .data.ptr = peer};
                good = !epoll_ctl(load->epoll, peer->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
                        connection_descriptor(peer->connection), &event);
                peer->events = events;
        }
        return good;
}

static void note_refused(struct load *load, const char *why) {
        uint64_t second = (now_ns() - load->begin_ns) / SECOND;
        load->refused[second < REFUSED_SECONDS ? second : REFUSED_SECONDS - 1]++;
        load->refused_ns = now_ns();
        if (*why && strcmp(why, load->problem))
                snprintf(load->problem, sizeof load->problem, "%s", why);
}

// Another try follows: the first within a second, later ones within five.
static void go_away(struct agent *agent, const char *why) {
        struct load *load = agent->load;
        if (agent->state == AGENT_CONNECTING) {
                load->connecting--;
                note_refused(load, why);
        } else if (agent->state == AGENT_WELCOMED) {
                if (load->welcomed-- == load->options.agents) {
                        load->begin_ns = now_ns();
                        memset(load->refused, 0, sizeof load->refused);
                }
        }
        agent->state = AGENT_AWAY;
        agent_forget_tasks(agent);
        connection_close(agent->peer.connection);
        agent->peer = (struct peer){.agent = agent};
        call_drop(&agent->stream);
        uint64_t limit = agent->tries++ ? 5 * SECOND : SECOND;
        agent->next = now_ns() + random_below(load, limit);
}

void peer_turn(struct load *load, struct peer *peer) {
        struct agent *agent = peer->agent;
        if (agent)
                agent_before_turn(agent);
        bool good = turn(load, peer);
        if (good && (!agent || agent->state != AGENT_ENDED))
                return;
        if (agent)
                go_away(agent, good ? agent->stream.status_message : connection_problem(peer->connection));
        else {
                fprintf(stderr, "bench-agents: %s\n", connection_problem(peer->connection));
                load->failures++;
        }
}

static void stream_ended(struct call *call) {
        struct agent *agent = call->owner;
        if (agent->state == AGENT_WELCOMED)
                agent->load->welcomed--;
        else
                agent->load->connecting--;
        agent->state = AGENT_ENDED; // its turn goes on; then the agent goes away
}

static void come(struct agent *agent) {
        struct load *load = agent->load;
        agent->peer.connection = connection_begin(
                load->tls, load->options.endpoint, 1 + agent->number % SOURCES, stream_ended);
        agent->state = AGENT_CONNECTING;
        load->connecting++;
        if (!agent->peer.connection || !agent_say_hello(agent)) {
                go_away(agent, "out of memory");
                return;
        }
        peer_turn(load, &agent->peer);
}

// --- Time ---

static void scan(struct load *load, uint64_t now) {
        for (unsigned i = 0; i < load->options.agents; i++) {
                struct agent *agent = &load->agents[i];
                if (agent->state == AGENT_WELCOMED && agent_pass_time(agent, now))
                        peer_turn(load, &agent->peer);
                else if (agent->state == AGENT_AWAY && now >= agent->next && load->connecting < HANDSHAKES_MAX)
                        come(agent);
        }
}

static void print_welcomed(struct load *load) {
        printf("{\"agents\": %u, \"begin\": %.3f, \"end\": %.3f, \"last_refused\": %.3f, \"refused\": [",
                load->welcomed, (double)load->begin_ns / 1e9, (double)now_ns() / 1e9, (double)load->refused_ns / 1e9);
        unsigned last = 0;
        for (unsigned i = 0; i < REFUSED_SECONDS; i++)
                last = load->refused[i] ? i + 1 : last;
        for (unsigned i = 0; i < last; i++)
                printf("%s%u", i ? ", " : "", load->refused[i]);
        printf("], \"cpu_seconds\": %.3f, \"problem\": \"%s\"}\n", cpu_seconds(), load->problem);
        (void)fflush(stdout);
        *load->problem = '\0';
}

// One round of what has happened; false where standard input has ended.
static bool turn_all(struct load *load, int stop_descriptor) {
        struct epoll_event events[EVENTS];
        bool all = load->welcomed == load->options.agents;
        int count = epoll_wait(load->epoll, events, EVENTS, (int)(SCAN_NS / 1000000));
        for (int i = 0; i < count; i++)
                peer_turn(load, events[i].data.ptr);
        for (unsigned i = 0; i < CREATORS; i++)
                if (load->creators[i].wanted) {
                        load->creators[i].wanted = false;
                        peer_turn(load, &load->creators[i]);
                }
        uint64_t now = now_ns();
        if (now >= load->next_scan) {
                load->next_scan = now + SCAN_NS;
                scan(load, now);
                struct pollfd stop = {stop_descriptor, POLLIN, 0};
                if (poll(&stop, 1, 0) > 0)
                        return false;
        }
        if (!all && load->welcomed == load->options.agents && !load->options.tasks)
                print_welcomed(load);
        return true;
}

static bool idle(struct load *load) {
        while (turn_all(load, STDIN_FILENO))
                ;
        return true;
}

static bool work(struct load *load) {
        while (load->welcomed < load->options.agents && now_ns() < load->begin_ns + WELCOME_SECONDS * SECOND)
                turn_all(load, -1);
        if (load->welcomed < load->options.agents) {
                fprintf(stderr, "bench-agents: %u agents are there; %s\n", load->welcomed, load->problem);
                return false;
        }
        double cpu = cpu_seconds();
        load->count_ns = now_ns() + WARM_UP_SECONDS * SECOND;
        load->deadline_ns = load->count_ns + (uint64_t)(load->options.seconds * 1e9);
        if (!tasks_begin(load))
                return false;
        uint64_t end = load->deadline_ns + DRAIN_SECONDS * SECOND;
        while ((now_ns() < load->deadline_ns || load->under_way) && now_ns() < end && load->failures < 100)
                turn_all(load, -1);
        cpu = cpu_seconds() - cpu;
        if (load->under_way)
                fprintf(stderr, "bench-agents: %u tasks did not end\n", load->under_way);
        printf("{\"tasks\": %llu, \"all_tasks\": %llu, \"all_bytes\": %llu, \"seconds\": %g, \"bytes\": %llu, "
               "\"failures\": %u, \"cpu_seconds\": %.6f, "
               "\"start_p50_us\": %.1f, \"start_p99_us\": %.1f}\n",
                (unsigned long long)load->ended, (unsigned long long)load->all_ended,
                (unsigned long long)load->all_bytes, load->options.seconds, (unsigned long long)load->bytes,
                load->failures, cpu, (double)histogram_quantile(&load->starts, .5) / 1e3,
                (double)histogram_quantile(&load->starts, .99) / 1e3);
        return !load->failures && !load->under_way;
}

// --- The command ---

static bool read_keys(struct load *load) {
        FILE *from = fopen(load->options.keys, "re");
        bool good = from != NULL;
        for (unsigned i = 0; good && i < load->options.agents; i++) {
                struct agent *agent = &load->agents[i];
                good = fscanf(from, "%79s %79s %79s", agent->key, agent->organization_key, agent->slug) == 3;
                agent->load = load;
                agent->number = i;
                agent->peer.agent = agent;
        }
        if (from)
                (void)fclose(from);
        if (!good)
                fprintf(stderr, "bench-agents: %s does not have %u agents\n", load->options.keys, load->options.agents);
        return good;
}

static bool read_options(struct options *options, int argc, char **argv) {
        static const struct option known[] = {{"endpoint", 1, NULL, 'e'}, {"ca", 1, NULL, 'a'}, {"keys", 1, NULL, 'k'},
                {"agents", 1, NULL, 'n'}, {"seconds", 1, NULL, 't'}, {"tasks", 1, NULL, 's'}, {"credits", 1, NULL, 'c'},
                {"log-bytes", 1, NULL, 'l'}, {0}};
        for (int found; (found = getopt_long(argc, argv, "", known, NULL)) != -1;) {
                unsigned number = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;
                switch (found) {
                case 'e':
                        options->endpoint = optarg;
                        break;
                case 'a':
                        options->ca = optarg;
                        break;
                case 'k':
                        options->keys = optarg;
                        break;
                case 'n':
                        options->agents = number;
                        break;
                case 't':
                        options->seconds = optarg ? strtod(optarg, NULL) : 0;
                        break;
                case 's':
                        options->tasks = number;
                        break;
                case 'c':
                        options->credits = number;
                        break;
                case 'l':
                        options->log_bytes = number;
                        break;
                default:
                        return false;
                }
        }
        return optind == argc && options->endpoint && options->ca && options->keys && options->agents >= 1 &&
               options->agents <= AGENTS_MAX && options->tasks <= TASKS_MAX && options->credits >= 1 &&
               options->credits <= CREDITS_MAX;
}

static bool raise_descriptors(void) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit))
                return false;
        limit.rlim_cur = limit.rlim_max;
        return !setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
        static struct load load = {.options = {.credits = 10}};
        bool idles = argc > 1 && !strcmp(argv[1], "idle");
        if ((!idles && (argc < 2 || strcmp(argv[1], "work") != 0)) ||
                !read_options(&load.options, argc - 1, argv + 1)) {
                fprintf(stderr, "usage: bench-agents idle|work --endpoint HOST:PORT --ca FILE --keys FILE --agents N "
                                "[OPTION…]\n");
                return 2;
        }
        load.agents = calloc(load.options.agents, sizeof *load.agents);
        load.epoll = epoll_create1(EPOLL_CLOEXEC);
        load.tls = connection_tls(load.options.ca);
        load.begin_ns = now_ns();
        bool good = load.agents && load.epoll >= 0 && load.tls && raise_descriptors() &&
                    getrandom(&load.random, sizeof load.random, 0) > 0 && read_keys(&load) &&
                    (idles ? idle(&load) : work(&load));
        return good ? 0 : 1; // what it has the system takes back, faster than we would
}
