// Converts single values between message fields and PostgreSQL's binary formats. Which conversion fits is found once,
// by convert_find; a call then goes through function pointers. For the binder (binder.h has the table of what
// converts).
//
// What is read is checked for its length first: a malformed value is BINDING_BROKEN, never read past its end.
#pragma once

#include "storage/arena.h"
#include "storage/binder.h"

#include <endian.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum pg_kind {
        PG_BOOL,
        PG_INT2,
        PG_INT4,
        PG_INT8,
        PG_FLOAT4,
        PG_FLOAT8,
        PG_TEXT, // varchar and name, too
        PG_UUID,
        PG_BYTEA,
        PG_JSON,
        PG_JSONB,
        PG_TIMESTAMPTZ,
        PG_INTERVAL,
};

// A type that converts, alone and as an array's element.
struct pg_type {
        Oid oid, array_oid;
        enum pg_kind kind;
        unsigned width; // bytes; 0: any number
};

// NULL where the type does not convert. *ret_is_array: the type that is found is its element's.
const struct pg_type *pg_type_find(Oid oid, bool *ret_is_array);

struct conversion;

// Where a value is written. Twice: without `data` to learn its size, then with it.
struct output {
        char *data;
        size_t size;
        bool is_null;       // the value is SQL NULL
        const char *reason; // for BINDING_INVALID: what is wrong with it
        struct arena *arena;
};

// Sets the field at `member` from a value that is not NULL. Its length is the type's width, where that has one. Text
// and bytes are not copied: the value has a NUL behind it, and must live as long as the message.
typedef enum binding_status read_value(
        const struct conversion *conversion, void *member, char *data, size_t size, struct arena *arena);

// Writes the field at `member`, which is set.
typedef enum binding_status write_value(const struct conversion *conversion, const void *member, struct output *output);

struct conversion {
        const struct pg_type *type; // the value's, or its elements'
        const ProtobufCFieldDescriptor *field;
        read_value *read;
        write_value *write;
};

bool field_is_map(const ProtobufCFieldDescriptor *field);
bool field_is_timestamp(const ProtobufCFieldDescriptor *field);
bool field_is_duration(const ProtobufCFieldDescriptor *field);

// The size of one element of a repeated field in C.
size_t field_element_size(const ProtobufCFieldDescriptor *field);

// How the field's value, or one element of a repeated field, converts to and from the type; false where it does not, or
// not in that direction. With `as_json` a repeated string is one value: a JSON array.
bool convert_find_read(const ProtobufCFieldDescriptor *field, const struct pg_type *type,
        struct conversion *ret_conversion) __attribute__((warn_unused_result));
bool convert_find_write(const ProtobufCFieldDescriptor *field, const struct pg_type *type, bool as_json,
        struct conversion *ret_conversion) __attribute__((warn_unused_result));

// Reads an array into a repeated field: its count and its elements. One dimension, no NULL.
enum binding_status read_array(const struct conversion *conversion, size_t *ret_count, void **ret_elements, char *data,
        size_t size, struct arena *arena);

// A text or bytes need no writing: ret_value points to them. False for other conversions, and for what is too long.
bool convert_in_place(const struct conversion *conversion, const void *member, struct storage_value *ret_value);

// --- The formats, for both directions ---

static inline uint16_t load_16(const char *data) {
        uint16_t bits;
        memcpy(&bits, data, sizeof bits);
        return be16toh(bits);
}

static inline uint32_t load_32(const char *data) {
        uint32_t bits;
        memcpy(&bits, data, sizeof bits);
        return be32toh(bits);
}

static inline uint64_t load_64(const char *data) {
        uint64_t bits;
        memcpy(&bits, data, sizeof bits);
        return be64toh(bits);
}

static inline void put(struct output *output, const void *data, size_t size) {
        if (output->data && size)
                memcpy(output->data + output->size, data, size);
        output->size += size;
}

static inline void put_32(struct output *output, uint32_t value) {
        uint32_t bits = htobe32(value);
        put(output, &bits, sizeof bits);
}

static inline void put_64(struct output *output, uint64_t value) {
        uint64_t bits = htobe64(value);
        put(output, &bits, sizeof bits);
}

// An integer of `width` bytes; false where it is out of range.
bool put_integer(struct output *output, unsigned width, int64_t value) __attribute__((warn_unused_result));

// The first byte of jsonb's binary format.
enum { JSONB_VERSION = 1 };

// Seconds from 1970 to 2000, and the bounds of a valid Timestamp (0001 to 9999) and Duration (10,000 years).
#define EPOCH_SECONDS INT64_C(946684800)
#define TIMESTAMP_MIN INT64_C(-62135596800)
#define TIMESTAMP_MAX INT64_C(253402300799)
#define DURATION_MAX INT64_C(315576000000)
#define MICROSECONDS INT64_C(1000000)
