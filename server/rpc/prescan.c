#include "server/rpc/prescan.h"

#include "server/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// The wire types of protobuf's encoding.
enum { VARINT = 0, FIXED64 = 1, DELIMITED = 2, GROUP_START = 3, GROUP_END = 4, FIXED32 = 5 };

struct reader {
        const unsigned char *at, *end;
};

// Tags and lengths have 32 bits; protobuf-c, too, reads no more bytes of them.
enum { VARINT_BYTES = 10, VARINT32_BYTES = 5 };

static bool read_varint(struct reader *reader, unsigned max_bytes, uint64_t *ret_value) {
        uint64_t value = 0;
        for (unsigned shift = 0; shift < 7 * max_bytes && reader->at < reader->end; shift += 7) {
                unsigned char byte = *reader->at++;
                if (shift < 64)
                        value |= (uint64_t)(byte & 0x7f) << shift;
                if (!(byte & 0x80)) {
                        *ret_value = value;
                        return true;
                }
        }
        return false;
}

static bool skip(struct reader *reader, uint64_t size) {
        if (size > (uint64_t)(reader->end - reader->at))
                return false;
        reader->at += size;
        return true;
}

bool is_utf8_text(const unsigned char *at, size_t size) {
        const unsigned char *end = at + size;
        while (at < end) {
                size_t sequence = *at && *at < 0x80 ? 1 : utf8_sequence(at, end); // mostly ASCII: without a call
                if (!sequence || !*at)
                        return false;
                at += sequence;
        }
        return true;
}

// The fields on the way to where the scan is: the one of each message, outermost first.
struct trail {
        const char *fields[PRESCAN_DEPTH + 1];
        unsigned depth; // of the message that is scanned
};

static const char *scan(const ProtobufCMessageDescriptor *descriptor, struct reader reader, struct trail *trail);

// A length-delimited field: its string, message or bytes.
static const char *scan_delimited(const ProtobufCFieldDescriptor *field, struct reader *reader, struct trail *trail) {
        uint64_t size;
        const unsigned char *start;
        if (!read_varint(reader, VARINT32_BYTES, &size) || (start = reader->at, !skip(reader, size)))
                return "is cut short";
        if (!field)
                return NULL;
        if (field->type == PROTOBUF_C_TYPE_STRING && !is_utf8_text(start, size))
                return "is not UTF-8 text, or contains NUL";
        if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
                if (trail->depth == PRESCAN_DEPTH)
                        return "is nested too deep";
                trail->depth++;
                const char *error = scan(field->descriptor, (struct reader){start, start + size}, trail);
                if (!error)
                        trail->depth--;
                return error;
        }
        return NULL;
}

static const char *scan(const ProtobufCMessageDescriptor *descriptor, struct reader reader, struct trail *trail) {
        while (reader.at < reader.end) {
                uint64_t tag, ignored;
                trail->fields[trail->depth] = NULL;
                if (!read_varint(&reader, VARINT32_BYTES, &tag) || !(tag >> 3) || tag >> 3 > 0x1fffffff)
                        return "is not a protobuf message";
                const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
                        descriptor, (unsigned)(tag >> 3));
                const char *error = NULL;
                trail->fields[trail->depth] = field ? field->name : "a field unknown here";
                switch (tag & 7) {
                case VARINT:
                        error = read_varint(&reader, VARINT_BYTES, &ignored) ? NULL : "is cut short";
                        break;
                case FIXED64:
                        error = skip(&reader, 8) ? NULL : "is cut short";
                        break;
                case FIXED32:
                        error = skip(&reader, 4) ? NULL : "is cut short";
                        break;
                case DELIMITED:
                        error = scan_delimited(field, &reader, trail);
                        break;
                default:
                        error = "uses groups, which proto3 does not have";
                }
                if (error)
                        return error;
        }
        return NULL;
}

// `member.email`; only the last field where the whole does not fit.
static const char *path_of(const struct trail *trail) {
        static _Thread_local char path[256];
        size_t used = 0;
        const char *last = NULL;
        for (unsigned i = 0; i <= trail->depth && trail->fields[i]; i++) {
                last = trail->fields[i];
                int size = snprintf(path + used, sizeof path - used, i ? ".%s" : "%s", last);
                used += size > 0 ? (size_t)size : 0;
                if (used >= sizeof path)
                        return trail->fields[trail->depth] ? trail->fields[trail->depth] : last;
        }
        return last ? path : NULL;
}

const char *prescan(
        const ProtobufCMessageDescriptor *descriptor, const unsigned char *data, size_t size, const char **ret_field) {
        struct trail trail = {.depth = 0};
        const char *error = scan(descriptor, (struct reader){data, data + size}, &trail);
        *ret_field = error ? path_of(&trail) : NULL;
        return error;
}
