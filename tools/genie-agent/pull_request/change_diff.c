#include "tools/genie-agent/pull_request/change_private.h"
#include "tools/genie-agent/pull_request/text.h"

#include <stdio.h>
#include <string.h>

static bool conflict(const char *path, const char *why, struct job_result *result) {
        job_fail(result, /* permanent= */ true, "MERGE_CONFLICT", "%s: %s", path, why);
        return false;
}

static bool mode_good(uint32_t mode) {
        return mode == 0 || mode == GIT_FILEMODE_BLOB || mode == GIT_FILEMODE_BLOB_EXECUTABLE;
}

// Each file that a diff touches is one that a task may write to, and is there or not as the diff says.
static bool delta_good(git_tree *base, const git_diff_delta *delta, struct job_result *result) {
        git_filemode_t old_mode, new_mode;
        git_oid blob;
        const char *old_path = delta->old_file.path, *new_path = delta->new_file.path;
        if (!mode_good(delta->old_file.mode) || !mode_good(delta->new_file.mode)) {
                job_fail(result, /* permanent= */ true, "PATH_UNSAFE",
                        "the diff makes or changes a link or a submodule");
                return false;
        }
        if (!change_look(base, old_path, &old_mode, &blob, result) ||
                !change_look(base, new_path, &new_mode, &blob, result))
                return false;
        if (delta->status != GIT_DELTA_ADDED && !old_mode)
                return conflict(old_path, "it is not there", result);
        bool makes = delta->status == GIT_DELTA_ADDED || strcmp(old_path, new_path) != 0;
        if (makes && new_mode)
                return conflict(new_path, "it is there already", result);
        return true;
}

// Remembers the file that is being patched: it is the one that does not fit, where one does not.
static int delta_begins(const git_diff_delta *delta, void *context) {
        const char **current = context;
        *current = delta->new_file.path;
        return 0;
}

// libgit2 takes the mode of a file for 100644 where the diff does not say it: it stays.
static bool mode_keep(git_tree *base, const git_diff_delta *delta, git_index *index, struct job_result *result) {
        git_filemode_t mode;
        git_oid blob;
        const git_index_entry *there = git_index_get_bypath(index, delta->new_file.path, 0);
        if (!there || delta->status == GIT_DELTA_ADDED || delta->old_file.mode != delta->new_file.mode)
                return true;
        if (!change_look(base, delta->old_file.path, &mode, &blob, result))
                return false;
        git_index_entry entry = *there;
        entry.mode = mode;
        return git_index_add(index, &entry) == 0 || change_broken(result);
}

static bool modes_keep(git_tree *base, git_diff *diff, git_index *index, struct job_result *result) {
        for (size_t i = 0; i < git_diff_num_deltas(diff); i++)
                if (!mode_keep(base, git_diff_get_delta(diff, i), index, result))
                        return false;
        return true;
}

static bool apply(
        git_repository *repository, git_tree *base, git_diff *diff, git_index **ret_index, struct job_result *result) {
        const char *current = "the diff";
        git_apply_options options = {
                .version = GIT_APPLY_OPTIONS_VERSION, .delta_cb = delta_begins, .payload = &current};
        for (size_t i = 0; i < git_diff_num_deltas(diff); i++)
                if (!delta_good(base, git_diff_get_delta(diff, i), result))
                        return false;
        if (git_apply_to_tree(ret_index, repository, base, diff, &options) == 0)
                return modes_keep(base, diff, *ret_index, result);
        const git_error *error = git_error_last();
        switch (error ? error->klass : GIT_ERROR_NOMEMORY) {
        case GIT_ERROR_PATCH:
                return conflict(current, error->message, result);
        default:
                return change_broken(result);
        }
}

bool change_diff(git_repository *repository, git_tree *base, const char *text, git_index **ret_index,
        struct job_result *result) {
        git_diff *diff = NULL;
        int status = git_diff_from_buffer(&diff, text, strlen(text));
        if (status != 0 || git_diff_num_deltas(diff) == 0) {
                const git_error *error = status != 0 ? git_error_last() : NULL;
                char shown[TEXT_SHORT] = "there is no change in it";
                if (error && error->message)
                        text_show(error->message, strlen(error->message), NULL, shown, sizeof shown);
                job_fail(result, /* permanent= */ true, "INVALID_DIFF", "the diff cannot be read: %s", shown);
                git_diff_free(diff);
                return false;
        }
        bool good = apply(repository, base, diff, ret_index, result);
        git_diff_free(diff);
        return good;
}
