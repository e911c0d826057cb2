// Loads a server with unary calls from one thread, and checks every answer. Prints one JSON object.
//
//   bench-loader get|list|check --endpoint HOST:PORT --ca FILE [OPTION…]
//
//   get    GetFinding of a random finding, as the API key of its organization
//   list   ListFindings of a random organization, 50 a page, --pages of them (0: to the end), then of another
//   check  one Health check, for whether the server is there
//
//   --keys FILE    an API key a line, for each organization; names are those of generate.sql
//   --findings N   how many there are, over all organizations
//   --connections N, --streams N  connections, and calls in flight on each
//   --seconds S           for how long calls begin, and calls that end are counted
#include "tests/bench/connection.h"
#include "tests/bench/histogram.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

enum {
        CONNECTIONS_MAX = 1024,
        STREAMS_MAX = 1000,
        PAGE_SIZE = 50,
        DRAIN_SECONDS = 10,
        NAME_SIZE = 160,
        REQUEST_MAX = 4608
};

struct api_key {
        char text[80];
};

struct options {
        const char *endpoint, *ca, *keys;
        size_t findings;
        unsigned connections, streams, pages;
        double seconds;
};

struct load;

// A place for a call: one is in flight there at any time.
struct slot {
        struct call call;
        unsigned char request[REQUEST_MAX];
        struct load *load;
        struct connection *connection;
        size_t organization; // whose key the call has
        uint64_t begin_ns;
        unsigned page;        // of a list: how many pages of this organization it has had
        const uint8_t *token; // for the next page, in call.response
        size_t token_size;
};

struct load {
        const struct mode *mode;
        struct options options;
        struct api_key *keys; // of the organizations by their numbers
        size_t organizations;
        struct slot *slots;
        unsigned in_flight;
        uint64_t random, deadline_ns;
        uint64_t requests, rows, bytes, failures; // ended before the deadline; failures whenever
        struct histogram latency;
};

struct mode {
        const char *name, *method;
        void (*request)(struct load *load, struct slot *slot);
        long (*check)(struct slot *slot, const uint8_t *message, size_t size); // how many rows; negative: wrong
};

static uint64_t now_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// splitmix64 (Steele, Lea, Flood), scaled to 0 … below-1.
static size_t random_below(struct load *load, size_t below) {
        uint64_t z = load->random += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        return (size_t)((unsigned __int128)z * below >> 64);
}

// Protobuf, as much of it as requests need: a varint, a length-delimited field.

static uint8_t *put_varint(uint8_t *at, size_t value) {
        for (; value > 127; value >>= 7)
                *at++ = (uint8_t)(value | 128);
        *at++ = (uint8_t)value;
        return at;
}

static uint8_t *put_bytes(uint8_t *at, uint8_t tag, const void *data, size_t size) {
        *at++ = tag;
        at = put_varint(at, size);
        memcpy(at, data, size);
        return at + size;
}

static void finish_request(struct call *call, const uint8_t *end) {
        size_t size = (size_t)(end - call->request) - CALL_PREFIX;
        call->request[0] = 0; // not compressed
        for (int i = 0; i < 4; i++)
                call->request[1 + i] = (uint8_t)(size >> (24 - 8 * i));
        call->request_size = CALL_PREFIX + size;
}

static bool get_varint(const uint8_t **at, const uint8_t *end, size_t *ret_value) {
        size_t value = 0;
        for (unsigned shift = 0; *at < end && shift < 35; shift += 7) {
                uint8_t byte = *(*at)++;
                value |= (size_t)(byte & 127) << shift;
                if (byte < 128) {
                        *ret_value = value;
                        return true;
                }
        }
        return false;
}

// Takes the next field, which must be length-delimited, off a message.
static bool get_bytes(
        const uint8_t **at, const uint8_t *end, size_t *ret_tag, const uint8_t **ret_data, size_t *ret_size) {
        size_t size;
        if (!get_varint(at, end, ret_tag) || (*ret_tag & 7) != 2 || !get_varint(at, end, &size) ||
                size > (size_t)(end - *at))
                return false;
        *ret_data = *at;
        *ret_size = size;
        *at += size;
        return true;
}

static void request_finding(struct load *load, struct slot *slot) {
        size_t finding = random_below(load, load->options.findings);
        char name[NAME_SIZE];
        slot->organization = finding / (load->options.findings / load->organizations);
        int size = snprintf(name, sizeof name, "organizations/bench-%zu/findings/01900000-0000-7005-8000-%012zx",
                slot->organization, finding);
        finish_request(&slot->call, put_bytes(slot->call.request + CALL_PREFIX, 10, name, (size_t)size));
}

// The answer begins with the name that was asked for, as the request does.
static long check_finding(struct slot *slot, const uint8_t *message, size_t size) {
        size_t name_size = slot->call.request_size - CALL_PREFIX;
        return size > name_size && !memcmp(message, slot->call.request + CALL_PREFIX, name_size) ? 1 : -1;
}

static void request_page(struct load *load, struct slot *slot) {
        char parent[NAME_SIZE];
        if (!slot->token_size) {
                slot->organization = random_below(load, load->organizations);
                slot->page = 0;
        }
        int size = snprintf(parent, sizeof parent, "organizations/bench-%zu", slot->organization);
        uint8_t *at = put_bytes(slot->call.request + CALL_PREFIX, 10, parent, (size_t)size);
        *at++ = 16;
        at = put_varint(at, PAGE_SIZE);
        if (slot->token_size)
                at = put_bytes(at, 26, slot->token, slot->token_size);
        finish_request(&slot->call, at);
}

static long check_page(struct slot *slot, const uint8_t *message, size_t size) {
        const uint8_t *at = message, *end = message + size, *data;
        size_t tag, data_size;
        long rows = 0;
        slot->token_size = 0;
        while (at < end) {
                if (!get_bytes(&at, end, &tag, &data, &data_size))
                        return -1;
                rows += tag == 10;
                if (tag == 18) {
                        slot->token = data;
                        slot->token_size = data_size;
                }
        }
        slot->page++;
        if (slot->page == slot->load->options.pages || slot->token_size > REQUEST_MAX - NAME_SIZE - 32)
                slot->token_size = 0;
        return rows ? rows : -1;
}

static void request_health(struct load *load, struct slot *slot) {
        (void)load;
        finish_request(&slot->call, slot->call.request + CALL_PREFIX);
}

static long check_health(struct slot *slot, const uint8_t *message, size_t size) {
        (void)slot;
        return size == 2 && message[0] == 8 && message[1] == 1 ? 1 : -1; // SERVING
}

static const struct mode modes[] = {
        {"get", "/devopsgenie.v1.FindingService/GetFinding", request_finding, check_finding},
        {"list", "/devopsgenie.v1.FindingService/ListFindings", request_page, check_page},
        {"check", "/grpc.health.v1.Health/Check", request_health, check_health},
};

static bool begin(struct slot *slot) {
        struct load *load = slot->load;
        load->mode->request(load, slot);
        slot->begin_ns = now_ns();
        const char *api_key = load->organizations ? load->keys[slot->organization].text : NULL;
        if (!connection_submit(slot->connection, &slot->call, load->mode->method, api_key))
                return false;
        load->in_flight++;
        return true;
}

static long check(struct slot *slot) {
        const struct call *call = &slot->call;
        if (call->status || call->response_size < CALL_PREFIX || call->response[0])
                return -1;
        const uint8_t *p = call->response;
        size_t size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        if (size != call->response_size - CALL_PREFIX)
                return -1;
        return slot->load->mode->check(slot, p + CALL_PREFIX, size);
}

static void ended(struct call *call) {
        struct slot *slot = call->owner;
        struct load *load = slot->load;
        uint64_t now = now_ns();
        long rows = check(slot);
        load->in_flight--;
        if (rows < 0) {
                if (!load->failures++)
                        fprintf(stderr, "bench-loader: a wrong answer: status %d, %zu bytes: %s\n", call->status,
                                call->response_size, call->status_message);
                slot->token_size = 0;
        } else if (now <= load->deadline_ns) {
                load->requests++;
                load->rows += (uint64_t)rows;
                load->bytes += call->response_size;
                histogram_add(&load->latency, now - slot->begin_ns);
        }
        if (now < load->deadline_ns && load->failures < 100 && !begin(slot))
                load->failures++;
}

// Turns a connection, and waits for what it then waits for.
static bool turn(int epoll, struct connection *connection, int operation) {
        struct epoll_event event = {.data.ptr = connection};
        uint32_t before = connection_events(connection);
        if (!connection_turn(connection)) {
                fprintf(stderr, "bench-loader: %s\n", connection_problem(connection));
                return false;
        }
        event.events = connection_events(connection);
        return (operation == EPOLL_CTL_MOD && event.events == before) ||
               !epoll_ctl(epoll, operation, connection_descriptor(connection), &event);
}

static bool turn_until_done(struct load *load, int epoll) {
        uint64_t end = load->deadline_ns + DRAIN_SECONDS * 1000000000ull;
        while (load->in_flight) {
                struct epoll_event events[64];
                int count = epoll_wait(epoll, events, 64, 1000);
                for (int i = 0; i < count; i++)
                        if (!turn(epoll, events[i].data.ptr, EPOLL_CTL_MOD))
                                return false;
                if (now_ns() > end) {
                        fprintf(stderr, "bench-loader: %u calls without an answer\n", load->in_flight);
                        return false;
                }
        }
        return true;
}

static bool run(struct load *load, struct connection **connections, int epoll) {
        const struct options *options = &load->options;
        load->deadline_ns = now_ns() + (uint64_t)(options->seconds * 1e9);
        for (unsigned i = 0; i < options->connections; i++) {
                for (unsigned j = 0; j < options->streams; j++) {
                        struct slot *slot = &load->slots[i * options->streams + j];
                        slot->load = load;
                        slot->connection = connections[i];
                        slot->call.owner = slot;
                        slot->call.request = slot->request;
                        if (!begin(slot))
                                return false;
                }
                if (!turn(epoll, connections[i], EPOLL_CTL_ADD))
                        return false;
        }
        return turn_until_done(load, epoll) && !load->failures;
}

static double cpu_seconds(void) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static bool open_and_run(struct load *load, struct connection **connections, SSL_CTX *tls, int epoll) {
        const struct options *options = &load->options;
        for (unsigned i = 0; i < options->connections; i++)
                if (!(connections[i] = connection_open(tls, options->endpoint, ended)))
                        return false;
        double cpu = cpu_seconds();
        bool good = run(load, connections, epoll);
        cpu = cpu_seconds() - cpu;
        const struct histogram *latency = &load->latency;
        printf("{\"requests\": %llu, \"seconds\": %g, \"rows\": %llu, \"bytes\": %llu, \"failures\": %llu, "
               "\"cpu_seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
                (unsigned long long)load->requests, options->seconds, (unsigned long long)load->rows,
                (unsigned long long)load->bytes, (unsigned long long)load->failures, cpu,
                (double)histogram_quantile(latency, .5) / 1e3, (double)histogram_quantile(latency, .99) / 1e3,
                (double)histogram_quantile(latency, 1) / 1e3);
        return good;
}

static bool read_keys(struct load *load) {
        FILE *from = fopen(load->options.keys, "re");
        for (size_t capacity = 0; from; load->organizations++) {
                if (load->organizations == capacity) {
                        capacity = capacity ? 2 * capacity : 256;
                        load->keys = reallocarray(load->keys, capacity, sizeof *load->keys);
                }
                if (!load->keys || fscanf(from, "%79s", load->keys[load->organizations].text) != 1)
                        break;
        }
        if (from)
                (void)fclose(from);
        bool good = load->organizations && load->options.findings && load->options.findings % load->organizations == 0;
        if (!good)
                fprintf(stderr, "bench-loader: %s has %zu keys, which does not fit %zu findings\n", load->options.keys,
                        load->organizations, load->options.findings);
        return good;
}

static bool read_options(struct options *options, int argc, char **argv) {
        static const struct option known[] = {{"endpoint", 1, NULL, 'e'}, {"ca", 1, NULL, 'a'}, {"keys", 1, NULL, 'k'},
                {"findings", 1, NULL, 'f'}, {"connections", 1, NULL, 'c'}, {"streams", 1, NULL, 's'},
                {"pages", 1, NULL, 'p'}, {"seconds", 1, NULL, 't'}, {0}};
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
                case 'f':
                        options->findings = number;
                        break;
                case 'c':
                        options->connections = number;
                        break;
                case 's':
                        options->streams = number;
                        break;
                case 'p':
                        options->pages = number;
                        break;
                case 't':
                        options->seconds = optarg ? strtod(optarg, NULL) : 0;
                        break;
                default:
                        return false;
                }
        }
        return optind == argc && options->endpoint && options->ca && options->connections >= 1 &&
               options->connections <= CONNECTIONS_MAX && options->streams >= 1 && options->streams <= STREAMS_MAX;
}

int main(int argc, char **argv) {
        struct load load = {.options = {.keys = "", .connections = 1, .streams = 1, .pages = 1}};
        struct connection *connections[CONNECTIONS_MAX] = {0};
        for (unsigned i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
                if (!strcmp(argv[1], modes[i].name))
                        load.mode = &modes[i];
        if (!load.mode || !read_options(&load.options, argc - 1, argv + 1)) {
                fprintf(stderr, "usage: bench-loader get|list|check --endpoint HOST:PORT --ca FILE [OPTION…]\n");
                return 2;
        }
        size_t count = (size_t)load.options.connections * load.options.streams;
        load.slots = calloc(count, sizeof *load.slots);
        int epoll = epoll_create1(EPOLL_CLOEXEC);
        SSL_CTX *tls = connection_tls(load.options.ca);
        bool good = load.slots && epoll >= 0 && tls && getrandom(&load.random, sizeof load.random, 0) > 0 &&
                    (load.mode->check == check_health || read_keys(&load)) &&
                    open_and_run(&load, connections, tls, epoll);
        for (unsigned i = 0; i < load.options.connections; i++)
                connection_close(connections[i]);
        for (size_t i = 0; load.slots && i < count; i++)
                call_drop(&load.slots[i].call);
        SSL_CTX_free(tls);
        free(load.slots);
        free(load.keys);
        return good ? 0 : 1;
}
