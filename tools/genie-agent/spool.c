#include "tools/genie-agent/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "log-"

// The platform chooses a task's name: it is no part of a path.
void spool_name(const char *task, int attempt, int stream, char ret_name[static SPOOL_NAME_SIZE]) {
        unsigned char hash[EVP_MAX_MD_SIZE] = {0};
        char hex[33];
        EVP_Digest(task, strlen(task), hash, NULL, EVP_sha256(), NULL);
        for (size_t i = 0; i < 16; i++)
                snprintf(hex + 2 * i, 3, "%02x", hash[i]);
        snprintf(ret_name, SPOOL_NAME_SIZE, PREFIX "%s-%d-%d", hex, attempt, stream);
}

int spool_open(int folder, const char *name, int64_t *ret_end) {
        struct stat status;
        int file = openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (file >= 0 && fstat(file, &status) < 0) {
                close(file);
                return -1;
        }
        if (file >= 0)
                *ret_end = status.st_size;
        return file;
}

bool spool_write(int file, int64_t offset, const void *data, size_t size) {
        for (size_t done = 0; done < size;) {
                ssize_t written = pwrite(file, (const char *)data + done, size - done, offset + (int64_t)done);
                if (written < 0 && errno == EINTR)
                        continue;
                if (written <= 0) {
                        int error = written < 0 ? errno : ENOSPC;
                        if (ftruncate(file, offset) < 0) // what is half there would be taken for the log's end
                                error = EIO;
                        errno = error;
                        return false;
                }
                done += (size_t)written;
        }
        return true;
}

bool spool_read(int file, int64_t offset, void *data, size_t size) {
        for (size_t done = 0; done < size;) {
                ssize_t got = pread(file, (char *)data + done, size - done, offset + (int64_t)done);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        return false;
                done += (size_t)got;
        }
        return true;
}

void spool_release(int file, int64_t from, int64_t to) {
        if (to > from && fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, to - from) < 0)
                return; // a file system that cannot: the space comes back when the attempt is forgotten
}

void spool_sweep(int folder, bool (*is_wanted)(void *context, const char *name), void *context) {
        int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *listing = copy >= 0 ? fdopendir(copy) : NULL;
        if (!listing) {
                if (copy >= 0)
                        close(copy);
                return;
        }
        for (const struct dirent *entry; (entry = readdir(listing));)
                if (!strncmp(entry->d_name, PREFIX, strlen(PREFIX)) && !is_wanted(context, entry->d_name))
                        unlinkat(folder, entry->d_name, 0);
        closedir(listing);
}
