#include "tools/genie-agent/pull_request/change_private.h"
#include "tools/genie-agent/pull_request/helm_value.h"

#include <stdlib.h>
#include <string.h>

static bool fail(enum helm_status status, const char *file, const char *path, struct job_result *result) {
        static const struct {
                const char *reason, *text;
        } reasons[] = {
                [HELM_INVALID_PATH] = {"INVALID_PATH", "this is no path of a value"},
                [HELM_INVALID_VALUE] = {"INVALID_VALUE", "the new value is no YAML scalar on one line; quote it"},
                [HELM_INVALID_YAML] = {"INVALID_YAML", "the file is no YAML, or is too large"},
                [HELM_MISSING] = {"HELM_VALUE_MISSING", "there is no such value"},
                [HELM_UNEDITABLE] = {"HELM_VALUE_UNEDITABLE", "it cannot be replaced by this value alone"},
        };
        if (status == HELM_NO_MEMORY)
                job_fail(result, /* permanent= */ false, "OUT_OF_MEMORY", "out of memory");
        else
                job_fail(result, /* permanent= */ true, reasons[status].reason, "%s, %s: %s", file, path,
                        reasons[status].text);
        return false;
}

// Makes the changes one after the other. *ret_content is malloc'ed.
static bool edit(const void *content, size_t size, const Devopsgenie__V1__HelmValueChanges *values, char **ret_content,
        size_t *ret_size, struct job_result *result) {
        char *text = NULL;
        for (size_t i = 0; i < values->n_changes; i++) {
                const Devopsgenie__V1__HelmValueChange *change = values->changes[i];
                char *edited;
                enum helm_status status = helm_value_set(
                        text ? text : content, size, change->path, change->value, &edited, &size);
                free(text);
                if (status != HELM_OK)
                        return fail(status, values->path, change->path, result);
                text = edited;
        }
        *ret_content = text;
        *ret_size = size;
        return true;
}

bool change_helm(git_repository *repository, git_tree *base, const Devopsgenie__V1__HelmValueChanges *values,
        git_index *index, struct job_result *result) {
        git_filemode_t mode;
        git_oid id;
        git_blob *blob = NULL;
        char *content;
        size_t size;
        if (!change_look(base, values->path, &mode, &id, result))
                return false;
        if (!mode || values->n_changes == 0) {
                job_fail(result, /* permanent= */ true, mode ? "INVALID_PAYLOAD" : "FILE_MISSING", "%s: %s",
                        values->path, mode ? "no value is to be changed" : "there is no such file");
                return false;
        }
        if (git_blob_lookup(&blob, repository, &id) != 0)
                return change_broken(result);
        bool good = edit(git_blob_rawcontent(blob), (size_t)git_blob_rawsize(blob), values, &content, &size, result);
        git_blob_free(blob);
        if (!good)
                return false;
        good = change_put(repository, index, values->path, mode, content, size, result);
        free(content);
        return good;
}
