// The cache of bare repositories: a folder per repository, named for its URL, bounded by bytes. Who opens one has it
// for itself, among threads and processes, until it is closed.
#pragma once

#include "tools/genie-agent/pull_request/http.h"

#include <git2.h>
#include <limits.h>

struct cache_entry {
        git_repository *repository;
        char folder[PATH_MAX];
        int lock;
};

// Opens the repository of a URL, made empty where there is none or it is broken; removes the ones that were not used
// for the longest time, until the limit holds. Waits for other jobs. On false the result has failed, or the job is to
// stop.
bool cache_open(struct http *http, const struct pull_request_settings *settings, const char *url,
        struct cache_entry *ret_entry, struct job_result *result) __attribute__((warn_unused_result));

// `broken`: what is on disk does not read as it should; the next job starts with an empty one.
void cache_close(struct cache_entry *entry, const struct pull_request_settings *settings, bool broken);
