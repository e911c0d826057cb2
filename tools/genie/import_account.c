#include "tools/genie/import_account.h"

#include "devopsgenie/v1/cloud_account_service.pb-c.h"
#include "tools/genie/memory.h"
#include "tools/genie/session.h"
#include "tools/genie/terminal.h"

#include <string.h>
#include <strings.h>

typedef Devopsgenie__V1__CloudAccount Account;
typedef Devopsgenie__V1__ListCloudAccountsResponse Page;

enum { LISTED_MAX = 20, PAGE_SIZE = 1000 };

static const char *provider_name(const Account *account) {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
                &devopsgenie__v1__cloud_account__provider__descriptor, (int)account->provider);
        return value ? value->name : "";
}

// Scanners write "aws" where the API has AWS, and the ids of Azure and GitHub in any case.
static bool is_of(const Account *account, const struct scan_head *head) {
        return strcasecmp(account->account_uid, head->account_uid) == 0 &&
               (*head->provider == '\0' || strcasecmp(provider_name(account), head->provider) == 0);
}

static bool is_known_provider(const char *name) {
        static const ProtobufCEnumDescriptor *const type = &devopsgenie__v1__cloud_account__provider__descriptor;

        for (unsigned i = 0; i < type->n_values; i++) {
                if (type->values[i].value != 0 && strcasecmp(type->values[i].name, name) == 0)
                        return true;
        }
        return false;
}

static bool is_plain(const char *text) {
        for (; *text; text++) {
                if (*text <= ' ' || *text > '~' || strchr("\"'\\", *text))
                        return false;
        }
        return true;
}

// The command that would connect the account, where its names fit on a command line.
static void print_remedy(const struct options *options, const char *organization, const struct scan_head *head) {
        const char *ca = options->values[OPTION_CA];
        char provider[FEED_TEXT_MAX];

        if (!is_known_provider(head->provider) || !is_plain(head->account_uid) || !is_plain(organization))
                return;
        for (size_t i = 0; i < sizeof provider; i++)
                provider[i] = (char)(head->provider[i] >= 'a' && head->provider[i] <= 'z' ? head->provider[i] - 32
                                                                                          : head->provider[i]);
        fprintf(stderr,
                "  connect it with:\n"
                "    grpcurl %s%s -H \"authorization: Bearer $GENIE_API_KEY\" \\\n"
                "      -d '{\"parent\":\"%s\",\"cloud_account\":{\"provider\":\"%s\",\"account_uid\":\"%s\","
                "\"display_name\":\"%s\"}}' \\\n"
                "      %s devopsgenie.v1.CloudAccountService/CreateCloudAccount\n",
                options->values[OPTION_PLAINTEXT] ? "-plaintext"
                : ca                              ? "-cacert "
                                                  : "",
                options->values[OPTION_PLAINTEXT] || !ca ? "" : ca, organization, provider, head->account_uid,
                head->account_uid, options->values[OPTION_ENDPOINT]);
}

static void print_account(const Account *account) {
        fputs("  ", stderr);
        put_text(stderr, account->name);
        fprintf(stderr, "  %s ", provider_name(account));
        put_text(stderr, account->account_uid);
        fputs("  ", stderr);
        put_text(stderr, account->display_name);
        fputc('\n', stderr);
}

static Page *fetch(struct client *client, const char *organization, const char *token) {
        Devopsgenie__V1__ListCloudAccountsRequest request = DEVOPSGENIE__V1__LIST_CLOUD_ACCOUNTS_REQUEST__INIT;
        ProtobufCMessage *page = NULL;
        struct client_error error = {0};

        request.parent = unconst(organization);
        request.page_size = PAGE_SIZE;
        request.page_token = unconst(token);
        if (!client_call(client, "/devopsgenie.v1.CloudAccountService/ListCloudAccounts", &request.base,
                    &devopsgenie__v1__list_cloud_accounts_response__descriptor, CALL_TIMEOUT_MS, &page, &error))
                print_call_error("cannot list the cloud accounts", &error);
        client_error_clear(&error);
        return (Page *)page;
}

enum found { FOUND, NOT_FOUND, NOT_KNOWN /* a call failed */ };

// Goes through all accounts; with `print` shows the first of them.
static enum found walk(struct client *client, const char *organization, const struct scan_head *head, bool print,
        char *ret_name, size_t size) {
        AUTO_TEXT token = must(strdup(""));
        enum found found = NOT_FOUND;
        size_t count = 0;

        do {
                Page *page = fetch(client, organization, token);
                if (!page)
                        return NOT_KNOWN;
                for (size_t i = 0; i < page->n_cloud_accounts && found == NOT_FOUND; i++) {
                        const Account *account = page->cloud_accounts[i];
                        if (print && count++ < LISTED_MAX)
                                print_account(account);
                        if (!print && is_of(account, head)) {
                                snprintf(ret_name, size, "%s", account->name);
                                found = FOUND;
                        }
                }
                free(token);
                token = must(strdup(page->next_page_token));
                devopsgenie__v1__list_cloud_accounts_response__free_unpacked(page, NULL);
        } while (*token && found == NOT_FOUND);
        if (print && count == 0)
                fputs("  (none)\n", stderr);
        if (print && count > LISTED_MAX)
                fprintf(stderr, "  and %zu more\n", count - LISTED_MAX);
        return found;
}

// --account: it must be there, and be what the file is about, or all of it would be refused.
static bool check_given(struct client *client, const char *organization, const char *given,
        const struct scan_head *head, char *ret_name, size_t size) {
        Devopsgenie__V1__GetCloudAccountRequest request = DEVOPSGENIE__V1__GET_CLOUD_ACCOUNT_REQUEST__INIT;
        ProtobufCMessage *message = NULL;
        struct client_error error = {0};

        if (strchr(given, '/'))
                snprintf(ret_name, size, "%s", given);
        else
                snprintf(ret_name, size, "%s/cloudAccounts/%s", organization, given);
        request.name = ret_name;
        if (!client_call(client, "/devopsgenie.v1.CloudAccountService/GetCloudAccount", &request.base,
                    &devopsgenie__v1__cloud_account__descriptor, CALL_TIMEOUT_MS, &message, &error)) {
                print_call_error("cannot get the cloud account", &error);
                client_error_clear(&error);
                return false;
        }
        const Account *account = (const Account *)message;
        bool same = strcasecmp(account->account_uid, head->account_uid) == 0;
        if (!same)
                print_failure("%s is %s, but the file is about %s", ret_name, account->account_uid, head->account_uid);
        protobuf_c_message_free_unpacked(message, NULL);
        return same;
}

bool import_find_account(struct client *client, const struct options *options, const char *organization,
        const struct scan_head *head, char *ret_name, size_t size) {
        if (options->values[OPTION_ACCOUNT])
                return check_given(client, organization, options->values[OPTION_ACCOUNT], head, ret_name, size);
        enum found found = walk(client, organization, head, false, ret_name, size);
        if (found == NOT_FOUND) {
                print_failure("%s has no account %s%s%s, which the file is about; it has:", organization,
                        head->provider, *head->provider ? " " : "", head->account_uid);
                walk(client, organization, head, true, ret_name, size);
                print_remedy(options, organization, head);
        }
        return found == FOUND;
}
