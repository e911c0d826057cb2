#include "tools/genie-agent/config_file.h"

#include "server/utf8.h"
#include "tools/genie-agent/text.h"

#include <stdarg.h>

bool config_wrong(const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        fputs("genie-agent: ", stderr);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
        va_end(arguments);
        return false;
}

bool config_add_label(struct agent_config *config, const char *name, const char *value) {
        if (config->label_count == LABELS_MAX)
                return config_wrong("there are at most %d labels", LABELS_MAX);
        if (utf8_length(name) > 100 || utf8_length(value) > 100)
                return config_wrong("a label's name and value have at most 100 characters");
        config->labels[config->label_count].name = name;
        config->labels[config->label_count++].value = value;
        return true;
}

bool config_set_labels(struct agent_config *config, const json_t *value) {
        const char *name;
        json_t *label;
        if (!json_is_object(value))
                return config_wrong("labels is an object in the configuration file: {\"NAME\": \"VALUE\"}");
        config->label_count = 0;
        json_object_foreach((json_t *)(uintptr_t)value, name, label) {
                if (!json_is_string(label))
                        return config_wrong("the label %s is not a string", name);
                if (!config_add_label(config, name, json_string_value(label)))
                        return false;
        }
        return true;
}

// A member that is a string where it is there; NULL where it is not. *good turns false where it is something else.
static const char *text_member(const json_t *object, const char *name, bool *good) {
        const json_t *member = json_object_get(object, name);
        if (member && !json_is_string(member))
                *good = config_wrong("%s is not a string", name);
        return json_string_value(member);
}

static bool forge_kind(const char *name, enum forge_kind *ret_forge) {
        static const char *const names[] = {
                [FORGE_GITHUB] = "github", [FORGE_GITLAB] = "gitlab", [FORGE_GITEA] = "gitea"};
        for (unsigned i = 0; name && i < sizeof names / sizeof *names; i++)
                if (!strcmp(name, names[i])) {
                        *ret_forge = (enum forge_kind)i;
                        return true;
                }
        return false;
}

static bool members_known(const json_t *object, const char *where, const char *const *names) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)object, key, value) {
                const char *const *name = names;
                while (*name && strcmp(*name, key) != 0)
                        name++;
                if (!*name)
                        return config_wrong("%s has no member `%s`", where, key);
        }
        return true;
}

static bool read_git_host(const json_t *entry, struct git_host *host) {
        static const char *const known[] = {
                "host", "forge", "api-url", "token-file", "token-variable", "user", "ca-file", "allow-http", NULL};
        bool good = true;
        if (!json_is_object(entry) || !members_known(entry, "a git host", known))
                return json_is_object(entry) ? false : config_wrong("a git host is an object");
        host->name = text_member(entry, "host", &good);
        host->api_url = text_member(entry, "api-url", &good);
        host->token_file = text_member(entry, "token-file", &good);
        host->token_variable = text_member(entry, "token-variable", &good);
        host->user = text_member(entry, "user", &good);
        host->ca_file = text_member(entry, "ca-file", &good);
        host->allow_http = json_is_true(json_object_get(entry, "allow-http"));
        if (good && (!host->name || !*host->name))
                return config_wrong("a git host has no `host`, such as github.com");
        if (good && !forge_kind(text_member(entry, "forge", &good), &host->forge))
                return config_wrong("the git host %s has no `forge`: github, gitlab or gitea", host->name);
        if (good && !host->token_file == !host->token_variable)
                return config_wrong("the git host %s takes one of token-file and token-variable", host->name);
        return good;
}

static bool read_git_hosts(struct agent_config *config, const json_t *value) {
        if (!json_is_array(value) || json_array_size(value) > GIT_HOSTS_MAX)
                return config_wrong("git-hosts is an array of at most %d", GIT_HOSTS_MAX);
        for (size_t i = 0; i < json_array_size(value); i++)
                if (!read_git_host(json_array_get(value, i), &config->git_hosts[i]))
                        return false;
        config->pull_request.host_count = json_array_size(value);
        return true;
}

// The agent's own secrets are not for its commands.
static bool commands_have_no_secrets(const struct agent_config *config) {
        for (size_t i = 0; i < config->commands.count; i++) {
                const struct allowed_command *command = &config->commands.commands[i];
                for (size_t j = 0; j < command->environment_count; j++) {
                        bool secret = !strncmp(command->environment[j], "GENIE_AGENT_", 12);
                        for (size_t k = 0; k < config->pull_request.host_count; k++) {
                                const char *variable = config->git_hosts[k].token_variable;
                                secret |= variable && !strcmp(variable, command->environment[j]);
                        }
                        if (secret)
                                return config_wrong("the command %s must not see the agent's own %s", command->name,
                                        command->environment[j]);
                }
        }
        return true;
}

bool config_file_read(struct agent_config *config, const char *path) {
        json_error_t error;
        const char *name;
        json_t *value;
        char *wrong = NULL;
        config->file = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
        if (!config->file && error.line <= 0)
                return config_wrong("%s: %s", path, error.text);
        if (!config->file)
                return config_wrong("%s, line %d: %s", path, error.line, error.text);
        if (!json_is_object(config->file))
                return config_wrong("%s is not a JSON object", path);
        json_object_foreach(config->file, name, value) {
                bool known = true;
                if (!strcmp(name, "git-hosts")) {
                        if (!read_git_hosts(config, value))
                                return false;
                } else if (!strcmp(name, "commands")) {
                        if (!allow_list_read(&config->commands, value, &wrong)) {
                                config_wrong("%s", wrong ? wrong : "out of memory");
                                free(wrong);
                                return false;
                        }
                } else if (!config_set_from_file(config, name, value, &known)) {
                        return false;
                }
                if (!known)
                        return config_wrong("%s: there is no option `%s`; see genie-agent --help", path, name);
        }
        return commands_have_no_secrets(config);
}
