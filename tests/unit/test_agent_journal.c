// The agent's journal: what was appended is there after a crash, whatever the crash or a full disk has left of the
// file.
#include "tests/unit/cmocka_all.h"
#include "tests/unit/scratch.h"
#include "tools/genie-agent/checksum.h"
#include "tools/genie-agent/journal.h"

#include <devopsgenie/v1/task_channel_service.pb-c.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { BOUND = 1 << 20, RECORDS_MAX = 64 };

static struct scratch scratch;

// The C library's, with what a disk can do wrong.
static bool reads_fail;
static unsigned folder_syncs;

ssize_t pread(int file, void *data, size_t size, off_t offset) {
        if (!reads_fail)
                return syscall(SYS_pread64, file, data, size, offset);
        errno = EIO;
        return -1;
}

int fsync(int file) {
        struct stat status;
        folder_syncs += fstat(file, &status) == 0 && S_ISDIR(status.st_mode);
        return (int)syscall(SYS_fsync, file);
}

static int set_up(void **) {
        scratch_make(&scratch);
        return 0;
}

static int tear_down(void **) {
        scratch_drop(&scratch);
        return 0;
}

static struct journal *open_journal(size_t bound) {
        char *error = NULL;
        struct journal *journal = journal_open(scratch.folder, bound, &error);
        if (!journal)
                fail_msg("%s", error);
        return journal;
}

static char *text(const char *literal) { return (char *)(uintptr_t)literal; }

static bool offer(struct journal *journal, const char *task, int attempt, const char *key) {
        const Devopsgenie__V1__TaskAssign message = {PROTOBUF_C_MESSAGE_INIT(&devopsgenie__v1__task_assign__descriptor),
                .task = text(task), .attempt = attempt, .idempotency_key = text(key)};
        return journal_append(journal, JOURNAL_OFFER, task, attempt, &message.base);
}

static bool mark(struct journal *journal, enum journal_type type, const char *task, int attempt) {
        const Devopsgenie__V1__LeasedTask message = {PROTOBUF_C_MESSAGE_INIT(&devopsgenie__v1__leased_task__descriptor),
                .task = text(task), .attempt = attempt};
        return journal_append(journal, type, task, attempt, &message.base);
}

static struct {
        enum journal_type types[RECORDS_MAX];
        char keys[RECORDS_MAX][20];
        unsigned count;
} replayed;

static void take(void *, enum journal_type type, const void *data, size_t size) {
        assert_true(replayed.count < RECORDS_MAX);
        replayed.keys[replayed.count][0] = '\0';
        if (type == JOURNAL_OFFER) {
                Devopsgenie__V1__TaskAssign *message = devopsgenie__v1__task_assign__unpack(NULL, size, data);
                assert_non_null(message);
                snprintf(replayed.keys[replayed.count], 20, "%s", message->idempotency_key);
                devopsgenie__v1__task_assign__free_unpacked(message, NULL);
        }
        replayed.types[replayed.count++] = type;
}

static unsigned replay(struct journal *journal) {
        replayed.count = 0;
        assert_true(journal_replay(journal, take, NULL));
        return replayed.count;
}

static off_t size_of(const char *name) {
        struct stat status;
        return stat(scratch_path(&scratch, name), &status) == 0 ? status.st_size : -1;
}

static void test_what_was_appended_is_there(void **) {
        struct journal *journal = open_journal(BOUND);
        assert_true(offer(journal, "a", 1, "key-a"));
        assert_true(offer(journal, "b", 1, "key-b"));
        assert_true(mark(journal, JOURNAL_START, "a", 1));
        assert_true(offer(journal, "a", 2, "key-a2"));
        assert_int_equal(replay(journal), 4);
        journal_close(journal);
        journal = open_journal(BOUND);
        assert_int_equal(journal_torn(journal), 0);
        assert_int_equal(replay(journal), 4);
        assert_string_equal(replayed.keys[1], "key-b");
        assert_int_equal(replayed.types[2], JOURNAL_START);
        assert_true(mark(journal, JOURNAL_FORGET, "a", 1)); // this attempt, not the other
        assert_int_equal(replay(journal), 2);
        assert_string_equal(replayed.keys[0], "key-b");
        assert_string_equal(replayed.keys[1], "key-a2");
        journal_close(journal);
}

// A file is in its folder after a crash when the folder was written, too.
static void test_the_folder_is_on_disk(void **) {
        folder_syncs = 0;
        struct journal *journal = open_journal(BOUND);
        assert_int_equal(folder_syncs, 1);
        journal_close(journal);
}

// What cannot be read now is no torn end: it stays as it is.
static void test_a_disk_that_cannot_be_read(void **) {
        struct journal *journal = open_journal(BOUND);
        assert_true(offer(journal, "a", 1, "key-a"));
        journal_close(journal);
        char *error = NULL;
        reads_fail = true;
        journal = journal_open(scratch.folder, BOUND, &error);
        reads_fail = false;
        assert_null(journal);
        assert_non_null(strstr(error, "cannot read the journal"));
        assert_non_null(strstr(error, strerror(EIO)));
        free(error);
        journal = open_journal(BOUND);
        assert_int_equal(journal_torn(journal), 0);
        assert_int_equal(replay(journal), 1);
        journal_close(journal);
}

// A crash can leave any beginning of the last record, and an old block's bytes behind it.
static void test_a_tail_torn_at_every_byte(void **) {
        struct journal *journal = open_journal(BOUND);
        assert_true(offer(journal, "a", 1, "key-a"));
        off_t first = size_of("journal-1");
        assert_true(offer(journal, "b", 1, "key-b"));
        off_t whole = size_of("journal-1");
        journal_close(journal);
        char bytes[1000];
        int file = open(scratch_path(&scratch, "journal-1"), O_RDWR | O_CLOEXEC);
        assert_true(whole < (off_t)sizeof bytes && pread(file, bytes, sizeof bytes, 0) == whole);
        for (int garbage = 0; garbage < 2; garbage++)
                for (off_t cut = first; cut <= whole; cut++) {
                        assert_int_equal(ftruncate(file, 0), 0);
                        assert_int_equal(pwrite(file, bytes, (size_t)cut, 0), cut);
                        if (garbage && cut < whole)
                                assert_int_equal(pwrite(file, "\377garbage", 8, cut), 8);
                        journal = open_journal(BOUND);
                        assert_int_equal(replay(journal), cut == whole ? 2 : 1);
                        assert_int_equal(size_of("journal-1"), cut == whole ? whole : first);
                        assert_int_equal(journal_torn(journal) > 0, cut != whole && (garbage || cut > first));
                        assert_true(offer(journal, "c", 1, "key-c"));
                        assert_int_equal(replay(journal), cut == whole ? 3 : 2);
                        journal_close(journal);
                }
        close(file);
}

// No flipped bit goes unnoticed.
static void test_damage_at_every_byte(void **) {
        struct journal *journal = open_journal(BOUND);
        assert_true(offer(journal, "a", 1, "key-a"));
        off_t first = size_of("journal-1");
        assert_true(offer(journal, "b", 1, "key-b"));
        off_t whole = size_of("journal-1");
        journal_close(journal);
        char bytes[1000];
        int file = open(scratch_path(&scratch, "journal-1"), O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(file, bytes, sizeof bytes, 0), whole);
        for (off_t at = first; at < whole; at++) {
                bytes[at] ^= 0x10;
                assert_int_equal(pwrite(file, bytes, (size_t)whole, 0), whole);
                bytes[at] ^= 0x10;
                journal = open_journal(BOUND);
                assert_int_equal(replay(journal), 1);
                journal_close(journal);
        }
        close(file);
}

static void test_it_is_written_anew_past_its_bound(void **) {
        struct journal *journal = open_journal(4096);
        char task[20];
        assert_true(offer(journal, "stays", 1, "key"));
        assert_true(mark(journal, JOURNAL_START, "stays", 1));
        off_t largest = 0;
        for (int i = 0; i < 1000; i++) {
                snprintf(task, sizeof task, "task-%d", i);
                assert_true(offer(journal, task, 1, "key"));
                assert_true(mark(journal, JOURNAL_FORGET, task, 1));
                if (size_of("journal-1") > largest)
                        largest = size_of("journal-1");
        }
        assert_in_range(largest, 4096 - 200, 4096); // it grows up to its bound
        assert_int_equal(replay(journal), 2);
        journal_close(journal);
        journal = open_journal(4096);
        assert_int_equal(replay(journal), 2);
        journal_close(journal);
}

// What is alive may take more than the bound: it is not written anew each time then.
static void test_live_attempts_beyond_the_bound(void **) {
        struct journal *journal = open_journal(4096);
        char task[20];
        ino_t inode = 0;
        unsigned renewals = 0;
        for (int i = 0; i < 60; i++) {
                struct stat status;
                snprintf(task, sizeof task, "task-%d", i);
                assert_true(offer(journal, task, 1,
                        "a key that takes some room in the journal, for the journal to grow "
                        "past its bound with what is alive alone, again and again, and on"));
                assert_true(offer(journal, "gone", i, "key"));
                assert_true(mark(journal, JOURNAL_FORGET, "gone", i));
                assert_int_equal(stat(scratch_path(&scratch, "journal-1"), &status), 0);
                renewals += status.st_ino != inode;
                inode = status.st_ino;
        }
        assert_in_range(renewals, 2, 6);
        assert_int_equal(replay(journal), 60);
        journal_close(journal);
}

// A file that may not grow stands for a disk that is full: append fails, nothing changes, and goes on with room.
static void test_a_full_disk(void **) {
        struct journal *journal = open_journal(BOUND);
        struct rlimit before, limit;
        signal(SIGXFSZ, SIG_IGN);
        assert_true(offer(journal, "a", 1, "key-a"));
        off_t size = size_of("journal-1");
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        for (rlim_t room = 0; room < (rlim_t)size; room++) { // the second record is as large as the first
                limit = before;
                limit.rlim_cur = (rlim_t)size + room;
                assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
                assert_false(offer(journal, "b", 1, "key-b"));
                assert_int_equal(errno, EFBIG);
                assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
                assert_int_equal(size_of("journal-1"), size);
                assert_int_equal(replay(journal), 1);
        }
        assert_true(journal_reserve(journal, 1000));
        assert_true(offer(journal, "b", 1, "key-b"));
        journal_close(journal);
        journal = open_journal(BOUND);
        assert_int_equal(journal_torn(journal), 0);
        assert_int_equal(replay(journal), 2);
        journal_close(journal);
}

// Where the file may not grow, room is made of what is forgotten.
static void test_room_from_what_is_forgotten(void **) {
        struct journal *journal = open_journal(BOUND);
        struct rlimit before, limit;
        signal(SIGXFSZ, SIG_IGN);
        assert_true(offer(journal, "a", 1, "key-a"));
        assert_true(offer(journal, "b", 1, "key-b"));
        assert_true(mark(journal, JOURNAL_FORGET, "a", 1));
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = before;
        limit.rlim_cur = (rlim_t)size_of("journal-1");
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_true(offer(journal, "c", 1, "key-c"));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(replay(journal), 2);
        journal_close(journal);
}

static void test_a_record_that_is_too_large(void **) {
        struct journal *journal = open_journal(BOUND);
        char name[400];
        memset(name, 'a', sizeof name - 1);
        name[sizeof name - 1] = '\0';
        assert_false(offer(journal, name, 1, "key"));
        assert_int_equal(errno, EMSGSIZE);
        assert_int_equal(replay(journal), 0);
        journal_close(journal);
}

static void test_one_process_at_a_time(void **) {
        struct journal *journal = open_journal(BOUND);
        int status;
        pid_t other = fork();
        if (other == 0) {
                char *error = NULL;
                bool opened = journal_open(scratch.folder, BOUND, &error) != NULL;
                _exit(opened || !error || !strstr(error, "another genie-agent uses the state directory"));
        }
        assert_int_equal(waitpid(other, &status, 0), other);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        journal_close(journal);
        journal_close(open_journal(BOUND)); // it is free again
}

static void test_checksum(void **) {
        // RFC 3720, B.4.
        unsigned char bytes[32] = {0};
        assert_int_equal(checksum_crc32c(bytes, 32), 0x8a9136aa);
        memset(bytes, 0xff, 32);
        assert_int_equal(checksum_crc32c(bytes, 32), 0x62a8ab43);
        for (unsigned char i = 0; i < 32; i++)
                bytes[i] = i;
        assert_int_equal(checksum_crc32c(bytes, 32), 0x46dd794e);
        assert_int_equal(checksum_crc32c("123456789", 9), 0xe3069283);
        assert_int_equal(checksum_crc32c("", 0), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_what_was_appended_is_there, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_the_folder_is_on_disk, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_disk_that_cannot_be_read, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_tail_torn_at_every_byte, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_damage_at_every_byte, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_it_is_written_anew_past_its_bound, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_live_attempts_beyond_the_bound, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_full_disk, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_room_from_what_is_forgotten, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_record_that_is_too_large, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_one_process_at_a_time, set_up, tear_down),
                cmocka_unit_test(test_checksum),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
