#include "tools/genie-agent/journal.h"

#include "tools/genie-agent/checksum.h"
#include "tools/genie-agent/text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "journal-1" // 1: this form of records
#define FRESH_NAME "journal-1.new"
#define LOCK_NAME "lock"
enum { TASK_MAX = 255, RECORD_MAX = 8 << 20, LIVE_MAX = 2000 };

// In front of each record; task and data follow. The checksum is of everything behind itself.
struct header {
        uint32_t checksum, size; // size: of the whole record
        uint8_t type, task_size;
        uint16_t zero;
        int32_t attempt;
};

struct live {
        char *task;
        int attempt;
};

struct journal {
        pthread_mutex_t lock;
        int folder, lock_file, file;
        int64_t size;
        size_t bound, compacted, torn;
        bool suspect; // an fsync failed: what the file holds is known only after it was written anew
        struct live live[LIVE_MAX];
        size_t live_count, forgotten; // forgotten: since the file was last written anew
};

static bool __attribute__((format(printf, 2, 3))) set_error(char **ret_error, const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        if (vasprintf(ret_error, format, arguments) < 0)
                *ret_error = NULL;
        va_end(arguments);
        return false;
}

static struct live *find_live(struct journal *journal, const char *task, size_t task_size, int attempt) {
        for (size_t i = 0; i < journal->live_count; i++) {
                struct live *live = &journal->live[i];
                if (live->attempt == attempt && strlen(live->task) == task_size && !memcmp(live->task, task, task_size))
                        return live;
        }
        return NULL;
}

// Keeps the list of attempts that are not forgotten.
static void note(struct journal *journal, enum journal_type type, const char *task, size_t task_size, int attempt) {
        struct live *live = find_live(journal, task, task_size, attempt);
        if (type == JOURNAL_OFFER && !live && journal->live_count < LIVE_MAX) {
                journal->live[journal->live_count++] = (struct live){must(strndup(task, task_size)), attempt};
        } else if (type == JOURNAL_FORGET && live) {
                free(live->task);
                *live = journal->live[--journal->live_count];
                journal->forgotten++;
        }
}

// False with errno; 0: the file ends before.
static bool read_at(int file, int64_t offset, void *data, size_t size) {
        errno = 0;
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

static bool write_at(int file, int64_t offset, const void *data, size_t size) {
        for (size_t done = 0; done < size;) {
                ssize_t written = pwrite(file, (const char *)data + done, size - done, offset + (int64_t)done);
                if (written < 0 && errno == EINTR)
                        continue;
                if (written <= 0) {
                        errno = written < 0 ? errno : ENOSPC;
                        return false;
                }
                done += (size_t)written;
        }
        return true;
}

static uint32_t checksum_of(const struct header *header) {
        return checksum_crc32c(&header->size, header->size - offsetof(struct header, size));
}

// The record at an offset, malloc'ed; NULL where there is none that is whole (errno 0) or it cannot be read.
static struct header *read_record(int file, int64_t offset, int64_t end) {
        struct header head;
        errno = 0;
        if (end - offset < (int64_t)sizeof head || !read_at(file, offset, &head, sizeof head) ||
                head.size < sizeof head + head.task_size || head.size > RECORD_MAX || head.size > end - offset)
                return NULL;
        struct header *record = must(malloc(head.size));
        if (read_at(file, offset, record, head.size) && record->size == head.size &&
                record->checksum == checksum_of(record))
                return record;
        int error = errno;
        free(record);
        errno = error;
        return NULL;
}

static const char *task_of(const struct header *record) { return (const char *)(record + 1); }

// Reads what the file holds, and cuts off what is no whole record.
static bool load(struct journal *journal) {
        struct stat status;
        struct header *record;
        if (fstat(journal->file, &status) < 0)
                return false;
        while ((record = read_record(journal->file, journal->size, status.st_size))) {
                note(journal, record->type, task_of(record), record->task_size, record->attempt);
                journal->size += record->size;
                free(record);
        }
        if (errno) // what is there may be whole
                return false;
        journal->torn = (size_t)(status.st_size - journal->size);
        return !journal->torn || ftruncate(journal->file, journal->size) == 0;
}

// A lock that the command's keeper, which is a fork of the agent, does not inherit.
static bool take_lock(struct journal *journal, const char *folder, char **ret_error) {
        const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        journal->lock_file = openat(journal->folder, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (journal->lock_file < 0)
                return set_error(ret_error, "cannot write in the state directory %s: %m", folder);
        if (fcntl(journal->lock_file, F_SETLK, &whole) == 0)
                return true;
        if (errno == EACCES || errno == EAGAIN)
                return set_error(ret_error, "another genie-agent uses the state directory %s", folder);
        return set_error(ret_error, "cannot lock the state directory %s: %m", folder);
}

static bool open_all(struct journal *journal, const char *folder, char **ret_error) {
        if (mkdir(folder, 0700) < 0 && errno != EEXIST)
                return set_error(ret_error, "cannot make the state directory %s: %m", folder);
        journal->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (journal->folder < 0)
                return set_error(ret_error, "cannot open the state directory %s: %m", folder);
        if (!take_lock(journal, folder, ret_error))
                return false;
        unlinkat(journal->folder, FRESH_NAME, 0);
        journal->file = openat(journal->folder, FILE_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (journal->file < 0 || fsync(journal->folder) < 0 || !load(journal))
                return set_error(ret_error, "cannot read the journal in %s: %m", folder);
        return true;
}

struct journal *journal_open(const char *folder, size_t bound, char **ret_error) {
        struct journal *journal = must(calloc(1, sizeof *journal));
        journal->folder = journal->lock_file = journal->file = -1;
        journal->bound = bound;
        pthread_mutex_init(&journal->lock, NULL);
        *ret_error = NULL;
        if (open_all(journal, folder, ret_error))
                return journal;
        journal_close(journal);
        return NULL;
}

void journal_close(struct journal *journal) {
        if (!journal)
                return;
        for (size_t i = 0; i < journal->live_count; i++)
                free(journal->live[i].task);
        if (journal->file >= 0)
                close(journal->file);
        if (journal->lock_file >= 0)
                close(journal->lock_file);
        if (journal->folder >= 0)
                close(journal->folder);
        pthread_mutex_destroy(&journal->lock);
        free(journal);
}

pid_t journal_user(const char *folder) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/" LOCK_NAME, folder);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        bool known = file >= 0 && fcntl(file, F_GETLK, &lock) == 0;
        if (file >= 0)
                close(file);
        if (!known || lock.l_type == F_UNLCK)
                return 0;
        return lock.l_pid > 0 ? lock.l_pid : -1;
}

int journal_folder(const struct journal *journal) { return journal->folder; }

size_t journal_torn(const struct journal *journal) { return journal->torn; }

bool journal_replay(struct journal *journal, journal_take *take, void *context) {
        int64_t offset = 0;
        pthread_mutex_lock(&journal->lock);
        for (struct header *record; (record = read_record(journal->file, offset, journal->size));) {
                const char *data = task_of(record) + record->task_size;
                if (find_live(journal, task_of(record), record->task_size, record->attempt))
                        take(context, record->type, data, record->size - sizeof *record - record->task_size);
                offset += record->size;
                free(record);
        }
        bool whole = offset == journal->size;
        pthread_mutex_unlock(&journal->lock);
        return whole;
}

// Copies what is not forgotten; the size of it, or -1.
static int64_t copy_live(struct journal *journal, int to) {
        int64_t offset = 0, size = 0;
        bool good = true;
        for (struct header *record; good && (record = read_record(journal->file, offset, journal->size));) {
                if (find_live(journal, task_of(record), record->task_size, record->attempt)) {
                        good = write_at(to, size, record, record->size);
                        size += record->size;
                }
                offset += record->size;
                free(record);
        }
        return good && offset == journal->size ? size : -1;
}

// Writes the file anew. False with errno: it is as it was.
static bool compact(struct journal *journal) {
        int fresh = openat(journal->folder, FRESH_NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int64_t size = fresh >= 0 ? copy_live(journal, fresh) : -1;
        if (size < 0 || fsync(fresh) < 0 || renameat(journal->folder, FRESH_NAME, journal->folder, FILE_NAME) < 0) {
                int error = errno;
                if (fresh >= 0)
                        close(fresh);
                unlinkat(journal->folder, FRESH_NAME, 0);
                errno = error;
                return false;
        }
        close(journal->file);
        journal->file = fresh;
        journal->size = size;
        journal->compacted = (size_t)size;
        journal->forgotten = 0;
        journal->suspect = fsync(journal->folder) < 0;
        return !journal->suspect;
}

// Appends and waits for the disk. On failure the file is as long as it was, or suspect.
static bool write_record(struct journal *journal, const struct header *record) {
        if (!write_at(journal->file, journal->size, record, record->size)) {
                int error = errno;
                journal->suspect |= ftruncate(journal->file, journal->size) < 0;
                errno = error;
                return false;
        }
        if (fdatasync(journal->file) < 0) {
                int error = errno;
                journal->suspect = true; // the kernel forgets what it could not write
                if (ftruncate(journal->file, journal->size) < 0)
                        error = EIO;
                errno = error;
                return false;
        }
        journal->size += record->size;
        return true;
}

static struct header *make_record(
        enum journal_type type, const char *task, int attempt, const ProtobufCMessage *message) {
        size_t task_size = strlen(task), data_size = protobuf_c_message_get_packed_size(message);
        size_t size = sizeof(struct header) + task_size + data_size;
        if (task_size > TASK_MAX || size > RECORD_MAX) {
                errno = EMSGSIZE;
                return NULL;
        }
        struct header *record = must(calloc(1, size));
        *record = (struct header){
                .size = (uint32_t)size, .type = (uint8_t)type, .task_size = (uint8_t)task_size, .attempt = attempt};
        memcpy(record + 1, task, task_size); // NOLINT(bugprone-not-null-terminated-result): task_size is in the record
        protobuf_c_message_pack(message, (uint8_t *)(record + 1) + task_size);
        record->checksum = checksum_of(record);
        return record;
}

bool journal_append(struct journal *journal, enum journal_type type, const char *task, int attempt,
        const ProtobufCMessage *message) {
        struct header *record = make_record(type, task, attempt, message);
        if (!record)
                return false;
        pthread_mutex_lock(&journal->lock);
        bool many = type == JOURNAL_OFFER && journal->live_count == LIVE_MAX; // more than an agent has
        errno = ENOSPC;
        bool good = !many && (!journal->suspect || compact(journal)) &&
                    (write_record(journal, record) ||
                            (journal->forgotten && compact(journal) && write_record(journal, record)));
        int error = errno;
        if (good)
                note(journal, type, task, strlen(task), attempt);
        size_t size = (size_t)journal->size;
        if (good && journal->forgotten && size > journal->bound && size > 2 * journal->compacted)
                (void)!compact(journal); // else it grows on, and the next record tries again
        pthread_mutex_unlock(&journal->lock);
        free(record);
        errno = error;
        return good;
}

static bool allocate(const struct journal *journal, size_t bytes) {
        return fallocate(journal->file, FALLOC_FL_KEEP_SIZE, journal->size, (off_t)bytes) == 0 || errno == EOPNOTSUPP;
}

bool journal_reserve(struct journal *journal, size_t bytes) {
        pthread_mutex_lock(&journal->lock);
        bool good = (!journal->suspect || compact(journal)) &&
                    (allocate(journal, bytes) || (journal->forgotten && compact(journal) && allocate(journal, bytes)));
        int error = errno;
        pthread_mutex_unlock(&journal->lock);
        errno = error;
        return good;
}
