// What the agent must not forget, in one append-only file of checksummed records in its state folder. A record is on
// disk when journal_append returns true. A tail that a crash or a full disk left half written is cut off. The file is
// written anew, without the attempts that are forgotten, when it has grown past its bound.
//
// One process has a folder at a time. Any thread may append.
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

// An attempt begins with its OFFER and ends with its FORGET. The numbers stand in files.
enum journal_type {
        JOURNAL_OFFER = 1,  // TaskAssign: before TaskAck
        JOURNAL_START = 2,  // LeasedTask: before the job runs
        JOURNAL_EFFECT = 3, // SideEffect: before and after something is made outside
        JOURNAL_RESULT = 4, // Result: before it is sent
        JOURNAL_FORGET = 5, // LeasedTask: the platform has all of it, or it is another's
};

struct journal;

// Opens the folder (made with mode 0700 where it is missing) and takes its lock. NULL with *ret_error (malloc'ed).
struct journal *journal_open(const char *folder, size_t bound, char **ret_error);
void journal_close(struct journal *journal); // takes NULL

// The process that has the folder; 0: none; -1: one in another namespace.
pid_t journal_user(const char *folder);

// The folder, for the files beside the journal; as long as the journal is open.
int journal_folder(const struct journal *journal);

// How many bytes of a torn tail were cut off when it was opened.
size_t journal_torn(const struct journal *journal);

// Hands out the records of the attempts that are not forgotten, in their order.
typedef void journal_take(void *context, enum journal_type type, const void *data, size_t size);
bool journal_replay(struct journal *journal, journal_take *take, void *context) __attribute__((warn_unused_result));

// Appends a record; false with errno, and nothing is changed, where it is not on disk: the disk is full or broken.
bool journal_append(struct journal *journal, enum journal_type type, const char *task, int attempt,
        const ProtobufCMessage *message) __attribute__((warn_unused_result));

// Sees to it that so many more bytes fit, so that what is begun can be ended. False with errno: the disk is full.
bool journal_reserve(struct journal *journal, size_t bytes) __attribute__((warn_unused_result));
