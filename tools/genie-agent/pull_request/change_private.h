#pragma once

#include "tools/genie-agent/pull_request/change.h"

// The three kinds; each leaves in *ret_index all files as they are to be.
bool change_files(struct job *job, git_repository *repository, git_tree *base,
        const Devopsgenie__V1__FileChanges *files, git_index *index, struct job_result *result);
bool change_diff(
        git_repository *repository, git_tree *base, const char *diff, git_index **ret_index, struct job_result *result);
bool change_helm(git_repository *repository, git_tree *base, const Devopsgenie__V1__HelmValueChanges *values,
        git_index *index, struct job_result *result);

// Whether a task may write to a path, and what is there (mode 0: nothing). Fails with PATH_UNSAFE.
bool change_look(
        git_tree *base, const char *path, git_filemode_t *ret_mode, git_oid *ret_blob, struct job_result *result);

bool change_put(git_repository *repository, git_index *index, const char *path, git_filemode_t mode, const void *data,
        size_t size, struct job_result *result);

// Fails for what libgit2 could not do with the cache; returns false.
bool change_broken(struct job_result *result);
