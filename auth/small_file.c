#include "auth/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_file(const int *file) {
        if (*file >= 0)
                close(*file);
}

bool auth_error(char **ret_error, const char *format, ...) {
        va_list args;
        va_start(args, format);
        char *text;
        *ret_error = vasprintf(&text, format, args) >= 0 ? text : NULL;
        va_end(args);
        return false;
}

// Reads up to `capacity` bytes; -1 with errno.
static ssize_t read_all(int file, char *buffer, size_t capacity) {
        size_t size = 0;
        while (size < capacity) {
                ssize_t got = read(file, buffer + size, capacity - size);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return -1;
                if (got == 0)
                        break;
                size += (size_t)got;
        }
        return (ssize_t)size;
}

char *small_file_read(const char *path, struct stat *ret_stat, size_t *ret_size, char **ret_error) {
        // Not to hang where the path is a pipe.
        __attribute__((cleanup(close_file))) int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat status;
        if (file < 0 || fstat(file, &status) < 0) {
                auth_error(ret_error, "%s: %m", path);
                return NULL;
        }
        if (!S_ISREG(status.st_mode) || status.st_size > SMALL_FILE_MAX) {
                auth_error(ret_error, "%s: not a regular file of at most %d bytes", path, SMALL_FILE_MAX);
                return NULL;
        }
        // A file that grows meanwhile is read as it was; what is cut off does not parse, and the next look is another.
        size_t expected = (size_t)status.st_size;
        char *content = malloc(expected + 1);
        ssize_t size = content ? read_all(file, content, expected) : -1;
        if (size < 0) {
                auth_error(ret_error, "%s: %m", path);
                small_file_free(content, expected);
                return NULL;
        }
        content[size] = 0;
        *ret_stat = status;
        *ret_size = (size_t)size;
        return content;
}

void small_file_free(char *content, size_t size) {
        if (content)
                OPENSSL_cleanse(content, size);
        free(content);
}

static bool write_all(int file, const char *content, size_t size) {
        while (size) {
                ssize_t written = write(file, content, size);
                if (written < 0 && errno == EINTR)
                        continue;
                if (written < 0)
                        return false;
                content += written;
                size -= (size_t)written;
        }
        return true;
}

// Without this a power cut can lose the new name, although the file's content is on disk.
static bool sync_folder(const char *path) {
        char *copy = strdup(path);
        __attribute__((cleanup(close_file))) int folder = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                                                               : -1;
        free(copy);
        return folder >= 0 && fsync(folder) == 0;
}

bool small_file_create(const char *path, mode_t mode, const void *content, size_t size, char **ret_error) {
        __attribute__((cleanup(close_file))) int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (file < 0)
                return auth_error(ret_error, "%s: %m", path);
        if (write_all(file, content, size) && fsync(file) == 0 && sync_folder(path))
                return true;
        auth_error(ret_error, "%s: %m", path);
        unlink(path);
        return false;
}
