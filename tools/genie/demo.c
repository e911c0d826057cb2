// genie demo: an organization for a first look, made through the public API alone.
//
// Every request has a fixed request id, so that a second run finds what the first one made and makes nothing.
#include "auth/token.h"
#include "devopsgenie/v1/agent_service.pb-c.h"
#include "devopsgenie/v1/api_key_service.pb-c.h"
#include "devopsgenie/v1/cloud_account_service.pb-c.h"
#include "devopsgenie/v1/organization_service.pb-c.h"
#include "tools/genie/commands.h"
#include "tools/genie/memory.h"
#include "tools/genie/request_id.h"
#include "tools/genie/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define DEMO_SLUG "demo"
#define DEMO_NAME "organizations/" DEMO_SLUG
enum { DEMO_TOKEN_SECONDS = 300 };

static char *sign(const struct options *options, const char *subject, const char *email, const char *service_role) {
        AUTO_TEXT error = NULL;
        const struct token_claims claims = {
                .issuer = options->values[OPTION_ISSUER],
                .audience = options->values[OPTION_AUDIENCE],
                .subject = subject,
                .email = email,
                .service_role = service_role,
                .issued = time(NULL),
                .expires = time(NULL) + DEMO_TOKEN_SECONDS,
        };
        char *token = token_sign(options->values[OPTION_KEY], &claims, &error);

        if (!token)
                print_failure("cannot sign a token: %s", error ? error : "out of memory");
        return token;
}

// One call with one credential. NULL: it failed, which was printed; *ret_exists where that is because the thing is
// there already, which is no failure and not printed.
static ProtobufCMessage *call_as(const struct options *options, const char *token, const char *method,
        const ProtobufCMessage *request, const ProtobufCMessageDescriptor *type, bool *ret_exists) {
        ProtobufCMessage *response = NULL;
        struct client_error error = {0};
        struct client *client = session_open_as(options, token);

        *ret_exists = false;
        if (!client)
                return NULL;
        if (!client_call(client, method, request, type, CALL_TIMEOUT_MS, &response, &error)) {
                *ret_exists = error.code == CLIENT_ALREADY_EXISTS;
                if (!*ret_exists)
                        print_call_error(strrchr(method, '/') + 1, &error);
        }
        client_error_clear(&error);
        client_free(client);
        return response;
}

static bool make_organization(const struct options *options, const char *admin, const char *email) {
        Devopsgenie__V1__Organization organization = DEVOPSGENIE__V1__ORGANIZATION__INIT;
        Devopsgenie__V1__CreateOrganizationRequest request = DEVOPSGENIE__V1__CREATE_ORGANIZATION_REQUEST__INIT;
        bool exists;

        organization.display_name = unconst("Demo");
        request.organization_id = unconst(DEMO_SLUG);
        request.organization = &organization;
        request.owner_email = unconst(email);
        request.request_id = unconst("67656e69-6500-8000-8000-000000000001");
        ProtobufCMessage *made = call_as(options, admin, "/devopsgenie.v1.OrganizationService/CreateOrganization",
                &request.base, &devopsgenie__v1__organization__descriptor, &exists);
        protobuf_c_message_free_unpacked(made, NULL);
        return made || exists;
}

static bool make_account(const struct options *options, const char *owner) {
        Devopsgenie__V1__CloudAccount account = DEVOPSGENIE__V1__CLOUD_ACCOUNT__INIT;
        Devopsgenie__V1__CreateCloudAccountRequest request = DEVOPSGENIE__V1__CREATE_CLOUD_ACCOUNT_REQUEST__INIT;
        bool exists;

        account.provider = DEVOPSGENIE__V1__CLOUD_ACCOUNT__PROVIDER__AWS;
        account.account_uid = unconst("123456789012");
        account.display_name = unconst("Demo AWS account");
        request.parent = unconst(DEMO_NAME);
        request.cloud_account = &account;
        request.request_id = unconst("67656e69-6500-8000-8000-000000000002");
        ProtobufCMessage *made = call_as(options, owner, "/devopsgenie.v1.CloudAccountService/CreateCloudAccount",
                &request.base, &devopsgenie__v1__cloud_account__descriptor, &exists);
        protobuf_c_message_free_unpacked(made, NULL);
        return made || exists;
}

// The fixed request id, or a new one where a new secret is wanted: a repeat does not show the old one again.
static bool choose_request_id(const struct options *options, char request_id[REQUEST_ID_SIZE]) {
        uint8_t random[16];

        if (!options->values[OPTION_NEW_KEY])
                return true;
        if (getrandom(random, sizeof random, 0) != sizeof random)
                return false;
        request_id_format(random, request_id);
        return true;
}

// Makes the key and prints it.
static bool make_key(const struct options *options, const char *owner) {
        Devopsgenie__V1__ApiKey key = DEVOPSGENIE__V1__API_KEY__INIT;
        Devopsgenie__V1__CreateApiKeyRequest request = DEVOPSGENIE__V1__CREATE_API_KEY_REQUEST__INIT;
        char request_id[REQUEST_ID_SIZE] = "67656e69-6500-8000-8000-000000000003";
        bool exists;

        if (!choose_request_id(options, request_id))
                return false;
        key.display_name = unconst("Demo owner");
        key.role = DEVOPSGENIE__OPTIONS__ROLE__OWNER;
        request.parent = unconst(DEMO_NAME);
        request.api_key = &key;
        request.request_id = request_id;
        Devopsgenie__V1__ApiKey *made = (Devopsgenie__V1__ApiKey *)call_as(options, owner,
                "/devopsgenie.v1.ApiKeyService/CreateApiKey", &request.base, &devopsgenie__v1__api_key__descriptor,
                &exists);
        if (!made)
                return false;
        printf("GENIE_ORGANIZATION=" DEMO_SLUG "\n");
        if (*made->secret)
                printf("GENIE_API_KEY=%s\n", made->secret);
        else
                print_failure("the API key was made and shown before; --new-key makes another");
        explicit_bzero(made->secret, strlen(made->secret));
        devopsgenie__v1__api_key__free_unpacked(made, NULL);
        return fflush(stdout) == 0;
}

// Makes an agent and prints its key.
static bool make_agent(const struct options *options, const char *owner) {
        Devopsgenie__V1__Agent agent = DEVOPSGENIE__V1__AGENT__INIT;
        Devopsgenie__V1__CreateAgentRequest request = DEVOPSGENIE__V1__CREATE_AGENT_REQUEST__INIT;
        char request_id[REQUEST_ID_SIZE] = "67656e69-6500-8000-8000-000000000004";
        bool exists;

        if (!choose_request_id(options, request_id))
                return false;
        agent.display_name = unconst("Demo agent");
        request.parent = unconst(DEMO_NAME);
        request.agent = &agent;
        request.request_id = request_id;
        Devopsgenie__V1__Agent *made = (Devopsgenie__V1__Agent *)call_as(options, owner,
                "/devopsgenie.v1.AgentService/CreateAgent", &request.base, &devopsgenie__v1__agent__descriptor,
                &exists);
        if (!made)
                return false;
        if (*made->secret)
                printf("GENIE_AGENT_KEY=%s\n", made->secret);
        else
                print_failure("the agent's key was made and shown before; --new-key makes another agent");
        explicit_bzero(made->secret, strlen(made->secret));
        devopsgenie__v1__agent__free_unpacked(made, NULL);
        return fflush(stdout) == 0;
}

int command_demo(const struct options *options) {
        const char *email = options->values[OPTION_EMAIL] ? options->values[OPTION_EMAIL] : "owner@example.com";

        if (!options->values[OPTION_KEY])
                return options_refuse(options, "--key FILE is missing");
        AUTO_TEXT admin = sign(options, "demo-platform-admin", NULL, "platform-admin");
        AUTO_TEXT owner = sign(options, "demo-owner", email, NULL);
        if (!admin || !owner)
                return EXIT_FAILED;
        bool made = make_organization(options, admin, email) && make_account(options, owner) &&
                    make_key(options, owner) && make_agent(options, owner);
        return made ? EXIT_OK : EXIT_FAILED;
}
