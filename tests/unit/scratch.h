// A folder for a test's files.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scratch {
        char folder[64];
};

static inline void scratch_make(struct scratch *scratch) {
        snprintf(scratch->folder, sizeof scratch->folder, "%s", "/tmp/genie-test-XXXXXX");
        if (!mkdtemp(scratch->folder))
                abort();
}

// The path of a file in the folder, in one of a few static buffers.
static inline const char *scratch_path(const struct scratch *scratch, const char *name) {
        static char paths[8][PATH_MAX];
        static unsigned next;
        char *path = paths[next++ % 8];
        snprintf(path, PATH_MAX, "%s/%s", scratch->folder, name);
        return path;
}

// Puts a whole file in place of another, as an operator's tools do.
static inline void scratch_write(const struct scratch *scratch, const char *name, const char *text, mode_t mode) {
        const char *fresh = scratch_path(scratch, ".fresh");
        int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, mode);
        size_t size = strlen(text);
        if (file < 0 || write(file, text, size) != (ssize_t)size || fchmod(file, mode) != 0 || close(file) != 0 ||
                rename(fresh, scratch_path(scratch, name)) != 0)
                abort();
}

static inline void scratch_drop(const struct scratch *scratch) {
        DIR *folder = opendir(scratch->folder);
        for (struct dirent *entry; folder && (entry = readdir(folder));)
                if (entry->d_name[0] != '.' || entry->d_name[1] == 'f')
                        unlink(scratch_path(scratch, entry->d_name));
        if (folder)
                closedir(folder);
        rmdir(scratch->folder);
}
