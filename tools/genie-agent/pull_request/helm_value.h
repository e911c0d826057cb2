// One scalar of a YAML file replaced, and not one byte more: comments, order, quotes, line ends and indentation stay.
//
// The file is parsed for the place of the value, and the result is parsed again: what the two have, event by event,
// must differ in this one value only, else nothing is changed. So a value that would mean something else at its place
// (`a, b` in a flow mapping) is refused rather than written. No I/O.
#pragma once

#include <stddef.h>

enum helm_status {
        HELM_OK,
        HELM_NO_MEMORY,
        HELM_INVALID_PATH,  // of the value: see HelmValueChange.path
        HELM_INVALID_VALUE, // not one plain or quoted scalar on one line
        HELM_INVALID_YAML,  // the file, or it is too large
        HELM_MISSING,       // there is no value at the path
        HELM_UNEDITABLE,    // no scalar, or one that cannot be replaced by itself; or its key stands there twice
};

enum { HELM_FILE_MAX = 4 << 20, HELM_EVENTS_MAX = 500000, HELM_DEPTH_MAX = 100 };

// `content` has `size` bytes of UTF-8; the first document counts, as for Helm. On HELM_OK *ret_content (malloc'ed) and
// *ret_size are the new file; an alias is replaced as such, an anchor stays with the new value.
enum helm_status helm_value_set(const char *content, size_t size, const char *path, const char *value,
        char **ret_content, size_t *ret_size) __attribute__((warn_unused_result));
