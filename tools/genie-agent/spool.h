// The bytes of an attempt's log that are not durable at the platform, in a file in the state folder whose offsets are
// the log's. What is durable gives its disk space back (a hole), so the file's size is the log's end, after a crash
// too. One thread at a time.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPOOL_NAME_SIZE = 64 };

// The file's name for a task's attempt and part of the log.
void spool_name(const char *task, int attempt, int stream, char ret_name[static SPOOL_NAME_SIZE]);

// Opens or makes it. -1 with errno.
int spool_open(int folder, const char *name, int64_t *ret_end);

// All or nothing; false with errno.
bool spool_write(int file, int64_t offset, const void *data, size_t size) __attribute__((warn_unused_result));
bool spool_read(int file, int64_t offset, void *data, size_t size) __attribute__((warn_unused_result));

// What is before the offset will not be read any more.
void spool_release(int file, int64_t from, int64_t to);

// Unlinks the files of the folder that `is_wanted` does not know.
void spool_sweep(int folder, bool (*is_wanted)(void *context, const char *name), void *context);
