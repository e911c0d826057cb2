#include "tools/genie-agent/pull_request/cache.h"

#include "tools/genie-agent/pull_request/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS = 100, ENTRIES_MAX = 4096 };

static void remove_folder(char *folder) {
        char *folders[] = {folder, NULL};
        FTS *walk = fts_open(folders, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
        for (FTSENT *entry; walk && (entry = fts_read(walk));)
                if (entry->fts_info != FTS_D)
                        remove(entry->fts_accpath);
        if (walk)
                fts_close(walk);
}

static uint64_t folder_bytes(char *folder) {
        char *folders[] = {folder, NULL};
        uint64_t bytes = 0;
        FTS *walk = fts_open(folders, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
        for (FTSENT *entry; walk && (entry = fts_read(walk));)
                if (entry->fts_info == FTS_F || entry->fts_info == FTS_D)
                        bytes += (uint64_t)entry->fts_statp->st_blocks * 512;
        if (walk)
                fts_close(walk);
        return bytes;
}

// Locks FOLDER.lock, a file beside it that whoever removes the folder removes too: so the file that was locked must
// still be the one that is there. -1: somebody else has it (errno EWOULDBLOCK), or there is no such file to be had.
static int lock_try(const char *folder) {
        char path[PATH_MAX + 8];
        struct stat locked, there;
        if (!text_format(path, sizeof path, "%s.lock", folder))
                return -1;
        int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (lock < 0)
                return -1;
        if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
                if (fstat(lock, &locked) == 0 && stat(path, &there) == 0 && locked.st_ino == there.st_ino)
                        return lock;
                errno = EWOULDBLOCK;
        }
        int error = errno;
        close(lock);
        errno = error;
        return -1;
}

static void lock_drop(const char *folder, int lock, bool remove_file) {
        char path[PATH_MAX + 8];
        if (remove_file && text_format(path, sizeof path, "%s.lock", folder))
                unlink(path);
        close(lock);
}

struct item {
        char folder[PATH_MAX];
        uint64_t bytes;
        struct timespec used;
};

static int longer_unused(const void *a, const void *b) {
        const struct item *x = a, *y = b;
        if (x->used.tv_sec != y->used.tv_sec)
                return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
        return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

// Every folder in the cache; those that a killed process left half made count too.
static size_t items_list(const char *cache, struct item *ret_items, uint64_t *ret_bytes) {
        DIR *folder = opendir(cache);
        size_t count = 0;
        *ret_bytes = 0;
        for (struct dirent *entry; folder && count < ENTRIES_MAX && (entry = readdir(folder));) {
                struct item *item = &ret_items[count];
                struct stat status;
                if (entry->d_name[0] == '.' ||
                        !text_format(item->folder, sizeof item->folder, "%s/%s", cache, entry->d_name) ||
                        lstat(item->folder, &status) != 0 || !S_ISDIR(status.st_mode))
                        continue;
                item->bytes = folder_bytes(item->folder);
                item->used = status.st_mtim;
                *ret_bytes += item->bytes;
                count++;
        }
        if (folder)
                closedir(folder);
        qsort(ret_items, count, sizeof *ret_items, longer_unused);
        return count;
}

static void trim(const struct pull_request_settings *settings) {
        struct item *items = calloc(ENTRIES_MAX, sizeof *items);
        uint64_t bytes;
        size_t count = items ? items_list(settings->cache_folder, items, &bytes) : 0;
        for (size_t i = 0; i < count && (bytes > settings->cache_limit_bytes || count - i > ENTRIES_MAX / 2); i++) {
                int lock = lock_try(items[i].folder);
                if (lock < 0)
                        continue;
                remove_folder(items[i].folder);
                lock_drop(items[i].folder, lock, /* remove_file= */ true);
                bytes -= items[i].bytes;
        }
        free(items);
}

// A name that a person can read, and a hash that makes it the URL's own.
static bool entry_name(const char *cache, const char *url, char *ret_folder, size_t capacity) {
        unsigned char hash[EVP_MAX_MD_SIZE];
        char readable[64] = "";
        const char *path = strstr(url, "://");
        if (!path || EVP_Digest(url, strlen(url), hash, NULL, EVP_sha256(), NULL) != 1)
                return false;
        snprintf(readable, sizeof readable, "%s", path + 3);
        for (char *c = readable; *c; c++)
                if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", *c))
                        *c = '-';
        return text_format(ret_folder, capacity, "%s/%s-%02x%02x%02x%02x%02x%02x%02x%02x", cache, readable, hash[0],
                hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]);
}

static bool lock_wait(struct http *http, const char *folder, int *ret_lock, struct job_result *result) {
        bool told = false;
        while ((*ret_lock = lock_try(folder)) < 0) {
                if (errno != EWOULDBLOCK) {
                        job_fail(result, /* permanent= */ false, "CACHE_FAILED", "the cache of repositories: %s",
                                strerror(errno));
                        return false;
                }
                if (!told)
                        job_logf(http_job(http), "waiting for another task of the same repository");
                told = true;
                if (!http_pause(http, WAIT_MS)) {
                        if (http_time_over(http))
                                job_fail(result, /* permanent= */ false, "TIME_LIMIT",
                                        "another task of the same repository took too long");
                        return false;
                }
        }
        return true;
}

static int repository_open(git_repository **ret_repository, char *folder) {
        int status = git_repository_open_bare(ret_repository, folder);
        if (status == 0)
                return 0;
        remove_folder(folder);
        return git_repository_init(ret_repository, folder, /* is_bare= */ 1);
}

bool cache_open(struct http *http, const struct pull_request_settings *settings, const char *url,
        struct cache_entry *ret_entry, struct job_result *result) {
        struct cache_entry entry = {.lock = -1};
        if ((mkdir(settings->cache_folder, 0700) != 0 && errno != EEXIST) ||
                !entry_name(settings->cache_folder, url, entry.folder, sizeof entry.folder)) {
                job_fail(result, /* permanent= */ false, "CACHE_FAILED", "the cache of repositories: %s",
                        strerror(errno));
                return false;
        }
        if (!lock_wait(http, entry.folder, &entry.lock, result))
                return false;
        trim(settings);
        if (repository_open(&entry.repository, entry.folder) != 0) {
                job_fail(result, /* permanent= */ false, "CACHE_FAILED", "the cache of repositories: %s",
                        git_error_last() ? git_error_last()->message : "it cannot be opened");
                lock_drop(entry.folder, entry.lock, /* remove_file= */ false);
                return false;
        }
        utimensat(AT_FDCWD, entry.folder, NULL, 0);
        *ret_entry = entry;
        return true;
}

void cache_close(struct cache_entry *entry, const struct pull_request_settings *settings, bool broken) {
        if (!entry->repository)
                return;
        git_repository_free(entry->repository);
        if (broken)
                remove_folder(entry->folder);
        lock_drop(entry->folder, entry->lock, /* remove_file= */ broken);
        trim(settings);
        *entry = (struct cache_entry){.lock = -1};
}
