// genie findings: the findings as a table for people, or as JSON lines for programs.
#include "devopsgenie/v1/finding_service.pb-c.h"
#include "tools/genie/commands.h"
#include "tools/genie/json.h"
#include "tools/genie/memory.h"
#include "tools/genie/session.h"
#include "tools/genie/terminal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef Devopsgenie__V1__Finding Finding;
typedef Devopsgenie__V1__ListFindingsResponse Page;

enum { PAGE_SIZE = 200 };

static const char *severity_of(const Finding *finding) {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
                &devopsgenie__v1__finding__severity__descriptor, (int)finding->severity);
        return value ? value->name : "";
}

static const char *state_of(const Finding *finding) {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
                &devopsgenie__v1__finding__state__descriptor, (int)finding->state);
        return value ? value->name : "";
}

static const char *region_of(const Finding *finding) { return finding->region; }
static const char *check_of(const Finding *finding) { return finding->check; }
static const char *resource_of(const Finding *finding) {
        return *finding->resource_display_name ? finding->resource_display_name : finding->resource_uid;
}

// Widths of 0 share what the terminal has left, by their parts of 100.
static const struct column {
        const char *title;
        const char *(*text)(const Finding *finding);
        unsigned width, part;
} columns[] = {
        {"SEVERITY", severity_of, 13, 0},
        {"STATE", state_of, 13, 0},
        {"REGION", region_of, 14, 0},
        {"CHECK", check_of, 0, 55},
        {"RESOURCE", resource_of, 0, 45},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

// A row of the table, or its titles where there is no finding.
static void print_row(const Finding *finding, unsigned terminal) {
        unsigned fixed = COLUMNS - 1;

        for (size_t i = 0; i < COLUMNS; i++)
                fixed += columns[i].width;
        unsigned rest = terminal > fixed + 40 ? terminal - fixed : 40;
        for (size_t i = 0; i < COLUMNS; i++) {
                unsigned width = columns[i].width ? columns[i].width : rest * columns[i].part / 100;
                if (i > 0)
                        putchar(' ');
                put_column(stdout, finding ? columns[i].text(finding) : columns[i].title, width);
        }
        putchar('\n');
}

static Page *fetch(struct client *client, const char *parent, long limit, const char *token) {
        Devopsgenie__V1__ListFindingsRequest request = DEVOPSGENIE__V1__LIST_FINDINGS_REQUEST__INIT;
        ProtobufCMessage *page = NULL;
        struct client_error error = {0};

        request.parent = unconst(parent);
        request.page_size = (int32_t)(limit < PAGE_SIZE ? limit : PAGE_SIZE);
        request.page_token = unconst(token);
        if (!client_call(client, "/devopsgenie.v1.FindingService/ListFindings", &request.base,
                    &devopsgenie__v1__list_findings_response__descriptor, CALL_TIMEOUT_MS, &page, &error))
                print_call_error("cannot list the findings", &error);
        client_error_clear(&error);
        return (Page *)page;
}

// Prints page after page, holding one.
static bool print_all(struct client *client, const char *parent, long limit, unsigned terminal) {
        AUTO_TEXT token = must(strdup(""));

        do {
                Page *page = fetch(client, parent, limit, token);
                if (!page)
                        return false;
                for (size_t i = 0; i < page->n_findings && limit > 0; i++, limit--) {
                        if (terminal)
                                print_row(page->findings[i], terminal);
                        else
                                json_print(stdout, json_message(&page->findings[i]->base));
                }
                free(token);
                token = must(strdup(page->next_page_token));
                devopsgenie__v1__list_findings_response__free_unpacked(page, NULL);
        } while (*token && limit > 0 && !ferror(stdout));
        return !ferror(stdout) && fflush(stdout) == 0;
}

int command_findings(const struct options *options) {
        char parent[RESOURCE_NAME_MAX];
        const char *value = options->values[OPTION_LIMIT];
        char *end = NULL;
        long limit = value ? strtol(value, &end, 10) : LONG_MAX;

        if (limit <= 0 || (end && (*end || end == value)))
                return options_refuse(options, "--limit must be a number from 1");
        if (!session_organization(options, parent))
                return EXIT_USAGE;
        struct client *client = session_open(options);
        if (!client)
                return EXIT_USAGE;
        unsigned terminal = options->values[OPTION_JSON] ? 0 : terminal_width(stdout);
        if (terminal)
                print_row(NULL, terminal);
        bool printed = print_all(client, parent, limit, terminal);
        client_free(client);
        return printed ? EXIT_OK : EXIT_FAILED;
}
