// Paths in a repository's tree that a task may write to.
#pragma once

#include <git2.h>
#include <stdbool.h>

// NULL, or why the path is none: absolute, an empty part, `.`, `..`, a part that some file system takes for `.git`, a
// control character or a backslash, not UTF-8, more than 1,000 bytes. No I/O.
const char *tree_path_problem(const char *path);

// NULL, or why the path cannot be written in this tree: one of its folders is a file, a symbolic link or a submodule
// there, or it is itself a folder, a symbolic link or a submodule. *ret_mode is that of the file that is there, 0
// where there is none; *ret_blob its content's id. Sets *ret_failed where the tree cannot be read.
const char *tree_path_obstacle(
        git_tree *tree, const char *path, git_filemode_t *ret_mode, git_oid *ret_blob, bool *ret_failed);
