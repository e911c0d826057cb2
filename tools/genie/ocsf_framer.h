// Cuts a stream of JSON into its records without parsing them: the elements of an array, lines, or values one after
// the other. Only a parser can say whether a record is good JSON; the framer knows where it begins and ends.
//
// It also sees what the framing tells about the runs in a file. A scanner that appends to the file of an earlier run
// leaves `[…]{…},…]`, or `[…{…}{…},…]` where the earlier run was killed: a value after a closed array, or one that
// no comma separates from the value before it, begins another run or damages this one.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OCSF_RECORD_MAX = 1 << 20 };

struct ocsf_frame {
        const char *data; // valid until the next call; NULL for a record that is too large
        size_t size;
        uint64_t offset;   // of its first byte, from 0
        bool begins_array; // the first record after an array was opened, or after one was closed
        bool cut_before;   // something is missing before it: a bracket or a comma
        bool in_array;
};

struct ocsf_framer;

// NULL: no memory.
struct ocsf_framer *ocsf_framer_new(void);
void ocsf_framer_free(struct ocsf_framer *framer);

// Takes bytes up to the end of the next record; *ret_taken says how many. True: there is a record.
bool ocsf_framer_feed(
        struct ocsf_framer *framer, const char *data, size_t size, size_t *ret_taken, struct ocsf_frame *ret_frame);

// No more bytes. True: a last record (a bare word) ends here.
bool ocsf_framer_end(struct ocsf_framer *framer, struct ocsf_frame *ret_frame);

// After the end: what is missing, for people; NULL: nothing.
const char *ocsf_framer_missing(const struct ocsf_framer *framer);
