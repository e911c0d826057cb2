// The command line: one row for each command and each option, from which parsing and help both come.
#pragma once

#include <stdbool.h>
#include <stdio.h>

enum exit_status {
        EXIT_OK = 0,
        EXIT_FAILED = 1,
        EXIT_USAGE = 2,
        EXIT_PARTIAL = 3, // an import that is not whole
};

enum command { COMMAND_TOKEN, COMMAND_KEYS, COMMAND_IMPORT, COMMAND_FINDINGS, COMMAND_DEMO, COMMANDS };

enum option {
        OPTION_ENDPOINT,
        OPTION_CA,
        OPTION_PLAINTEXT,
        OPTION_TOKEN,
        OPTION_API_KEY,
        OPTION_ORGANIZATION,
        OPTION_ACCOUNT,
        OPTION_WHOLE_ACCOUNT,
        OPTION_SERVICES,
        OPTION_REGIONS,
        OPTION_JSON,
        OPTION_LIMIT,
        OPTION_KEY,
        OPTION_ISSUER,
        OPTION_AUDIENCE,
        OPTION_SUBJECT,
        OPTION_EMAIL,
        OPTION_SERVICE_ROLE,
        OPTION_EXPIRES,
        OPTION_NEW_KEY,
        OPTIONS
};

struct options {
        enum command command;
        const char *argument;        // FILE or DIR
        const char *values[OPTIONS]; // NULL where not given; "" for a flag that is
};

// Reads the command line, then the environment, then the defaults. True: there is a command to run; otherwise
// help or the mistake was printed, and *ret_status is the exit status.
bool options_read(struct options *ret_options, int argc, char **argv, int *ret_status);

// Says that the command line is wrong, and where to find help; returns EXIT_USAGE.
int options_refuse(const struct options *options, const char *format, ...) __attribute__((format(printf, 2, 3)));

// "90s", "15m", "12h", "30d" in seconds; 0 for anything else.
long read_duration(const char *text);
