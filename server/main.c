// genied: the command line.
#include "auth/vault.h"
#include "server/config.h"
#include "server/serve.h"
#include "server/statements.h"
#include "storage/migrate.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

extern const struct migration migrations[];
extern const unsigned migration_count;

static int command_serve(const struct config *config, char **rest) {
        (void)rest;
        return serve(config);
}

static void say(const char *event, const char *detail) {
        printf("%s%s%s\n", event, detail ? " " : "", detail ? detail : "");
}

static int finish(bool good, char *error) {
        if (!good)
                fprintf(stderr, "genied: %s\n", error ? error : "out of memory");
        free(error);
        return good ? 0 : 1;
}

static int command_migrate(const struct config *config, char **rest) {
        (void)rest;
        char *error = NULL;
        bool good = migrate_apply(config->database_url, migrations, migration_count, say, &error);
        return finish(good, error);
}

static int command_keys(const struct config *config, char **rest) {
        (void)config;
        if (!rest[0] || strcmp(rest[0], "create") || !rest[1]) {
                fprintf(stderr, "genied: usage: genied keys create FILE\n");
                return 2;
        }
        char *error = NULL;
        bool good = vault_make_key_file(rest[1], &error);
        return finish(good, error);
}

static int command_check_queries(const struct config *config, char **rest) {
        (void)rest;
        struct statements statements = {0};
        char *error = NULL;
        PGconn *connection = PQconnectdb(config->database_url);
        bool good = statements_new(&statements, &error);
        if (good && PQstatus(connection) != CONNECTION_OK) {
                good = false;
                error = strdup(PQerrorMessage(connection));
        }
        good = good && statements_describe(&statements, connection, &error);
        if (good)
                puts("every statement fits its messages");
        PQfinish(connection);
        statements_free(&statements);
        return finish(good, error);
}

static int command_check_config(const struct config *config, char **rest) {
        (void)rest;
        config_print(config, stdout);
        return 0;
}

static const struct command {
        const char *name, *arguments, *help;
        int (*run)(const struct config *config, char **rest);
} commands[] = {
        {"serve", "", "answer calls, until SIGTERM or SIGINT (a second one exits at once)", command_serve},
        {"migrate", "", "bring the database's schema up to date; the URL's role must own it", command_migrate},
        {"keys", "create FILE", "make the vault's key file with one new key", command_keys},
        {"check-queries", "", "compare every SQL file with its messages, on a migrated database",
                command_check_queries},
        {"check-config", "", "show what genied would run with; secrets are not shown", command_check_config},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static int help(FILE *to) {
        fputs("genied " GENIE_VERSION ": DevOps Genie's platform API server\n\nusage: genied COMMAND [OPTION…]\n\n",
                to);
        for (unsigned i = 0; i < COMMANDS; i++)
                fprintf(to, "  %s%s%s\n        %s\n", commands[i].name, *commands[i].arguments ? " " : "",
                        commands[i].arguments, commands[i].help);
        fputs("\nOptions, each also from the environment:\n\n", to);
        config_help(to);
        return to == stdout ? 0 : 2;
}

int main(int argc, char **argv) {
        struct config config = {0};
        int rest;
        if (argc < 2)
                return help(stderr);
        if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
                return help(stdout);
        if (!strcmp(argv[1], "--version"))
                return puts("genied " GENIE_VERSION) < 0;
        for (unsigned i = 0; i < COMMANDS; i++)
                if (!strcmp(argv[1], commands[i].name)) {
                        int status = config_read(&config, argc - 1, argv + 1, &rest)
                                             ? commands[i].run(&config, argv + 1 + rest)
                                             : 2;
                        config_drop(&config);
                        return status;
                }
        fprintf(stderr, "genied: there is no command `%s`; see genied --help\n", argv[1]);
        return 2;
}
