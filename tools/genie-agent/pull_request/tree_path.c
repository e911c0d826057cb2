#include "tools/genie-agent/pull_request/tree_path.h"

#include "tools/genie-agent/pull_request/text.h"

#include <ctype.h>
#include <string.h>

enum { PATH_MAX_BYTES = 1000 };

// What HFS+ and NTFS take for `.git`: other case, dots and spaces at the end, an alternate stream, a short name, and
// characters that HFS+ leaves out. The last are few; every name that becomes `.git` without all bytes beyond ASCII
// is refused.
static bool is_git_folder(const char *part, size_t size) {
        char ascii[8];
        size_t length = 0;
        for (size_t i = 0; i < size && part[i] != ':'; i++)
                if ((unsigned char)part[i] < 0x80) {
                        if (length == sizeof ascii && part[i] != ' ' && part[i] != '.')
                                return false;
                        if (length < sizeof ascii)
                                ascii[length++] = (char)tolower((unsigned char)part[i]);
                }
        while (length > 0 && (ascii[length - 1] == ' ' || ascii[length - 1] == '.'))
                length--;
        return (length == 4 && memcmp(ascii, ".git", 4) == 0) || (length == 5 && memcmp(ascii, "git~1", 5) == 0);
}

static const char *part_problem(const char *part, size_t size) {
        if (size == 0)
                return "it has an empty part or begins or ends with a slash";
        if (size <= 2 && memcmp(part, "..", size) == 0)
                return "it has a part `.` or `..`";
        if (is_git_folder(part, size))
                return "it has a part `.git`";
        return NULL;
}

const char *tree_path_problem(const char *path) {
        size_t size = strlen(path);
        if (size == 0 || size > PATH_MAX_BYTES)
                return "it is empty or too long";
        if (!text_is_utf8(path, size))
                return "it is not UTF-8";
        for (size_t i = 0; i < size; i++)
                if ((unsigned char)path[i] < ' ' || path[i] == 0x7f || path[i] == '\\')
                        return "it has a control character or a backslash in it";
        for (const char *part = path;; part++) {
                size_t length = strcspn(part, "/");
                const char *problem = part_problem(part, length);
                if (problem)
                        return problem;
                part += length;
                if (!*part)
                        return NULL;
        }
}

static const char *folder_problem(git_filemode_t mode) {
        switch (mode) {
        case GIT_FILEMODE_TREE:
                return NULL;
        case GIT_FILEMODE_LINK:
                return "a folder of it is a symbolic link";
        case GIT_FILEMODE_COMMIT:
                return "a folder of it is a submodule";
        case GIT_FILEMODE_UNREADABLE:
        case GIT_FILEMODE_BLOB:
        case GIT_FILEMODE_BLOB_EXECUTABLE:
                break;
        }
        return "a folder of it is a file";
}

static const char *file_problem(git_filemode_t mode) {
        switch (mode) {
        case GIT_FILEMODE_TREE:
                return "it is a folder";
        case GIT_FILEMODE_LINK:
                return "it is a symbolic link";
        case GIT_FILEMODE_COMMIT:
                return "it is a submodule";
        case GIT_FILEMODE_UNREADABLE:
        case GIT_FILEMODE_BLOB:
        case GIT_FILEMODE_BLOB_EXECUTABLE:
                break;
        }
        return NULL;
}

const char *tree_path_obstacle(
        git_tree *tree, const char *path, git_filemode_t *ret_mode, git_oid *ret_blob, bool *ret_failed) {
        char folder[PATH_MAX_BYTES + 1] = "";
        *ret_mode = GIT_FILEMODE_UNREADABLE;
        for (const char *end = path;; end++) {
                end += strcspn(end, "/");
                memcpy(folder, path, (size_t)(end - path));
                folder[end - path] = '\0';
                git_tree_entry *entry = NULL;
                int status = git_tree_entry_bypath(&entry, tree, folder);
                if (status != 0) {
                        *ret_failed = status != GIT_ENOTFOUND;
                        return NULL;
                }
                git_filemode_t mode = git_tree_entry_filemode(entry);
                git_oid_cpy(ret_blob, git_tree_entry_id(entry));
                git_tree_entry_free(entry);
                const char *problem = *end ? folder_problem(mode) : file_problem(mode);
                if (problem || !*end) {
                        *ret_mode = problem ? GIT_FILEMODE_UNREADABLE : mode;
                        return problem;
                }
        }
}
