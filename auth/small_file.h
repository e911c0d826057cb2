// Key files: read whole into memory that is wiped, and made whole or not at all.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

enum { SMALL_FILE_MAX = 1 << 20 };

// *ret_error becomes a malloc'ed text; returns false, so that a function can end with it.
bool auth_error(char **ret_error, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The content with a NUL behind it, from malloc; *ret_stat is of the very file that was read. NULL with *ret_error,
// which names the file: it cannot be read, is no regular file or holds more than SMALL_FILE_MAX bytes.
char *small_file_read(const char *path, struct stat *ret_stat, size_t *ret_size, char **ret_error);

// Wipes and frees what small_file_read gave; takes NULL.
void small_file_free(char *content, size_t size);

// Makes a file that did not exist, with all of its content on disk; on failure none is left behind.
bool small_file_create(const char *path, mode_t mode, const void *content, size_t size, char **ret_error);
