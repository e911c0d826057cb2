// genie keys, genie token: development tokens, signed with a key of one's own.
#include "auth/token.h"

#include "tools/genie/commands.h"
#include "tools/genie/memory.h"
#include "tools/genie/session.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int command_keys(const struct options *options) {
        AUTO_TEXT key = NULL;
        AUTO_TEXT jwks = NULL;
        AUTO_TEXT error = NULL;

        if (mkdir(options->argument, 0700) < 0 && errno != EEXIST) {
                print_failure("cannot make the folder %s: %s", options->argument, strerror(errno));
                return EXIT_FAILED;
        }
        if (asprintf(&key, "%s/signing-key.pem", options->argument) < 0 ||
                asprintf(&jwks, "%s/jwks.json", options->argument) < 0)
                return EXIT_FAILED;
        // A new pair would make every token of the old one worthless.
        if (access(key, F_OK) == 0) {
                print_failure("%s is there already", key);
                return EXIT_FAILED;
        }
        if (!token_keys_make(key, jwks, &error)) {
                print_failure("cannot make the keys: %s", error ? error : "out of memory");
                return EXIT_FAILED;
        }
        printf("%s\n%s\n", key, jwks);
        return EXIT_OK;
}

int command_token(const struct options *options) {
        static const char *const service_roles[] = {"platform-admin", "scanner", "assistant"};
        const char *role = options->values[OPTION_SERVICE_ROLE];
        long seconds = read_duration(options->values[OPTION_EXPIRES]);
        bool known = !role;
        AUTO_TEXT error = NULL;

        for (size_t i = 0; role && i < sizeof service_roles / sizeof *service_roles; i++)
                known |= strcmp(role, service_roles[i]) == 0;
        if (!options->values[OPTION_KEY])
                return options_refuse(options, "--key FILE is missing");
        if (!known)
                return options_refuse(options, "--service-role must be platform-admin, scanner or assistant");
        if (seconds == 0)
                return options_refuse(options, "--expires must be a time such as 90s, 15m, 12h or 30d");
        const struct token_claims claims = {
                .issuer = options->values[OPTION_ISSUER],
                .audience = options->values[OPTION_AUDIENCE],
                .subject = options->values[OPTION_SUBJECT],
                .email = options->values[OPTION_EMAIL],
                .service_role = role,
                .issued = time(NULL),
                .expires = time(NULL) + seconds,
        };
        AUTO_TEXT token = token_sign(options->values[OPTION_KEY], &claims, &error);
        if (!token) {
                print_failure("cannot sign a token: %s", error ? error : "out of memory");
                return EXIT_FAILED;
        }
        puts(token);
        return EXIT_OK;
}
