#include "tools/genie/session.h"

#include "tools/genie/memory.h"
#include "tools/genie/terminal.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { CREDENTIAL_SIZE = 16 << 10 };

void print_failure(const char *format, ...) {
        va_list arguments;
        AUTO_TEXT message = NULL;

        va_start(arguments, format);
        if (vasprintf(&message, format, arguments) < 0)
                message = NULL;
        va_end(arguments);
        fputs("genie: ", stderr);
        put_text(stderr, must(message));
        fputc('\n', stderr);
}

void print_call_error(const char *doing, const struct client_error *error) {
        fprintf(stderr, "genie: %s: %s", doing, client_code_name(error->code));
        if (error->reason && *error->reason) {
                fputs(", ", stderr);
                put_text(stderr, error->reason);
        }
        fputs(": ", stderr);
        put_text(stderr, error->message ? error->message : "");
        fputc('\n', stderr);
        for (size_t i = 0; i < error->n_details; i++) {
                fputs("  ", stderr);
                put_text(stderr, error->details[i]);
                fputc('\n', stderr);
        }
        if (error->retry_delay_ms > 0)
                fprintf(stderr, "  try again in %.1f s\n", (double)error->retry_delay_ms / 1000);
}

// A credential as it stands in the environment, or from the file that "@FILE" names.
static bool read_credential(const char *value, char ret_text[static CREDENTIAL_SIZE]) {
        size_t size = 0;

        if (*value != '@') {
                size = strlen(value) < CREDENTIAL_SIZE ? strlen(value) : CREDENTIAL_SIZE - 1;
                memcpy(ret_text, value, size);
        } else {
                FILE *file = fopen(value + 1, "re");
                if (!file) {
                        print_failure("cannot read the credential from %s: %s", value + 1, strerror(errno));
                        return false;
                }
                setvbuf(file, NULL, _IONBF, 0); // no copy that nobody wipes
                size = fread(ret_text, 1, CREDENTIAL_SIZE - 1, file);
                fclose(file);
        }
        while (size > 0 && isspace((unsigned char)ret_text[size - 1]))
                size--;
        ret_text[size] = '\0';
        return true;
}

struct client *session_open_as(const struct options *options, const char *credential) {
        AUTO_TEXT error = NULL;
        const struct client_settings settings = {
                .endpoint = options->values[OPTION_ENDPOINT],
                .ca_file = options->values[OPTION_CA],
                .plaintext = options->values[OPTION_PLAINTEXT] != NULL,
                .credential = credential,
        };

        struct client *client = client_new(&settings, &error);
        if (!client)
                print_failure("%s", error ? error : "out of memory");
        return client;
}

struct client *session_open(const struct options *options) {
        const char *value = options->values[OPTION_API_KEY];
        char credential[CREDENTIAL_SIZE];

        if (!value)
                value = options->values[OPTION_TOKEN];
        if (!value) {
                print_failure(
                        "no credential: set GENIE_API_KEY or GENIE_TOKEN, or give --api-key @FILE or --token @FILE");
                return NULL;
        }
        if (!read_credential(value, credential))
                return NULL;
        struct client *client = session_open_as(options, credential);
        explicit_bzero(credential, sizeof credential);
        return client;
}

bool session_organization(const struct options *options, char ret_name[static RESOURCE_NAME_MAX]) {
        static const char prefix[] = "organizations/";
        const char *name = options->values[OPTION_ORGANIZATION];

        if (!name) {
                print_failure("no organization: set GENIE_ORGANIZATION or give --organization SLUG");
                return false;
        }
        if (strncmp(name, prefix, strlen(prefix)) == 0)
                name += strlen(prefix);
        if (*name == '\0' || strlen(name) > 63 || strchr(name, '/')) {
                print_failure("%s is not an organization's slug, such as demo", name);
                return false;
        }
        snprintf(ret_name, RESOURCE_NAME_MAX, "%s%s", prefix, name);
        return true;
}
