// genie import ocsf: sends a file of a scanner's results to the server, run by run.
#include "tools/genie/commands.h"
#include "tools/genie/import_account.h"
#include "tools/genie/import_send.h"
#include "tools/genie/memory.h"
#include "tools/genie/session.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>

enum { LIST_MAX = 1000 };

struct coverage {
        Devopsgenie__V1__Coverage message;
        char *services_text, *regions_text; // what the lists point into
        char *services[LIST_MAX], *regions[LIST_MAX];
};

// Splits "a,b" in place. False: an empty element, or too many.
static bool split(char *text, char **ret_list, size_t *ret_count) {
        for (char *at = text; text; at = text) {
                text = strchr(at, ',');
                if (text)
                        *text++ = '\0';
                if (*at == '\0' || *ret_count == LIST_MAX)
                        return false;
                ret_list[(*ret_count)++] = at;
        }
        return true;
}

// What the options say of the scan's coverage. False: they contradict each other, which was printed.
static bool read_coverage(const struct options *options, struct coverage *ret_coverage) {
        Devopsgenie__V1__Coverage *message = &ret_coverage->message;
        const char *services = options->values[OPTION_SERVICES], *regions = options->values[OPTION_REGIONS];

        *ret_coverage = (struct coverage){.message = DEVOPSGENIE__V1__COVERAGE__INIT};
        if (options->values[OPTION_WHOLE_ACCOUNT])
                message->extent = DEVOPSGENIE__V1__COVERAGE__EXTENT__WHOLE_ACCOUNT;
        else if (services || regions)
                message->extent = DEVOPSGENIE__V1__COVERAGE__EXTENT__LISTED;
        if (options->values[OPTION_WHOLE_ACCOUNT] && (services || regions)) {
                options_refuse(options, "--whole-account excludes --services and --regions");
                return false;
        }
        ret_coverage->services_text = services ? must(strdup(services)) : NULL;
        ret_coverage->regions_text = regions ? must(strdup(regions)) : NULL;
        message->services = ret_coverage->services;
        message->regions = ret_coverage->regions;
        if (split(ret_coverage->services_text, ret_coverage->services, &message->n_services) &&
                split(ret_coverage->regions_text, ret_coverage->regions, &message->n_regions))
                return true;
        options_refuse(options, "--services and --regions are lists such as a,b of at most %d", LIST_MAX);
        return false;
}

// The same file for the same account, with the same coverage, is the same import: sent again, it continues one that was
// cut off.
static bool make_request_id(struct import *import) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        unsigned char digest[EVP_MAX_MD_SIZE];
        size_t size = import->coverage ? protobuf_c_message_get_packed_size(&import->coverage->base) : 0;
        uint8_t *coverage = must(malloc(size + 1));
        if (import->coverage)
                protobuf_c_message_pack(&import->coverage->base, coverage);
        bool made = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                    EVP_DigestUpdate(context, import->account, strlen(import->account) + 1) == 1 &&
                    EVP_DigestUpdate(context, import->feed.head.digest, DIGEST_SIZE) == 1 &&
                    EVP_DigestUpdate(context, coverage, size) == 1 && EVP_DigestFinal_ex(context, digest, NULL) == 1;

        free(coverage);
        EVP_MD_CTX_free(context);
        if (made)
                request_id_format(digest, import->request_id);
        return made;
}

// Nothing in the run (or in as much of it as is held) says what it is of.
static int no_head(struct import *import) {
        const struct report *report = &import->report;

        report_clear(&import->report);
        if (feed_failed(&import->feed))
                return EXIT_FAILED;
        print_failure(
                "%s: none of its first %" PRId64 " records can be imported", import->feed.path, import->feed.next - 1);
        report_print_refusals(report, stderr, "  ");
        return EXIT_FAILED;
}

static enum exit_status import_run(
        struct import *import, const struct options *options, const char *organization, unsigned run) {
        struct feed *feed = &import->feed;

        report_begin_run(&import->report);
        while (!feed->has_head && feed_fill(feed))
                ;
        if (!feed->has_head)
                return no_head(import);
        report_clear(&import->report);
        if (!import_find_account(
                    import->client, options, organization, &feed->head, import->account, sizeof import->account) ||
                !make_request_id(import))
                return EXIT_FAILED;
        Devopsgenie__V1__Scan *scan = import_send(import);
        if (!scan)
                return EXIT_FAILED;
        bool whole = !scan->partial && !feed->cut && import->report.refused == 0;
        report_summary(&import->report, scan, run, feed->next - 1, feed->cut);
        devopsgenie__v1__scan__free_unpacked(scan, NULL);
        return whole ? EXIT_OK : EXIT_PARTIAL;
}

static int import_file(struct import *import, const struct options *options, const char *organization) {
        struct feed *feed = &import->feed;
        int status = EXIT_OK;
        unsigned run = 0;

        if (!feed_open(feed, options->argument, &import->report))
                return EXIT_FAILED;
        for (; status != EXIT_FAILED && feed_begin_run(feed); run++) {
                int of_run = import_run(import, options, organization, run);
                if (of_run != EXIT_OK)
                        status = of_run;
        }
        if (run == 0 && !feed_failed(feed))
                print_failure("%s holds no record, so it does not say which account was scanned", feed->path);
        if (run == 0)
                status = EXIT_FAILED;
        if (status == EXIT_FAILED && run > 1)
                print_failure("of the runs in %s, the first %u are imported", feed->path, run - 1);
        return fflush(stdout) == 0 ? status : EXIT_FAILED;
}

int command_import(const struct options *options) {
        char organization[RESOURCE_NAME_MAX];
        struct coverage coverage;
        struct import import = {0};
        int status = EXIT_USAGE;

        if (!read_coverage(options, &coverage))
                goto end;
        if (!session_organization(options, organization))
                goto end;
        import.client = session_open(options);
        if (!import.client)
                goto end;
        if (coverage.message.extent != DEVOPSGENIE__V1__COVERAGE__EXTENT__EXTENT_UNSPECIFIED)
                import.coverage = &coverage.message;
        report_begin(&import.report, options->argument, options->values[OPTION_JSON] != NULL);
        status = import_file(&import, options, organization);
        report_clear(&import.report);
        feed_close(&import.feed);
        client_free(import.client);
end:
        free(coverage.services_text);
        free(coverage.regions_text);
        return status;
}
