#include "tools/genie/options.h"

#include "tools/genie/terminal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FOR(command) (1u << COMMAND_##command)
enum { SERVER = FOR(IMPORT) | FOR(FINDINGS) | FOR(DEMO), SIGNER = FOR(TOKEN) | FOR(DEMO) };

static const struct command_row {
        const char *name, *argument, *summary, *notes;
} commands[COMMANDS] = {
        [COMMAND_IMPORT] = {"import ocsf", "FILE|-", "send a scanner's results to the server",
                "FILE holds OCSF 1.5 Detection Findings (class 2004): an array, JSON lines, or values one after the\n"
                "other, plain or gzip; - is standard input. The account is found by what the file says of it.\n"
                "\n"
                "A file that is cut goes in as far as it is whole, as a partial scan: that resolves only what it\n"
                "saw pass. A file to which a scanner appended a second run, `[...]{...},...]`, becomes two scans, one\n"
                "after the other; runs are told apart by brackets, commas and unmapped.scan_id. A record that cannot\n"
                "be placed is refused with its position and reason, and the scan is partial.\n"
                "\n"
                "A connection that is lost is made again (8 times within about two minutes), and the import goes\n"
                "on where the server says. A file that was not imported to its end is continued by importing it\n"
                "again. Exit status: 0 all is in; 3 it is in, but cut or with records refused; 1 failed; 2 usage."},
        [COMMAND_FINDINGS] = {"findings", NULL, "list findings, the most severe first",
                "A table on a terminal, one JSON object a line in a pipe."},
        [COMMAND_KEYS] = {"keys", "DIR", "make a key pair that signs development tokens",
                "Writes DIR/signing-key.pem (mode 0600) and DIR/jwks.json, the key set for the server."},
        [COMMAND_TOKEN] = {"token", NULL, "sign a development token and print it",
                "With --service-role the token is a service's, without it a user's, whose --email counts as verified."},
        [COMMAND_DEMO] = {"demo", NULL, "make the organization `demo` through the API, for a first look",
                "Makes the organization, an API key of its owner and the AWS account 123456789012, and prints\n"
                "GENIE_ORGANIZATION=... and GENIE_API_KEY=... for a shell. What is there already is left alone; the\n"
                "API key is shown by the run that makes it only."},
};

static const struct option_row {
        const char *name, *value, *env, *initial, *help;
        unsigned commands;
        bool secret;
} rows[OPTIONS] = {
        [OPTION_ENDPOINT] = {"--endpoint", "HOST:PORT", "GENIE_ENDPOINT", "127.0.0.1:8443",
                "the server; unix:PATH for a socket", SERVER, false},
        [OPTION_CA] = {"--ca", "FILE", "GENIE_CA_FILE", NULL,
                "certificate authority of the server; without it, the machine's own", SERVER, false},
        [OPTION_PLAINTEXT] = {"--plaintext", NULL, NULL, NULL, "no TLS: credentials can be read on the way", SERVER,
                false},
        [OPTION_API_KEY] = {"--api-key", "@FILE", "GENIE_API_KEY", NULL,
                "file with an API key; the environment may hold the key itself", FOR(IMPORT) | FOR(FINDINGS), true},
        [OPTION_TOKEN] = {"--token", "@FILE", "GENIE_TOKEN", NULL,
                "file with a JWT, used where there is no API key; the environment may hold the JWT itself",
                FOR(IMPORT) | FOR(FINDINGS), true},
        [OPTION_ORGANIZATION] = {"--organization", "SLUG", "GENIE_ORGANIZATION", NULL,
                "the organization, such as demo or organizations/demo", FOR(IMPORT) | FOR(FINDINGS), false},
        [OPTION_ACCOUNT] = {"--account", "NAME", NULL, NULL,
                "the cloud account's resource name or its last part; without it, found by the file's account id",
                FOR(IMPORT), false},
        [OPTION_WHOLE_ACCOUNT] = {"--whole-account", NULL, NULL, NULL,
                "the scan covered the whole account: what it does not report is resolved", FOR(IMPORT), false},
        [OPTION_SERVICES] = {"--services", "A,B", NULL, NULL,
                "the scan covered all checks of these services, such as s3,iam", FOR(IMPORT), false},
        [OPTION_REGIONS] = {"--regions", "A,B", NULL, NULL, "the scan covered these regions", FOR(IMPORT), false},
        [OPTION_JSON] = {"--json", NULL, NULL, NULL, "JSON lines, whatever standard output is",
                FOR(IMPORT) | FOR(FINDINGS), false},
        [OPTION_LIMIT] = {"--limit", "N", NULL, NULL, "at most so many findings; without it, all", FOR(FINDINGS),
                false},
        [OPTION_KEY] = {"--key", "FILE", "GENIE_SIGNING_KEY_FILE", NULL, "private key that `genie keys` wrote", SIGNER,
                false},
        [OPTION_ISSUER] = {"--issuer", "URL", NULL, "https://genie.local", "the token's issuer", SIGNER, false},
        [OPTION_AUDIENCE] = {"--audience", "NAME", NULL, "devopsgenie", "the token's audience", SIGNER, false},
        [OPTION_SUBJECT] = {"--subject", "ID", NULL, "developer", "whom the token is for", FOR(TOKEN), false},
        [OPTION_EMAIL] = {"--email", "ADDRESS", NULL, NULL, "the user's (token) or the owner's (demo) address", SIGNER,
                false},
        [OPTION_SERVICE_ROLE] = {"--service-role", "ROLE", NULL, NULL, "platform-admin, scanner or assistant",
                FOR(TOKEN), false},
        [OPTION_EXPIRES] = {"--expires", "TIME", NULL, "12h", "how long it holds: 90s, 15m, 12h, 30d", FOR(TOKEN),
                false},
        [OPTION_NEW_KEY] = {"--new-key", NULL, NULL, NULL, "make another API key, when the first one is lost",
                FOR(DEMO), false},
};

static void print_option(FILE *out, const struct option_row *row) {
        char left[40];

        snprintf(left, sizeof left, "%s%s%s", row->name, row->value ? " " : "", row->value ? row->value : "");
        fprintf(out, "  %-24s %s", left, row->help);
        if (row->env || row->initial)
                fprintf(out, " (%s%s%s%s)", row->env ? row->env : "", row->env && row->initial ? "; " : "",
                        row->initial ? "default " : "", row->initial ? row->initial : "");
        fputc('\n', out);
}

static void print_help(FILE *out) {
        fputs("genie, the command line of DevOps Genie\n\nUsage: genie COMMAND [OPTION...]\n\nCommands:\n", out);
        for (size_t i = 0; i < COMMANDS; i++) {
                char left[40];
                snprintf(left, sizeof left, "%s%s%s", commands[i].name, commands[i].argument ? " " : "",
                        commands[i].argument ? commands[i].argument : "");
                fprintf(out, "  %-24s %s\n", left, commands[i].summary);
        }
        fputs("\ngenie COMMAND --help lists the options of a command; genie --version says which genie this is.\n"
              "Secrets are taken from files and the environment, never from the command line: every user of the\n"
              "machine can read that.\n",
                out);
}

static void print_command_help(FILE *out, enum command command) {
        const struct command_row *row = &commands[command];

        fprintf(out, "Usage: genie %s%s%s [OPTION...]\n\n%s.\n\n%s\n\nOptions:\n", row->name, row->argument ? " " : "",
                row->argument ? row->argument : "", row->summary, row->notes);
        for (size_t i = 0; i < OPTIONS; i++) {
                if (rows[i].commands & (1u << command))
                        print_option(out, &rows[i]);
        }
}

int options_refuse(const struct options *options, const char *format, ...) {
        va_list arguments;
        char message[400];

        va_start(arguments, format);
        vsnprintf(message, sizeof message, format, arguments);
        va_end(arguments);
        fputs("genie: ", stderr);
        put_text(stderr, message);
        fprintf(stderr, "; see genie%s%s --help\n", options->command < COMMANDS ? " " : "",
                options->command < COMMANDS ? commands[options->command].name : "");
        return EXIT_USAGE;
}

// Matches the words of a command's name; returns how many there are, or 0.
static int match_command(const char *name, int argc, char **argv) {
        for (int words = 0; words < argc; words++) {
                size_t size = strcspn(name, " ");
                if (strlen(argv[words]) != size || strncmp(argv[words], name, size) != 0)
                        return 0;
                if (name[size] == '\0')
                        return words + 1;
                name += size + 1;
        }
        return 0;
}

static int find_command(struct options *options, int argc, char **argv) {
        for (options->command = 0; options->command < COMMANDS; options->command++) {
                int words = match_command(commands[options->command].name, argc, argv);
                if (words)
                        return words;
        }
        return 0;
}

// Whether a word is the first of a command of several.
static bool begins_command(struct options *options, const char *word) {
        for (size_t i = 0; i < COMMANDS; i++) {
                size_t size = strcspn(commands[i].name, " ");
                if (strlen(word) == size && strncmp(word, commands[i].name, size) == 0) {
                        options->command = (enum command)i;
                        return true;
                }
        }
        return false;
}

// "--name", "--name value" or "--name=value". False: a mistake, which was printed.
static bool read_option(struct options *options, char **argv, int *at) {
        const char *argument = argv[*at];
        size_t size = strcspn(argument, "=");

        for (size_t i = 0; i < OPTIONS; i++) {
                const struct option_row *row = &rows[i];
                if (strlen(row->name) != size || strncmp(row->name, argument, size) != 0 ||
                        !(row->commands & (1u << options->command)))
                        continue;
                const char *value = argument[size] == '=' ? argument + size + 1 : NULL;
                if (!row->value && value) {
                        options_refuse(options, "%s takes no value", row->name);
                        return false;
                }
                if (row->value && !value)
                        value = argv[*at + 1] ? argv[++*at] : NULL;
                if (row->value && (!value || (row->secret && *value != '@'))) {
                        options_refuse(options, "%s needs a value: %s", row->name, row->value);
                        return false;
                }
                options->values[i] = row->value ? value : "";
                return true;
        }
        options_refuse(options, "unknown option %.*s", (int)size, argument);
        return false;
}

static void read_rest(struct options *options) {
        // A credential of the command line comes before one of the environment, whatever its kind.
        bool credential = options->values[OPTION_TOKEN] || options->values[OPTION_API_KEY];

        for (size_t i = 0; i < OPTIONS; i++) {
                if (!(rows[i].commands & (1u << options->command)) || options->values[i] ||
                        (rows[i].secret && credential))
                        continue;
                const char *env = rows[i].env ? getenv(rows[i].env) : NULL;
                options->values[i] = env && *env ? env : rows[i].initial;
        }
}

static bool read_arguments(struct options *options, int argc, char **argv, int at, int *ret_status) {
        const struct command_row *row = &commands[options->command];

        for (; at < argc; at++) {
                if (strcmp(argv[at], "--help") == 0) {
                        print_command_help(stdout, options->command);
                        *ret_status = EXIT_OK;
                        return false;
                }
                if (strncmp(argv[at], "--", 2) == 0) {
                        if (!read_option(options, argv, &at))
                                return false;
                } else if (row->argument && !options->argument) {
                        options->argument = argv[at];
                } else {
                        options_refuse(options, "%s is one argument too many", argv[at]);
                        return false;
                }
        }
        if (row->argument && !options->argument)
                options_refuse(options, "%s is missing", row->argument);
        else if (options->values[OPTION_TOKEN] && options->values[OPTION_API_KEY])
                options_refuse(options, "--token and --api-key exclude each other");
        else
                return true;
        return false;
}

bool options_read(struct options *ret_options, int argc, char **argv, int *ret_status) {
        *ret_options = (struct options){.command = COMMANDS};
        *ret_status = EXIT_OK;
        if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
                print_help(stdout);
                return false;
        }
        if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
                puts("genie " GENIE_VERSION);
                return false;
        }
        int words = find_command(ret_options, argc - 1, argv + 1);
        if (!words && argc >= 2 && begins_command(ret_options, argv[1])) {
                print_command_help(stderr, ret_options->command);
                *ret_status = EXIT_USAGE;
                return false;
        }
        *ret_status = EXIT_USAGE;
        if (!words) {
                options_refuse(ret_options, "%s%s", argc < 2 ? "a command is missing" : "unknown command ",
                        argc < 2 ? "" : argv[1]);
                return false;
        }
        if (!read_arguments(ret_options, argc, argv, 1 + words, ret_status))
                return false;
        read_rest(ret_options);
        return true;
}

long read_duration(const char *text) {
        static const struct {
                char unit;
                long seconds;
        } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
        char *end;
        long count = strtol(text, &end, 10);

        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                if (count > 0 && count <= 100000 && end[0] == units[i].unit && end[1] == '\0')
                        return count * units[i].seconds;
        }
        return 0;
}
