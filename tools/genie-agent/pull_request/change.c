#include "tools/genie-agent/pull_request/change_private.h"
#include "tools/genie-agent/pull_request/tree_path.h"

#include <string.h>

bool change_broken(struct job_result *result) {
        const git_error *error = git_error_last();
        job_fail(result, /* permanent= */ false, "CACHE_FAILED", "making the change: %s",
                error && error->message ? error->message : "out of memory");
        return false;
}

bool change_look(
        git_tree *base, const char *path, git_filemode_t *ret_mode, git_oid *ret_blob, struct job_result *result) {
        bool failed = false;
        const char *problem = tree_path_problem(path);
        if (problem) {
                job_fail(result, /* permanent= */ true, "PATH_UNSAFE", "a path cannot be written to: %s", problem);
                return false;
        }
        problem = tree_path_obstacle(base, path, ret_mode, ret_blob, &failed);
        if (failed)
                return change_broken(result);
        if (problem)
                job_fail(result, /* permanent= */ true, "PATH_UNSAFE", "%s cannot be written to: %s", path, problem);
        return !problem;
}

bool change_put(git_repository *repository, git_index *index, const char *path, git_filemode_t mode, const void *data,
        size_t size, struct job_result *result) {
        git_index_entry entry = {.mode = mode, .path = path};
        if (git_blob_create_from_buffer(&entry.id, repository, data, size) != 0 || git_index_add(index, &entry) != 0)
                return change_broken(result);
        return true;
}

// Whether one of two paths is the other one, or a folder of it.
static bool clash(const char *a, const char *b) {
        size_t size_a = strlen(a), size_b = strlen(b), size = size_a < size_b ? size_a : size_b;
        const char *longer = size_a < size_b ? b : a;
        return memcmp(a, b, size) == 0 && (longer[size] == '\0' || longer[size] == '/');
}

static bool clashes(const Devopsgenie__V1__FileChanges *files, struct job_result *result) {
        for (size_t i = 0; i < files->n_changes; i++)
                for (size_t k = 0; k < i; k++)
                        if (clash(files->changes[i]->path, files->changes[k]->path)) {
                                job_fail(result, /* permanent= */ true, "PATH_UNSAFE",
                                        "%s stands there twice, as a file or as a folder", files->changes[k]->path);
                                return true;
                        }
        return false;
}

static git_filemode_t mode_of(const Devopsgenie__V1__FileChange *change, git_filemode_t before) {
        if (change->_executable_case == DEVOPSGENIE__V1__FILE_CHANGE___EXECUTABLE_EXECUTABLE)
                return change->executable ? GIT_FILEMODE_BLOB_EXECUTABLE : GIT_FILEMODE_BLOB;
        return before == GIT_FILEMODE_BLOB_EXECUTABLE ? before : GIT_FILEMODE_BLOB;
}

bool change_files(struct job *job, git_repository *repository, git_tree *base,
        const Devopsgenie__V1__FileChanges *files, git_index *index, struct job_result *result) {
        for (size_t i = 0; i < files->n_changes; i++) {
                const Devopsgenie__V1__FileChange *change = files->changes[i];
                git_filemode_t mode;
                git_oid blob;
                if (!change_look(base, change->path, &mode, &blob, result))
                        return false;
                if (!change->delete_) {
                        if (!change_put(repository, index, change->path, mode_of(change, mode), change->content.data,
                                    change->content.len, result))
                                return false;
                        job_logf(job, "%s %s (%zu bytes)", mode ? "replace" : "add", change->path, change->content.len);
                } else if (!mode) {
                        job_logf(job, "%s is not there and need not be deleted", change->path);
                } else {
                        if (git_index_remove(index, change->path, 0) != 0)
                                return change_broken(result);
                        job_logf(job, "delete %s", change->path);
                }
        }
        return !clashes(files, result);
}

static bool make_index(
        struct job *job, git_repository *repository, git_tree *base, git_index **index, struct job_result *result) {
        const Devopsgenie__V1__PullRequest *request = job_payload(job)->pull_request;
        if (request->change_case == DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_UNIFIED_DIFF)
                return change_diff(repository, base, request->unified_diff, index, result);
        if (git_index_new(index) != 0 || git_index_read_tree(*index, base) != 0)
                return change_broken(result);
        switch (request->change_case) {
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_FILES:
                return change_files(job, repository, base, request->files, *index, result);
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_HELM_VALUES:
                return change_helm(repository, base, request->helm_values, *index, result);
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE_UNIFIED_DIFF:
        case DEVOPSGENIE__V1__PULL_REQUEST__CHANGE__NOT_SET:
        default:
                break;
        }
        job_fail(result, /* permanent= */ true, "INVALID_PAYLOAD", "the task says no change that this agent knows");
        return false;
}

bool change_make(
        struct job *job, git_repository *repository, git_tree *base, git_oid *ret_tree, struct job_result *result) {
        git_index *index = NULL;
        bool good = make_index(job, repository, base, &index, result);
        if (good && git_index_write_tree_to(ret_tree, index, repository) != 0)
                good = change_broken(result);
        git_index_free(index);
        if (good && git_oid_equal(ret_tree, git_tree_id(base))) {
                job_fail(result, /* permanent= */ true, "NOTHING_TO_CHANGE", "the base branch has all of it already");
                return false;
        }
        return good;
}
