#include "tools/genie-agent/check.h"

#include "tools/client/client.h"
#include "tools/genie-agent/check_git_host.h"
#include "tools/genie-agent/check_tls.h"
#include "tools/genie-agent/journal.h"
#include "tools/genie-agent/key_store.h"
#include "tools/genie-agent/text.h"

#include <devopsgenie/v1/auth_service.pb-c.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { CALL_TIMEOUT_MS = 20000, SKEW_WARN_S = 60, UNAUTHENTICATED = 16, ROOM_NEEDED = 1 << 20 };

// A line; returns `good`.
static bool __attribute__((format(printf, 3, 4))) line(bool good, const char *what, const char *format, ...) {
        va_list arguments;
        printf("%-6s %s: ", good ? "ok" : "WRONG", what);
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        putchar('\n');
        return good;
}

static bool check_configuration(const struct agent_config *config) {
        size_t programs_missing = 0;
        for (size_t i = 0; i < config->commands.count; i++) {
                const struct allowed_command *command = &config->commands.commands[i];
                if (access(command->argv[0], X_OK) != 0) {
                        programs_missing++;
                        line(false, "configuration", "command %s: %s cannot be executed: %m", command->name,
                                command->argv[0]);
                }
        }
        if (programs_missing)
                return false;
        if (!config->commands.count && !config->pull_request.host_count)
                return line(false, "configuration",
                        "there is nothing to do: name `commands` or `git-hosts` in the configuration file");
        return line(true, "configuration", "%zu commands, %zu git hosts", config->commands.count,
                config->pull_request.host_count);
}

// The folder of an agent that runs is that agent's: it is looked at from outside.
static bool check_state_in_use(const char *folder, pid_t user) {
        struct statvfs room;
        char process[32] = "";
        if (user > 0)
                snprintf(process, sizeof process, " (process %d)", (int)user);
        if (statvfs(folder, &room) == 0 && room.f_bavail * room.f_frsize < ROOM_NEEDED)
                return line(false, "state", "%s, which a running genie-agent%s uses, is full: make room there", folder,
                        process);
        return line(true, "state", "%s is used by a running genie-agent%s", folder, process);
}

static bool check_state(const struct agent_config *config) {
        __attribute__((cleanup(drop_text))) char *error = NULL;
        pid_t user = journal_user(config->state_directory);
        if (user)
                return check_state_in_use(config->state_directory, user);
        struct journal *journal = journal_open(config->state_directory, (size_t)config->journal_bytes, &error);
        if (!journal)
                return line(false, "state", "%s", error ? error : "out of memory");
        bool room = journal_reserve(journal, ROOM_NEEDED);
        int failure = errno;
        journal_close(journal);
        if (!room)
                return line(false, "state", "%s cannot be written: %s; make room there", config->state_directory,
                        strerror(failure));
        return line(true, "state", "%s can be written", config->state_directory);
}

// What clocks there are to compare with: the certificate's time of validity, and what git hosts say.
static bool check_platform_tls(const struct agent_config *config) {
        struct tls_finding finding = {0};
        if (config->plaintext || !strncmp(config->endpoint, "unix:", 5))
                return line(true, "TLS", "not used with %s", config->endpoint);
        bool good = check_tls(config->endpoint, *config->ca_file ? config->ca_file : NULL, &finding);
        return line(good, "TLS", "%s", finding.text);
}

enum verdict { KNOWN, REFUSED, NOT_ASKED };

// Asks the platform whose key it is. *ret_text (malloc'ed) is the answer, or why there is none.
static enum verdict ask(const struct agent_config *config, const char *key, char **ret_text) {
        const struct client_settings settings = {.endpoint = config->endpoint,
                .ca_file = *config->ca_file ? config->ca_file : NULL,
                .plaintext = config->plaintext,
                .credential = key};
        struct client *client = client_new(&settings, ret_text);
        if (!client)
                return NOT_ASKED;
        const Devopsgenie__V1__WhoAmIRequest request = DEVOPSGENIE__V1__WHO_AM_IREQUEST__INIT;
        ProtobufCMessage *response = NULL;
        struct client_error refusal = {0};
        enum verdict verdict = KNOWN;
        if (client_call(client, "/devopsgenie.v1.AuthService/WhoAmI", &request.base,
                    &devopsgenie__v1__who_am_iresponse__descriptor, CALL_TIMEOUT_MS, &response, &refusal)) {
                *ret_text = must(strdup(((const Devopsgenie__V1__WhoAmIResponse *)(const void *)response)->caller));
                protobuf_c_message_free_unpacked(response, NULL);
        } else {
                verdict = refusal.code == UNAUTHENTICATED ? REFUSED : NOT_ASKED;
                if (asprintf(ret_text, "%s, %s", client_code_name(refusal.code), refusal.message) < 0)
                        *ret_text = NULL;
        }
        client_error_clear(&refusal);
        client_free(client);
        return verdict;
}

// The key that the platform has offered in the channel is used first, where there is one (session.c).
static bool find_offered(const struct agent_config *config, const char *configured, char ret_key[static KEY_SIZE]) {
        int folder = open(config->state_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bool found = folder >= 0 && key_store_find(folder, configured, ret_key);
        if (folder >= 0)
                close(folder);
        return found;
}

static bool check_key(const struct agent_config *config) {
        __attribute__((cleanup(drop_text))) char *text = NULL, *offered_text = NULL;
        char configured[KEY_SIZE], offered[KEY_SIZE];
        if (!agent_config_key(config, configured, &text))
                return line(false, "key", "%s", text ? text : "out of memory");
        bool has_offered = find_offered(config, configured, offered);
        enum verdict verdict = ask(config, configured, &text);
        enum verdict of_offered = has_offered ? ask(config, offered, &offered_text) : NOT_ASKED;
        explicit_bzero(configured, sizeof configured);
        explicit_bzero(offered, sizeof offered);
        if (of_offered == KNOWN)
                return line(true, "key", "the platform knows the one that it has offered as %s%s", offered_text,
                        verdict == REFUSED ? "; it refuses the configured one: put a new one in its place, before the "
                                             "state directory is lost"
                                           : "");
        switch (verdict) {
        case KNOWN:
                return line(true, "key", "the platform knows it as %s", text);
        case REFUSED:
                return line(false, "key",
                        "the platform refuses it: rotate the agent's key and put the new one in its place");
        case NOT_ASKED:
                break;
        }
        return line(false, "key", "the platform cannot be asked: %s", text ? text : "out of memory");
}

static bool check_git_hosts(const struct agent_config *config) {
        bool good = true;
        for (size_t i = 0; i < config->pull_request.host_count; i++) {
                struct git_host_finding finding = {0};
                const struct git_host *host = &config->pull_request.hosts[i];
                good &= line(check_git_host(host, &finding), host->name, "%s", finding.text);
                if (finding.has_date && (finding.skew_s > SKEW_WARN_S || finding.skew_s < -SKEW_WARN_S))
                        good &= line(false, "clock", "%lld seconds away from that of %s: set this machine's clock",
                                (long long)finding.skew_s, host->name);
                else if (finding.has_date)
                        line(true, "clock", "that of %s is %lld seconds away", host->name, (long long)finding.skew_s);
        }
        return good;
}

int check_all(const struct agent_config *config) {
        bool good = check_configuration(config);
        good &= check_state(config);
        bool tls = check_platform_tls(config);
        good &= tls && check_key(config);
        good &= check_git_hosts(config);
        return good ? 0 : 1;
}
