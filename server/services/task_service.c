// What the options of task_service.proto cannot say of a new task, and who is told of a change.
#include "server/channel/channel.h"
#include "server/rpc/call.h"
#include "server/rpc/name.h"
#include "server/services/matches.h"

#include <devopsgenie/v1/task_service.pb-c.h>
#include <string.h>
#include <strings.h>

enum { PAYLOAD_MAX = 1 << 20 };

typedef Devopsgenie__V1__Task Task;
typedef Devopsgenie__V1__TaskPayload Payload;
typedef Devopsgenie__V1__PullRequest PullRequest;
typedef Devopsgenie__V1__FileChanges FileChanges;

#define PULL_REQUEST_PATH "task.payload.pull_request"

static bool is_git_folder(const char *part, size_t size) { return size == 4 && !strncasecmp(part, ".git", size); }

// A path in a repository, from its root: no part of it leads out of it, or into Git's own folder.
static bool is_safe_path(const char *path) {
        for (const char *part = path;;) {
                size_t size = strcspn(part, "/");
                bool is_dots = (size == 1 || size == 2) && !strncmp(part, "..", size);
                if (!size || is_dots || is_git_folder(part, size))
                        return false;
                if (!part[size])
                        return true;
                part += size + 1;
        }
}

static bool check_path(struct call *call, const char *field, const char *path) {
        return is_safe_path(path) ||
               call_refuse_field(call, field, "leads out of the repository or into .git, or has an empty part");
}

static bool check_files(struct call *call, const FileChanges *files) {
        for (size_t i = 0; i < files->n_changes; i++) {
                const char *field = arena_printf(&call->arena, PULL_REQUEST_PATH ".files.changes[%zu].path", i);
                if (!field)
                        return call_fail(call, "arena");
                if (!check_path(call, field, files->changes[i]->path))
                        return false;
        }
        return true;
}

static bool check_change(struct call *call, const PullRequest *pull_request) {
        switch (pull_request->change_case) {
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_FILES:
                return check_files(call, pull_request->files);
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_UNIFIED_DIFF:
                return *pull_request->unified_diff ||
                       call_refuse_field(call, PULL_REQUEST_PATH ".unified_diff", "is empty");
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_HELM_VALUES:
                return check_path(call, PULL_REQUEST_PATH ".helm_values.path", pull_request->helm_values->path);
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE__NOT_SET:
        default:
                return call_refuse_field(
                        call, PULL_REQUEST_PATH, "needs a change: one of files, unified_diff, helm_values");
        }
}

static bool check_pull_request(struct call *call, const PullRequest *pull_request) {
        static const char form[] = "^https?://([A-Za-z0-9.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?"
                                   "(/[^]/?#[:space:][:cntrl:]\\[]+)+/?$";
        if (!matches(pull_request->repository_url, form))
                return call_refuse_field(call, PULL_REQUEST_PATH ".repository_url",
                        "is not of the form https://HOST/PATH, without user, password, query and fragment");
        return check_change(call, pull_request);
}

// The payload's kind as text; NULL with the call refused.
static const char *checked_kind(struct call *call, const Payload *payload) {
        size_t size = protobuf_c_message_get_packed_size(&payload->base);
        if (size > PAYLOAD_MAX) {
                call_refuse_field(call, "task.payload", "has %zu bytes; at most %d are allowed", size, PAYLOAD_MAX);
                return NULL;
        }
        switch (payload->kind_case) {
        case DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_PULL_REQUEST:
                return check_pull_request(call, payload->pull_request) ? "1" : NULL;
        case DEVOPSGENIE__V1__TASK_PAYLOAD__KIND_COMMAND:
                return "2";
        case DEVOPSGENIE__V1__TASK_PAYLOAD__KIND__NOT_SET:
        default:
                call_refuse_field(call, "task.payload", "needs a kind: one of pull_request, command");
                return NULL;
        }
}

static bool check_labels(struct call *call, const Task *task) {
        for (size_t i = 0; i < task->n_labels; i++)
                if (!*task->labels[i]->key)
                        return call_refuse_field(call, "task.labels", "has an empty key");
        return true;
}

// The statement finds out whether there is such an agent.
static bool check_target(struct call *call, const char *agent) {
        const char *prefix = arena_printf(&call->arena, "organizations/%s/agents/", call->organization);
        if (!prefix)
                return call_fail(call, "arena");
        size_t size = strlen(prefix);
        return !*agent || (!strncmp(agent, prefix, size) && is_uuid(agent + size, strlen(agent + size))) ||
               call_refuse_field(call, "task.target_agent", "is not of the form %s{agent}", prefix);
}

bool task_service_create_task_before(struct call *call);
bool task_service_create_task_before(struct call *call) {
        const Task *task = ((const Devopsgenie__V1__CreateTaskRequest *)(const void *)call->request)->task;
        const char *kind = checked_kind(call, task->payload);
        if (!kind || !check_labels(call, task) || !check_target(call, task->target_agent))
                return false;
        call->given[0] = (struct storage_value){kind, 1};
        return true;
}

static bool tell(const struct call *call, unsigned changes) {
        channel_changed(server_channel(call->server), changes | CHANGE_EVENTS, call->principal.organization_id, NULL);
        return true;
}

bool task_service_create_task_after(struct call *call, ProtobufCMessage *response);
bool task_service_create_task_after(struct call *call, ProtobufCMessage *response) {
        (void)response;
        return tell(call, CHANGE_TASKS);
}

bool task_service_cancel_task_after(struct call *call, ProtobufCMessage *response);
bool task_service_cancel_task_after(struct call *call, ProtobufCMessage *response) {
        (void)response;
        return tell(call, CHANGE_CANCELS);
}

bool task_service_retry_task_after(struct call *call, ProtobufCMessage *response);
bool task_service_retry_task_after(struct call *call, ProtobufCMessage *response) {
        (void)response;
        return tell(call, CHANGE_TASKS);
}
