#include "tools/genie-agent/config.h"

#include "tools/genie-agent/config_file.h"
#include "tools/genie-agent/log.h"
#include "tools/genie-agent/text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>

#define ENVIRONMENT "GENIE_AGENT_" // and the option in capitals, with _ for -

enum type { TEXT, NUMBER, BOOLEAN, LABELS, SECRET }; // SECRET: from the environment alone, and never shown

static const struct option_row {
        const char *name;
        enum type type;
        size_t offset;
        const char *fallback; // the default, as one would write it
        long least, most;     // of a NUMBER
        const char *help;
} rows[] = {
        {"config", TEXT, offsetof(struct agent_config, config), "", 0, 0,
                "configuration file, JSON: any option by its name, `commands` and `git-hosts`"},
        {"endpoint", TEXT, offsetof(struct agent_config, endpoint), "", 0, 0, "the platform: HOST:PORT, or unix:PATH"},
        {"ca-file", TEXT, offsetof(struct agent_config, ca_file), "", 0, 0,
                "certificate authorities of the platform, PEM; none: the machine's own"},
        {"key", SECRET, offsetof(struct agent_config, key), "", 0, 0, "the agent's key, `dga_…`"},
        {"key-file", TEXT, offsetof(struct agent_config, key_file), "", 0, 0,
                "a file with the agent's key, read at each connect"},
        {"state-directory", TEXT, offsetof(struct agent_config, state_directory), "/var/lib/genie-agent", 0, 0,
                "the journal and what belongs to it; one agent has it at a time"},
        {"labels", LABELS, 0, "", 0, 0, "what tasks can ask for: NAME=VALUE, commas between several"},
        {"command-slots", NUMBER, offsetof(struct agent_config, command_slots), "4", 0, 100,
                "COMMAND tasks at a time; none where there are no `commands`"},
        {"pull-request-slots", NUMBER, offsetof(struct agent_config, pull_request_slots), "2", 0, 100,
                "PULL_REQUEST tasks at a time; none where there are no `git-hosts`"},
        {"log-spool-bytes", NUMBER, offsetof(struct agent_config, log_spool_bytes), "8388608", 65536, 1L << 30,
                "log of one task that may wait for the platform on this disk"},
        {"journal-bytes", NUMBER, offsetof(struct agent_config, journal_bytes), "4194304", 4096, 1L << 30,
                "size past which the journal is written anew"},
        {"shutdown-grace-ms", NUMBER, offsetof(struct agent_config, shutdown_grace_ms), "20000", 0, 3600000,
                "for running tasks to finish, at SIGTERM"},
        {"superseded-delay-ms", NUMBER, offsetof(struct agent_config, superseded_delay_ms), "300000", 0, 86400000,
                "before another try after another instance took over; half of it is random"},
        {"full-disk-wait-ms", NUMBER, offsetof(struct agent_config, full_disk_wait_ms), "60000", 0, 3600000,
                "how long a task waits for room on a full disk before it fails"},
        {"cache-directory", TEXT, offsetof(struct agent_config, cache_directory), "/var/cache/genie-agent", 0, 0,
                "bare repositories for PULL_REQUEST"},
        {"cache-bytes", NUMBER, offsetof(struct agent_config, cache_bytes), "2147483648", 1 << 20, 1L << 40,
                "how large that may grow"},
        {"author-name", TEXT, offsetof(struct agent_config, author_name), "DevOps Genie", 0, 0, "of commits"},
        {"author-email", TEXT, offsetof(struct agent_config, author_email), "genie@localhost", 0, 0, "of commits"},
        {"signing-key-file", TEXT, offsetof(struct agent_config, signing_key_file), "", 0, 0,
                "a private key of OpenSSH that commits are signed with; none: not signed"},
        {"pull-request-limit-ms", NUMBER, offsetof(struct agent_config, pull_request_limit_ms), "900000", 1000,
                86400000, "how long a PULL_REQUEST may take"},
        {"log-level", TEXT, offsetof(struct agent_config, log_level), "info", 0, 0, "error, warning, info, debug"},
        {"plaintext", BOOLEAN, offsetof(struct agent_config, plaintext), "off", 0, 0,
                "no TLS: for tests, the key is readable on the way"},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void *field(struct agent_config *config, const struct option_row *row) { return (char *)config + row->offset; }

static void environment_name(const struct option_row *row, char ret_name[static 64]) {
        snprintf(ret_name, 64, ENVIRONMENT "%s", row->name);
        for (char *c = ret_name; *c; c++)
                *c = (char)(*c == '-' ? '_' : toupper((unsigned char)*c));
}

static bool set_number(const struct option_row *row, long *number, const char *text) {
        char *end;
        errno = 0;
        long value = strtol(text, &end, 10);
        if (errno || end == text || *end || value < row->least || value > row->most)
                return config_wrong("%s is a number from %ld to %ld, not `%s`", row->name, row->least, row->most, text);
        *number = value;
        return true;
}

static bool set_boolean(const struct option_row *row, bool *boolean, const char *text) {
        bool on = !strcmp(text, "on") || !strcmp(text, "true") || !strcmp(text, "1");
        if (!on && strcmp(text, "off") && strcmp(text, "false") && strcmp(text, "0"))
                return config_wrong("%s is on or off, not `%s`", row->name, text);
        *boolean = on;
        return true;
}

static bool set_labels(struct agent_config *config, const char *text) {
        char *state = NULL;
        free(config->labels_text);
        config->labels_text = must(strdup(text));
        config->label_count = 0;
        for (char *part = strtok_r(config->labels_text, ",", &state); part; part = strtok_r(NULL, ",", &state)) {
                char *equals = strchr(part, '=');
                if (!equals || equals == part)
                        return config_wrong("labels are NAME=VALUE with commas between them, not `%s`", part);
                *equals = '\0';
                if (!config_add_label(config, part, equals + 1))
                        return false;
        }
        return true;
}

static bool set(struct agent_config *config, const struct option_row *row, const char *text) {
        switch (row->type) {
        case NUMBER:
                return set_number(row, field(config, row), text);
        case BOOLEAN:
                return set_boolean(row, field(config, row), text);
        case LABELS:
                return set_labels(config, text);
        case TEXT:
        case SECRET:
        default:
                *(const char **)field(config, row) = text;
                return true;
        }
}

bool config_set_from_file(struct agent_config *config, const char *name, const json_t *value, bool *ret_known) {
        char number[32];
        *ret_known = false;
        for (unsigned i = 1; i < ROWS; i++) { // not `config` itself
                if (strcmp(rows[i].name, name) != 0)
                        continue;
                *ret_known = true;
                if (rows[i].type == SECRET)
                        return config_wrong("%s does not belong into the configuration file: it is a secret", name);
                if (rows[i].type == LABELS)
                        return config_set_labels(config, value);
                if (rows[i].type == NUMBER && json_is_integer(value)) {
                        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
                        return set(config, &rows[i], number);
                }
                if (rows[i].type == BOOLEAN && json_is_boolean(value))
                        return set(config, &rows[i], json_is_true(value) ? "on" : "off");
                if (!json_is_string(value))
                        return config_wrong("%s is not of the right type in the configuration file", name);
                return set(config, &rows[i], json_string_value(value));
        }
        return true;
}

static bool read_environment(struct agent_config *config, unsigned from, unsigned to) {
        char name[64];
        for (unsigned i = from; i < to; i++) {
                environment_name(&rows[i], name);
                const char *value = getenv(name);
                if (value && !set(config, &rows[i], value))
                        return false;
        }
        return true;
}

// Reads the arguments from `from` on; with only_config, nothing of them counts but where the configuration file is.
static bool read_arguments(struct agent_config *config, int argc, char **argv, bool only_config, int *ret_rest) {
        struct option options[ROWS + 1] = {0};
        for (unsigned i = 0; i < ROWS; i++)
                options[i] = (struct option){rows[i].name, required_argument, NULL, (int)i + 1000};
        optind = 1;
        for (int found; (found = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
                if (found < 1000)
                        return config_wrong("see genie-agent --help");
                if (rows[found - 1000].type == SECRET) // here, or getopt would take it for a beginning of --key-file
                        return config_wrong("a secret does not belong into an argument, which everyone can read");
                if ((!only_config || found == 1000) && !set(config, &rows[found - 1000], optarg))
                        return false;
        }
        *ret_rest = optind;
        return true;
}

static bool check(struct agent_config *config) {
        enum log_level level;
        if (!*config->endpoint)
                return config_wrong("no endpoint: give --endpoint HOST:PORT or set GENIE_AGENT_ENDPOINT");
        if (!*config->key && !*config->key_file)
                return config_wrong("no key: give --key-file FILE or set GENIE_AGENT_KEY");
        if (!agent_log_level_parse(config->log_level, &level))
                return config_wrong("log-level is error, warning, info or debug, not `%s`", config->log_level);
        agent_log_level(level);
        config->pull_request.hosts = config->git_hosts;
        config->pull_request.cache_folder = config->cache_directory;
        config->pull_request.cache_limit_bytes = (uint64_t)config->cache_bytes;
        config->pull_request.author_name = config->author_name;
        config->pull_request.author_email = config->author_email;
        config->pull_request.signing_key_file = *config->signing_key_file ? config->signing_key_file : NULL;
        config->pull_request.time_limit_ms = (unsigned)config->pull_request_limit_ms;
        return true;
}

bool agent_config_read(struct agent_config *config, int argc, char **argv, int *ret_rest) {
        for (unsigned i = 0; i < ROWS; i++)
                if (!set(config, &rows[i], rows[i].fallback))
                        return false;
        return read_environment(config, 0, 1) &&
               read_arguments(config, argc, argv, /* only_config= */ true, ret_rest) &&
               (!*config->config || config_file_read(config, config->config)) && read_environment(config, 1, ROWS) &&
               read_arguments(config, argc, argv, /* only_config= */ false, ret_rest) && check(config);
}

void agent_config_drop(struct agent_config *config) {
        allow_list_drop(&config->commands);
        json_decref(config->file);
        free(config->labels_text);
        *config = (struct agent_config){0};
}

void agent_config_help(FILE *to) {
        static const char *const types[] = {" TEXT", " NUMBER", " on|off", " NAME=VALUE,…", ""};
        for (unsigned i = 0; i < ROWS; i++) {
                const struct option_row *row = &rows[i];
                char name[64], range[64] = "";
                environment_name(row, name);
                if (row->type == NUMBER)
                        snprintf(range, sizeof range, "; %ld to %ld", row->least, row->most);
                if (row->type == SECRET)
                        fprintf(to, "  (no option, so that it is in no list of processes)\n");
                else
                        fprintf(to, "  --%s%s\n", row->name, types[row->type]);
                fprintf(to, "        %s%s%s%s\n        %s\n", row->help, range, *row->fallback ? "; default " : "",
                        row->fallback, name);
        }
}

static bool key_error(char **ret_error, const char *path, const char *what) {
        if (asprintf(ret_error, "%s%s%s", path, *path ? ": " : "", what) < 0)
                *ret_error = NULL;
        return false;
}

bool agent_config_key(const struct agent_config *config, char ret_key[static KEY_SIZE], char **ret_error) {
        size_t size = 0;
        *ret_error = NULL;
        if (*config->key_file) {
                int file = open(config->key_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
                ssize_t got = file >= 0 ? read(file, ret_key, KEY_SIZE - 1) : -1;
                int error = errno;
                if (file >= 0)
                        close(file);
                if (got < 0)
                        return key_error(ret_error, config->key_file, strerror(error));
                size = (size_t)got;
        } else {
                size = strnlen(config->key, KEY_SIZE - 1);
                memcpy(ret_key, config->key, size);
        }
        while (size > 0 && isspace((unsigned char)ret_key[size - 1]))
                size--;
        ret_key[size] = '\0';
        for (const char *c = ret_key; *c; c++)
                if (*c <= ' ' || *c > '~')
                        size = 0;
        if (size == 0) {
                explicit_bzero(ret_key, KEY_SIZE);
                return key_error(ret_error, *config->key_file ? config->key_file : "GENIE_AGENT_KEY", "holds no key");
        }
        return true;
}
