#include "tools/genie/ocsf_framer.h"

#include <stdlib.h>
#include <string.h>

enum state {
        BETWEEN, // records
        IN_VALUE,
        IN_STRING,
        IN_ESCAPE, // of a string
        IN_WORD,   // a number, a literal or rubbish
};

struct ocsf_framer {
        enum state state;
        bool in_array;
        bool array_closed; // an array was, and no value came since
        bool any_value;    // in this array, or in the file outside of arrays
        bool comma;        // since the last value
        bool begins_array, cut_before;
        bool too_large;
        size_t depth; // of the record
        uint64_t offset, begin;
        size_t size;
        char record[OCSF_RECORD_MAX];
};

struct ocsf_framer *ocsf_framer_new(void) { return calloc(1, sizeof(struct ocsf_framer)); }

void ocsf_framer_free(struct ocsf_framer *framer) { free(framer); }

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// A byte order mark, as some tools of Windows put before UTF-8.
static bool is_mark(const struct ocsf_framer *framer, char c) {
        static const char mark[] = "\xef\xbb\xbf";

        return framer->offset < 3 && c == mark[framer->offset];
}

static void open_array(struct ocsf_framer *framer) {
        framer->begins_array = true;
        framer->in_array = true;
        framer->array_closed = framer->any_value = framer->comma = false;
}

static void begin_record(struct ocsf_framer *framer, char c) {
        if (framer->any_value && framer->in_array && !framer->comma)
                framer->begins_array = framer->cut_before = true;
        if (framer->array_closed)
                open_array(framer);
        framer->begin = framer->offset;
        framer->size = framer->depth = 0;
        framer->too_large = false;
        if (c == '{' || c == '[') {
                framer->state = IN_VALUE;
                framer->depth = 1;
        } else {
                framer->state = c == '"' ? IN_STRING : IN_WORD;
        }
}

// A byte between records. True: it begins one.
static bool step_between(struct ocsf_framer *framer, char c) {
        if (is_space(c) || is_mark(framer, c))
                return false;
        if (c == ',') {
                // Only elements of an array have commas: this one's bracket is lost.
                framer->cut_before |= !framer->in_array && !framer->array_closed;
                framer->comma = true;
                return false;
        }
        if (c == ']') {
                framer->cut_before |= !framer->in_array;
                framer->in_array = false;
                framer->array_closed = true;
                return false;
        }
        if (c == '[' && (!framer->in_array || (framer->any_value && !framer->comma))) {
                framer->cut_before |= framer->in_array;
                open_array(framer);
                return false;
        }
        begin_record(framer, c);
        return true;
}

static bool ends_word(char c) { return is_space(c) || (c && strchr(",[]{}\"", c)); }

// Goes through a record's bytes up to its end or the data's. True: the record ends before *ret_taken.
static bool step_record(struct ocsf_framer *framer, const char *data, size_t size, size_t *ret_taken) {
        enum state state = framer->state;
        size_t at = 0;
        bool ended = false;

        while (at < size && !ended) {
                char c = data[at];
                if (state == IN_WORD && ends_word(c)) {
                        ended = true;
                        break;
                }
                at++;
                if (state == IN_ESCAPE) {
                        state = IN_STRING;
                } else if (state == IN_STRING) {
                        if (c == '\\')
                                state = IN_ESCAPE;
                        else if (c == '"')
                                state = IN_VALUE;
                        ended = c == '"' && state == IN_VALUE && framer->depth == 0;
                } else if (state == IN_VALUE) {
                        if (c == '"')
                                state = IN_STRING;
                        else if (c == '{' || c == '[')
                                framer->depth++;
                        else if (c == '}' || c == ']')
                                ended = --framer->depth == 0;
                }
        }
        framer->state = state;
        *ret_taken = at;
        return ended;
}

static void keep(struct ocsf_framer *framer, const char *data, size_t size) {
        framer->offset += size;
        if (size > OCSF_RECORD_MAX - framer->size)
                framer->too_large = true;
        if (framer->too_large)
                return;
        memcpy(framer->record + framer->size, data, size);
        framer->size += size;
}

static void finish_record(struct ocsf_framer *framer, struct ocsf_frame *ret_frame) {
        *ret_frame = (struct ocsf_frame){
                .data = framer->too_large ? NULL : framer->record,
                .size = framer->size,
                .offset = framer->begin,
                .begins_array = framer->begins_array,
                .cut_before = framer->cut_before,
                .in_array = framer->in_array,
        };
        framer->state = BETWEEN;
        framer->any_value = true;
        framer->begins_array = framer->cut_before = framer->comma = false;
}

bool ocsf_framer_feed(
        struct ocsf_framer *framer, const char *data, size_t size, size_t *ret_taken, struct ocsf_frame *ret_frame) {
        size_t at = 0;

        while (at < size) {
                if (framer->state == BETWEEN) {
                        bool begins = step_between(framer, data[at]);
                        if (begins)
                                keep(framer, data + at, 1);
                        else
                                framer->offset++;
                        at++;
                        continue;
                }
                size_t taken;
                bool ended = step_record(framer, data + at, size - at, &taken);
                keep(framer, data + at, taken);
                at += taken;
                if (ended) {
                        finish_record(framer, ret_frame);
                        *ret_taken = at;
                        return true;
                }
        }
        *ret_taken = at;
        return false;
}

bool ocsf_framer_end(struct ocsf_framer *framer, struct ocsf_frame *ret_frame) {
        if (framer->state != IN_WORD)
                return false;
        finish_record(framer, ret_frame);
        return true;
}

const char *ocsf_framer_missing(const struct ocsf_framer *framer) {
        if (framer->state != BETWEEN)
                return "it ends inside a record";
        if (framer->in_array)
                return "it ends before its closing bracket";
        if (framer->cut_before)
                return "its beginning is missing";
        return NULL;
}
