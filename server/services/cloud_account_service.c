// Credentials of cloud accounts: their form is checked here, and they are sealed before they go anywhere.
#include "auth/vault.h"
#include "server/rpc/call.h"
#include "server/services/matches.h"
#include "storage/uuid.h"

#include <devopsgenie/v1/cloud_account_service.pb-c.h>
#include <jansson.h>
#include <string.h>

typedef Devopsgenie__V1__SetCloudAccountCredentialsRequest Request;

static bool check_aws(struct call *call, const Devopsgenie__V1__AwsCredentials *aws) {
        bool role = *aws->role_arn != 0, key = *aws->access_key_id || *aws->secret_access_key || *aws->session_token;
        if (role == key)
                return call_refuse_field(call, "aws", "needs either role_arn or access_key_id with secret_access_key");
        if (role && !matches(aws->role_arn, "^arn:aws(-cn|-us-gov)?:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$"))
                return call_refuse_field(call, "aws.role_arn", "is not of the form arn:aws:iam::ACCOUNT:role/NAME");
        if (key && !matches(aws->access_key_id, "^(AKIA|ASIA)[A-Z0-9]{16}$"))
                return call_refuse_field(
                        call, "aws.access_key_id", "is not AKIA or ASIA and 16 capital letters or digits");
        if (key && !matches(aws->secret_access_key, "^[A-Za-z0-9/+=]{40}$"))
                return call_refuse_field(call, "aws.secret_access_key", "is not 40 characters of base64");
        bool temporary = key && !strncmp(aws->access_key_id, "ASIA", 4);
        if (temporary != (*aws->session_token != 0))
                return call_refuse_field(
                        call, "aws.session_token", "is needed with a temporary access key (ASIA…), and with no other");
        return true;
}

static bool has_text(const json_t *object, const char *key) {
        const char *text = json_string_value(json_object_get(object, key));
        return text && *text;
}

static bool check_gcp(struct call *call, const char *text) {
        json_error_t error;
        json_t *key = json_loads(text, 0, &error);
        const char *type = json_string_value(json_object_get(key, "type"));
        bool good = type && !strcmp(type, "service_account") && has_text(key, "client_email") &&
                    has_text(key, "private_key");
        json_decref(key);
        return good ||
               call_refuse_field(call, "gcp.service_account_key", "is not the JSON key file of a service account");
}

static bool check_kubernetes(struct call *call, const char *text) {
        bool good = strstr(text, "clusters") && strstr(text, "users") && strstr(text, "contexts");
        return good || call_refuse_field(
                               call, "kubernetes.kubeconfig", "is not a kubeconfig with clusters, users and contexts");
}

static bool check_github(struct call *call, const char *token) {
        return matches(token, "^(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})$") ||
               call_refuse_field(call, "github.token", "is not of the form ghp_…, gho_…, ghs_… or github_pat_…");
}

// The account that an AWS role is in; empty where the credentials do not tell theirs.
static const char *account_of(struct call *call, const Request *request) {
        if (request->credentials_case != DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_AWS)
                return "";
        const char *account = strstr(request->aws->role_arn, ":iam::");
        return account ? arena_copy(&call->arena, account + 6, 12) : "";
}

// The credentials of the request, with the name of their provider; NULL with the call refused.
static const ProtobufCMessage *checked(struct call *call, const Request *request, const char **ret_provider) {
        switch (request->credentials_case) {
        case DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_AWS:
                *ret_provider = "AWS";
                return check_aws(call, request->aws) ? &request->aws->base : NULL;
        case DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_AZURE:
                *ret_provider = "AZURE";
                return &request->azure->base;
        case DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_GCP:
                *ret_provider = "GCP";
                return check_gcp(call, request->gcp->service_account_key) ? &request->gcp->base : NULL;
        case DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_KUBERNETES:
                *ret_provider = "KUBERNETES";
                return check_kubernetes(call, request->kubernetes->kubeconfig) ? &request->kubernetes->base : NULL;
        case DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS_GITHUB:
                *ret_provider = "GITHUB";
                return check_github(call, request->github->token) ? &request->github->base : NULL;
        case DEVOPSGENIE__V1__SET_CLOUD_ACCOUNT_CREDENTIALS_REQUEST__CREDENTIALS__NOT_SET:
        default:
                call_refuse_field(call, "credentials", "is required: one of aws, azure, gcp, kubernetes, github");
                return NULL;
        }
}

static void give(struct call *call, unsigned at, const void *data, size_t size) {
        call->given[at] = (struct storage_value){data, (int)size};
}

bool cloud_account_service_set_cloud_account_credentials_before(struct call *call);
bool cloud_account_service_set_cloud_account_credentials_before(struct call *call) {
        call->secret = true;
        const char *provider = NULL;
        const ProtobufCMessage *credentials = checked(call, (const Request *)(const void *)call->request, &provider);
        if (!credentials)
                return false;
        size_t size = protobuf_c_message_get_packed_size(credentials);
        unsigned char *plain = arena_alloc(&call->arena, size + 1), *wrapped = arena_alloc(&call->arena, VAULT_WRAPPED),
                      *sealed = arena_alloc(&call->arena, size + VAULT_OVERHEAD);
        char *id = arena_alloc(&call->arena, UUID_SIZE), *key_id = arena_alloc(&call->arena, UUID_SIZE);
        if (!plain || !wrapped || !sealed || !id || !key_id)
                return call_refuse(call, CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", "the credentials are too large");
        protobuf_c_message_pack(credentials, plain);
        uuid_v7_text(id);
        uuid_v7_text(key_id);
        const struct vault *vault = server_vault(call->server);
        const struct vault_place place = {call->principal.organization_id, call->name_values[1], id};
        if (!vault_seal(vault, &place, plain, size, wrapped, sealed))
                return call_fail(call, "vault_seal");
        const char *kek = vault_current_key(vault);
        give(call, 0, provider, strlen(provider));
        give(call, 1, id, UUID_TEXT);
        give(call, 2, key_id, UUID_TEXT);
        give(call, 3, kek, strlen(kek));
        give(call, 4, wrapped, VAULT_WRAPPED);
        give(call, 5, sealed, size + VAULT_OVERHEAD);
        const char *account = account_of(call, (const Request *)(const void *)call->request);
        if (!account)
                return call_fail(call, "arena");
        give(call, 6, account, strlen(account));
        return true;
}
