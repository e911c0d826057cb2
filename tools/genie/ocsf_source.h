// The bytes of a scan's results: plain or gzip (RFC 1952), told by the first two bytes, in constant memory.
//
// gzip packs real results 1:40, so there is no limit on the ratio; the size of the output never matters here.
#pragma once

#include <stdint.h>
#include <stdio.h>

struct ocsf_source;

enum source_result {
        SOURCE_DATA,
        SOURCE_END,
        SOURCE_CUT,    // gzip data that ends early or is damaged; what came before is good
        SOURCE_FAILED, // reading failed: errno
};

// Reads a file from where it stands; closes it in the end. NULL: no memory.
struct ocsf_source *ocsf_source_new(FILE *file);
void ocsf_source_free(struct ocsf_source *source);

// Fills `buffer` with up to `size` bytes and sets *ret_size with SOURCE_DATA. After any other result, again the same.
enum source_result ocsf_source_read(struct ocsf_source *source, void *buffer, size_t size, size_t *ret_size)
        __attribute__((warn_unused_result));

// How much of the file was read, before inflating: for progress.
uint64_t ocsf_source_consumed(const struct ocsf_source *source);
