// pull-request: runs pull_request_run once. JSON on standard input says settings, job and payload (see agent.py beside
// it); JSON on standard output says the result.
#include "tests/forge/job_stub.h"
#include "tools/genie-agent/pull_request/pull_request.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text(const json_t *json, const char *name) { return json_string_value(json_object_get(json, name)); }

static unsigned number(const json_t *json, const char *name) {
        return (unsigned)json_integer_value(json_object_get(json, name));
}

// protobuf-c's messages have `char *` for what nobody writes to.
static char *field(const json_t *json, const char *name) {
        char *copy = strdup(text(json, name) ? text(json, name) : "");
        if (!copy)
                abort();
        return copy;
}

static void *array(size_t count, size_t size) {
        void *made = calloc(count + 1, size);
        if (!made)
                abort();
        return made;
}

static char **texts(const json_t *list, size_t *ret_count) {
        char **made = array(json_array_size(list), sizeof *made);
        *ret_count = json_array_size(list);
        for (size_t i = 0; i < *ret_count; i++)
                made[i] = strdup(json_string_value(json_array_get(list, i)));
        return made;
}

static Devopsgenie__V1__FileChanges *files(const json_t *list) {
        Devopsgenie__V1__FileChanges *made = array(1, sizeof *made);
        devopsgenie__v1__file_changes__init(made);
        made->n_changes = json_array_size(list);
        made->changes = array(made->n_changes, sizeof *made->changes);
        for (size_t i = 0; i < made->n_changes; i++) {
                const json_t *json = json_array_get(list, i), *executable = json_object_get(json, "executable");
                Devopsgenie__V1__FileChange *change = made->changes[i] = array(1, sizeof *change);
                devopsgenie__v1__file_change__init(change);
                change->path = field(json, "path");
                change->content.data = (uint8_t *)field(json, "content");
                change->content.len = strlen((const char *)change->content.data);
                change->delete_ = json_is_true(json_object_get(json, "delete"));
                if (executable) {
                        change->_executable_case = DEVOPSGENIE__V1__FILE_CHANGE___EXECUTABLE_EXECUTABLE;
                        change->executable = json_is_true(executable);
                }
        }
        return made;
}

static Devopsgenie__V1__HelmValueChanges *helm_values(const json_t *json) {
        const json_t *list = json_object_get(json, "changes");
        Devopsgenie__V1__HelmValueChanges *made = array(1, sizeof *made);
        devopsgenie__v1__helm_value_changes__init(made);
        made->path = field(json, "path");
        made->n_changes = json_array_size(list);
        made->changes = array(made->n_changes, sizeof *made->changes);
        for (size_t i = 0; i < made->n_changes; i++) {
                made->changes[i] = array(1, sizeof *made->changes[i]);
                devopsgenie__v1__helm_value_change__init(made->changes[i]);
                made->changes[i]->path = field(json_array_get(list, i), "path");
                made->changes[i]->value = field(json_array_get(list, i), "value");
        }
        return made;
}

static Devopsgenie__V1__TaskPayload *payload_read(const json_t *json) {
        Devopsgenie__V1__TaskPayload *payload = array(1, sizeof *payload);
        Devopsgenie__V1__PullRequest *request = array(1, sizeof *request);
        devopsgenie__v1__task_payload__init(payload);
        devopsgenie__v1__pull_request__init(request);
        payload->kind_case = DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_PULL_REQUEST;
        payload->pull_request = request;
        request->repository_url = field(json, "repository_url");
        request->base_branch = field(json, "base_branch");
        request->branch_prefix = field(json, "branch_prefix");
        request->title = field(json, "title");
        request->body = field(json, "body");
        request->draft = json_is_true(json_object_get(json, "draft"));
        request->labels = texts(json_object_get(json, "labels"), &request->n_labels);
        request->reviewers = texts(json_object_get(json, "reviewers"), &request->n_reviewers);
        if (json_object_get(json, "files")) {
                request->change_case = DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_FILES;
                request->files = files(json_object_get(json, "files"));
        } else if (json_object_get(json, "unified_diff")) {
                request->change_case = DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_UNIFIED_DIFF;
                request->unified_diff = field(json, "unified_diff");
        } else if (json_object_get(json, "helm_values")) {
                request->change_case = DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_HELM_VALUES;
                request->helm_values = helm_values(json_object_get(json, "helm_values"));
        }
        return payload;
}

static enum forge_kind forge_read(const char *name) {
        return strcmp(name, "GITHUB") == 0 ? FORGE_GITHUB : strcmp(name, "GITLAB") == 0 ? FORGE_GITLAB : FORGE_GITEA;
}

static void result_print(const struct job_result *result) {
        static const char *const names[] = {[JOB_SUCCEEDED] = "SUCCEEDED",
                [JOB_FAILED] = "FAILED",
                [JOB_CANCELLED] = "CANCELLED",
                [JOB_UNFINISHED] = "UNFINISHED"};
        json_t *outputs = json_object();
        for (unsigned i = 0; i < result->output_count; i++)
                json_object_set_new(outputs, result->outputs[i].name, json_string(result->outputs[i].value));
        json_t *json = json_pack("{ss ss* ss* sb si so}", "status", names[result->status], "reason", result->reason,
                "message", result->message, "permanent", (int)result->permanent, "retry_after_ms",
                (int)result->retry_after_ms, "outputs", outputs);
        json_dumpf(json, stdout, JSON_COMPACT);
        json_decref(json);
}

int main(void) {
        signal(SIGPIPE, SIG_IGN);
        static const json_t *said; // what lives as long as the process is static: no leak
        static struct git_host *hosts;
        static Devopsgenie__V1__TaskPayload *payload;
        said = json_loadf(stdin, 0, NULL);
        const json_t *settings = json_object_get(said, "settings"), *list = json_object_get(settings, "hosts");
        size_t count = json_array_size(list);
        hosts = array(count, sizeof *hosts);
        for (size_t i = 0; i < count; i++) {
                const json_t *host = json_array_get(list, i);
                hosts[i] = (struct git_host){
                        .name = text(host, "name"),
                        .forge = forge_read(text(host, "forge")),
                        .api_url = text(host, "api_url"),
                        .token_file = text(host, "token_file"),
                        .token_variable = text(host, "token_variable"),
                        .user = text(host, "user"),
                        .ca_file = text(host, "ca_file"),
                        .allow_http = json_is_true(json_object_get(host, "allow_http")),
                };
        }
        struct pull_request_settings agent = {
                .hosts = hosts,
                .host_count = count,
                .cache_folder = text(settings, "cache_folder"),
                .cache_limit_bytes = (uint64_t)json_integer_value(json_object_get(settings, "cache_limit_bytes")),
                .author_name = text(settings, "author_name"),
                .author_email = text(settings, "author_email"),
                .signing_key_file = text(settings, "signing_key_file"),
                .connect_limit_ms = number(settings, "connect_limit_ms"),
                .stall_limit_ms = number(settings, "stall_limit_ms"),
                .request_limit_ms = number(settings, "request_limit_ms"),
                .time_limit_ms = number(settings, "time_limit_ms"),
        };
        payload = payload_read(json_object_get(said, "payload"));
        struct job *job = job_stub_make(json_object_get(said, "job"), payload);
        struct job_result result = {.reason = NULL};
        if (!job)
                return 2;
        pull_request_run(job, &agent, &result);
        result_print(&result);
        job_result_drop(&result);
        return 0;
}
