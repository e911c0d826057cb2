// The change of a task, made in the object database: a tree from the base's tree.
#pragma once

#include "tools/genie-agent/job.h"

#include <git2.h>

// *ret_tree is the new tree, which is not the old one: a task that changes nothing fails with NOTHING_TO_CHANGE.
bool change_make(struct job *job, git_repository *repository, git_tree *base, git_oid *ret_tree,
        struct job_result *result) __attribute__((warn_unused_result));
