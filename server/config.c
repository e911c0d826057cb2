#include "server/config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum type { TEXT, TEXTS, NUMBER, BOOLEAN, URL };

#define ENVIRONMENT "GENIED_" // and the option in capitals, with _ for -

static const struct option_row {
        const char *name;
        enum type type;
        size_t offset;
        const char *fallback; // the default, as one would write it
        long least, most;     // of a NUMBER; of TEXTS, how many there may be
        const char *help;
} rows[] = {
        {"database-url", URL, offsetof(struct config, database_url), "", 0, 0,
                "PostgreSQL connection string or URI (libpq)"},
        {"database-role", TEXT, offsetof(struct config, database_role), "genie_app", 0, 0,
                "role that sessions take on; it owns nothing and is bound by row-level security"},
        {"listen", TEXTS, offsetof(struct config, listen), "127.0.0.1:8443", 0, LISTEN_MAX,
                "HOST:PORT with TLS; commas between several"},
        {"listen-plain", TEXTS, offsetof(struct config, listen_plain), "", 0, LISTEN_MAX,
                "unix:PATH, or HOST:PORT without TLS (logged as a warning)"},
        {"tls-certificate", TEXT, offsetof(struct config, tls_certificate), "", 0, 0,
                "certificate chain, PEM; read again when it changes"},
        {"tls-key", TEXT, offsetof(struct config, tls_key), "", 0, 0, "private key, PEM"},
        {"vault-key-file", TEXT, offsetof(struct config, vault_key_file), "", 0, 0,
                "key-encryption keys; `genied keys create` makes one"},
        {"jwks-file", TEXT, offsetof(struct config, jwks_file), "", 0, 0,
                "JSON Web Key Set that tokens are verified with; none: no tokens, API keys only"},
        {"issuer", TEXTS, offsetof(struct config, issuers), "", 0, ISSUERS_MAX,
                "accepted `iss` of tokens; commas between several"},
        {"audience", TEXT, offsetof(struct config, audience), "devopsgenie", 0, 0, "required `aud` of tokens"},
        {"read-connections", NUMBER, offsetof(struct config, read_connections), "0", 0, 16,
                "connections of the READ lane (pipelined); 0: one per core, at most 4"},
        {"write-connections", NUMBER, offsetof(struct config, write_connections), "2", 1, 16,
                "connections of the WRITE lane (pipelined)"},
        {"bulk-connections", NUMBER, offsetof(struct config, bulk_connections), "4", 1, 64,
                "connections of the BULK lane (one statement each)"},
        {"read-queue", NUMBER, offsetof(struct config, read_queue), "4096", 1, 1000000,
                "statements that may wait in the READ lane"},
        {"write-queue", NUMBER, offsetof(struct config, write_queue), "4096", 1, 1000000,
                "statements that may wait in the WRITE lane"},
        {"bulk-queue", NUMBER, offsetof(struct config, bulk_queue), "256", 1, 1000000,
                "statements that may wait in the BULK lane"},
        {"statement-timeout-ms", NUMBER, offsetof(struct config, statement_timeout_ms), "5000", 1, 600000,
                "of the READ and WRITE lanes"},
        {"bulk-timeout-ms", NUMBER, offsetof(struct config, bulk_timeout_ms), "300000", 1, 3600000, "of the BULK lane"},
        {"default-timeout-ms", NUMBER, offsetof(struct config, default_timeout_ms), "30000", 1, 3600000,
                "of a unary call without a deadline of its own, outside the BULK lane"},
        {"call-threads", NUMBER, offsetof(struct config, call_threads), "0", 0, 16,
                "threads that take calls; 0: one per two cores"},
        {"max-calls", NUMBER, offsetof(struct config, max_calls), "10000", 1, 1000000,
                "calls in flight, past which callers get RESOURCE_EXHAUSTED"},
        {"max-open-streams", NUMBER, offsetof(struct config, max_open_streams), "20000", 1, 1000000,
                "streams (agents, watchers, imports) at a time, past which callers get RESOURCE_EXHAUSTED"},
        {"max-streams", NUMBER, offsetof(struct config, max_streams), "1000", 1, 100000,
                "calls at a time on one connection (HTTP/2)"},
        {"max-message-bytes", NUMBER, offsetof(struct config, max_message_bytes), "4194304", 1024, 67108864,
                "largest message that is taken"},
        {"drain-pause-ms", NUMBER, offsetof(struct config, drain_pause_ms), "0", 0, 600000,
                "from NOT_SERVING to the end of accepting, at SIGTERM"},
        {"drain-timeout-ms", NUMBER, offsetof(struct config, drain_timeout_ms), "10000", 0, 600000,
                "for calls in flight to finish, at SIGTERM"},
        {"drain-spread-ms", NUMBER, offsetof(struct config, drain_spread_ms), "5000", 0, 600000,
                "over which agents are told to come back elsewhere, at SIGTERM; less than drain-timeout-ms"},
        {"task-lease-ms", NUMBER, offsetof(struct config, lease_ms), "60000", 1000, 3600000,
                "how long an agent has a task without renewing its lease"},
        {"task-offer-ms", NUMBER, offsetof(struct config, offer_ms), "10000", 100, 600000,
                "how long an agent may take to answer an offer"},
        {"agent-heartbeat-ms", NUMBER, offsetof(struct config, heartbeat_ms), "20000", 100, 600000,
                "how often an agent says that it lives; below balancers' idle timeouts"},
        {"agent-silence-ms", NUMBER, offsetof(struct config, silence_ms), "28000", 200, 600000,
                "after which an agent that says nothing is DISCONNECTED; more than agent-heartbeat-ms"},
        {"log-window-bytes", NUMBER, offsetof(struct config, log_window_bytes), "1048576", 65536, 67108864,
                "of an agent's task logs that may wait to be written"},
        {"max-log-bytes", NUMBER, offsetof(struct config, max_log_bytes), "67108864", 65536, 1073741824,
                "of log that an attempt of a task may have"},
        {"reflection", BOOLEAN, offsetof(struct config, reflection), "on", 0, 0, "serve gRPC reflection"},
        {"coalesce", BOOLEAN, offsetof(struct config, coalesce), "on", 0, 0,
                "send the replies of one turn together, per connection"},
        {"lean-connections", BOOLEAN, offsetof(struct config, lean_connections), "on", 0, 0,
                "hold little memory for connections that are idle"},
        {"log-calls", TEXT, offsetof(struct config, log_calls), "all", 0, 0,
                "which calls get a line in the log: all, refused, none"},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void *field(const struct config *config, const struct option_row *row) {
        return (char *)(uintptr_t)config + row->offset;
}

static void environment_name(const struct option_row *row, char ret_name[64]) {
        snprintf(ret_name, 64, ENVIRONMENT "%s", row->name);
        for (char *c = ret_name; *c; c++)
                *c = (char)(*c == '-' ? '_' : toupper((unsigned char)*c));
}

static bool set_number(const struct option_row *row, long *number, const char *text) {
        char *end;
        errno = 0;
        long value = strtol(text, &end, 10);
        if (errno || end == text || *end || value < row->least || value > row->most) {
                fprintf(stderr, "genied: %s is a number from %ld to %ld, not `%s`\n", row->name, row->least, row->most,
                        text);
                return false;
        }
        *number = value;
        return true;
}

// Splits a copy of the text at its commas. The copy lives as long as the configuration.
static bool set_texts(struct config *config, const struct option_row *row, const char **texts, const char *text) {
        char *copy = config->copy_count < COPIES_MAX ? strdup(text) : NULL, *state = NULL;
        long count = 0;
        if (!copy) {
                fprintf(stderr, "genied: %s is given too often\n", row->name);
                return false;
        }
        config->copies[config->copy_count++] = copy;
        for (char *part = strtok_r(copy, ",", &state); part; part = strtok_r(NULL, ",", &state)) {
                if (count == row->most) {
                        fprintf(stderr, "genied: %s takes at most %ld values\n", row->name, row->most);
                        return false;
                }
                texts[count++] = part;
        }
        texts[count] = NULL;
        return true;
}

void config_drop(struct config *config) {
        while (config->copy_count)
                free(config->copies[--config->copy_count]);
}

static bool set_boolean(const struct option_row *row, bool *boolean, const char *text) {
        bool on = !strcmp(text, "on") || !strcmp(text, "true") || !strcmp(text, "1");
        if (!on && strcmp(text, "off") && strcmp(text, "false") && strcmp(text, "0")) {
                fprintf(stderr, "genied: %s is on or off, not `%s`\n", row->name, text);
                return false;
        }
        *boolean = on;
        return true;
}

static bool set(struct config *config, const struct option_row *row, const char *text) {
        switch (row->type) {
        case NUMBER:
                return set_number(row, field(config, row), text);
        case TEXTS:
                return set_texts(config, row, field(config, row), text);
        case BOOLEAN:
                return set_boolean(row, field(config, row), text);
        case TEXT:
        case URL:
        default:
                *(const char **)field(config, row) = text;
                return true;
        }
}

bool config_read(struct config *config, int argc, char **argv, int *ret_rest) {
        struct option options[ROWS + 1] = {0};
        for (unsigned i = 0; i < ROWS; i++) {
                char name[64];
                environment_name(&rows[i], name);
                const char *value = getenv(name);
                if (!set(config, &rows[i], value ? value : rows[i].fallback))
                        return false;
                options[i] = (struct option){rows[i].name, required_argument, NULL, (int)i + 1000};
        }
        optind = 1;
        for (int found; (found = getopt_long(argc, argv, "", options, NULL)) != -1;) {
                if (found < 1000) {
                        fprintf(stderr, "genied: see genied --help\n");
                        return false;
                }
                if (!set(config, &rows[found - 1000], optarg))
                        return false;
        }
        *ret_rest = optind;
        if (strcmp(config->log_calls, "all") && strcmp(config->log_calls, "refused") &&
                strcmp(config->log_calls, "none")) {
                fprintf(stderr, "genied: log-calls is all, refused or none, not `%s`\n", config->log_calls);
                return false;
        }
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        if (!config->read_connections)
                config->read_connections = cores < 1 ? 1 : cores > 4 ? 4 : cores;
        if (!config->call_threads) {
                config->call_threads = cores < 4 ? 1 : cores > 32 ? 16 : cores / 2;
        }
        return true;
}

static const char *type_text(enum type type) {
        static const char *const texts[] = {"TEXT", "TEXT,…", "NUMBER", "on|off", "URL"};
        return texts[type];
}

void config_help(FILE *to) {
        for (unsigned i = 0; i < ROWS; i++) {
                const struct option_row *row = &rows[i];
                char name[64], range[64] = "";
                environment_name(row, name);
                if (row->type == NUMBER)
                        snprintf(range, sizeof range, "; %ld to %ld", row->least, row->most);
                fprintf(to, "  --%s %s\n        %s%s%s%s\n        %s\n", row->name, type_text(row->type), row->help,
                        range, *row->fallback ? "; default " : "", row->fallback, name);
        }
}

// Whether a password may have come apart: `@` and `/` in one must be percent-encoded, else the rest of it is taken for
// a host, a port or a database.
static bool is_torn(const PQconninfoOption *option) {
        for (; option->keyword; option++) {
                if (!option->val || strchr(option->dispchar, '*') || !strcmp(option->keyword, "user"))
                        continue;
                bool odd_port = !strcmp(option->keyword, "port") && option->val[strspn(option->val, "0123456789,")];
                if (odd_port || strchr(option->val, '@'))
                        return true;
        }
        return false;
}

// What libpq reads in it, whatever its form, without passwords: libpq knows which parameters are secret.
static void print_url(const char *url, FILE *to) {
        PQconninfoOption *options = PQconninfoParse(url, NULL);
        const char *separator = "";
        if (!options || is_torn(options))
                fputs("(not shown: no connection string, or a password in it is not percent-encoded)", to);
        else
                for (const PQconninfoOption *option = options; option->keyword; option++)
                        if (option->val) {
                                bool secret = strchr(option->dispchar, '*') != NULL;
                                fprintf(to, "%s%s=%s", separator, option->keyword, secret ? "***" : option->val);
                                separator = " ";
                        }
        PQconninfoFree(options);
}

void config_print(const struct config *config, FILE *to) {
        for (unsigned i = 0; i < ROWS; i++) {
                fprintf(to, "%s = ", rows[i].name);
                const void *at = field(config, &rows[i]);
                switch (rows[i].type) {
                case NUMBER:
                        fprintf(to, "%ld", *(const long *)at);
                        break;
                case BOOLEAN:
                        fputs(*(const bool *)at ? "on" : "off", to);
                        break;
                case TEXTS:
                        for (const char *const *text = at; *text; text++)
                                fprintf(to, "%s%s", text == (const char *const *)at ? "" : ",", *text);
                        break;
                case URL:
                        print_url(*(const char *const *)at, to);
                        break;
                case TEXT:
                default:
                        fputs(*(const char *const *)at, to);
                }
                fputc('\n', to);
        }
}
