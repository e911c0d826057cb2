#include "storage/convert_private.h"
#include "storage/uuid.h"

#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/timestamp.pb-c.h>
#include <limits.h>
#include <stdio.h>

#define MEMBER(type) (*(type const *)member)

static enum binding_status refuse(struct output *output, const char *reason) {
        output->reason = reason;
        return BINDING_INVALID;
}

enum binding_status write_text(const struct conversion *, const void *member, struct output *output) {
        put(output, MEMBER(char *), strlen(MEMBER(char *)));
        return BINDING_OK;
}

bool convert_in_place(const struct conversion *conversion, const void *member, struct storage_value *ret_value) {
        if (conversion->write != write_text && conversion->write != write_bytes)
                return false;
        bool is_text = conversion->write == write_text;
        const char *data = is_text ? MEMBER(char *) : (const char *)MEMBER(ProtobufCBinaryData).data;
        size_t size = is_text ? strlen(data) : MEMBER(ProtobufCBinaryData).len;
        if (size > INT_MAX)
                return false;
        // Without data it would be SQL NULL.
        *ret_value = (struct storage_value){.data = data ? data : "", .length = (int)size};
        return true;
}

// An empty string is a string that is not set.
enum binding_status write_uuid(const struct conversion *, const void *member, struct output *output) {
        const char *text = MEMBER(char *);
        unsigned char uuid[UUID_BYTES];
        output->is_null = !*text;
        if (output->is_null)
                return BINDING_OK;
        if (!uuid_from_text(text, strlen(text), uuid))
                return refuse(output, "is not a UUID");
        put(output, uuid, sizeof uuid);
        return BINDING_OK;
}

enum binding_status write_jsonb(const struct conversion *, const void *member, struct output *output) {
        const char *text = MEMBER(char *);
        output->is_null = !*text;
        if (output->is_null)
                return BINDING_OK;
        put(output, &(char){JSONB_VERSION}, 1);
        put(output, text, strlen(text));
        return BINDING_OK;
}

enum binding_status write_bytes(const struct conversion *, const void *member, struct output *output) {
        put(output, MEMBER(ProtobufCBinaryData).data, MEMBER(ProtobufCBinaryData).len);
        return BINDING_OK;
}

enum binding_status write_bool(const struct conversion *, const void *member, struct output *output) {
        put(output, &(char){MEMBER(protobuf_c_boolean) != 0}, 1);
        return BINDING_OK;
}

bool put_integer(struct output *output, unsigned width, int64_t value) {
        int64_t max = width == 2 ? INT16_MAX : width == 4 ? INT32_MAX : INT64_MAX;
        if (value > max || value < -max - 1)
                return false;
        uint64_t bits = htobe64((uint64_t)value);
        put(output, (const char *)&bits + sizeof bits - width, width);
        return true;
}

static enum binding_status write_integer(const struct conversion *conversion, struct output *output, int64_t value) {
        return put_integer(output, conversion->type->width, value) ? BINDING_OK : refuse(output, "is out of range");
}

enum binding_status write_int32(const struct conversion *conversion, const void *member, struct output *output) {
        return write_integer(conversion, output, MEMBER(int32_t));
}

enum binding_status write_uint32(const struct conversion *conversion, const void *member, struct output *output) {
        return write_integer(conversion, output, MEMBER(uint32_t));
}

enum binding_status write_int64(const struct conversion *conversion, const void *member, struct output *output) {
        return write_integer(conversion, output, MEMBER(int64_t));
}

enum binding_status write_uint64(const struct conversion *conversion, const void *member, struct output *output) {
        uint64_t value = MEMBER(uint64_t);
        return value > INT64_MAX ? refuse(output, "is out of range")
                                 : write_integer(conversion, output, (int64_t)value);
}

static void put_float(const struct conversion *conversion, struct output *output, double value) {
        float narrow = (float)value;
        uint32_t bits_32;
        uint64_t bits_64;
        if (conversion->type->width == sizeof narrow) {
                memcpy(&bits_32, &narrow, sizeof bits_32);
                put_32(output, bits_32);
                return;
        }
        memcpy(&bits_64, &value, sizeof bits_64);
        put_64(output, bits_64);
}

enum binding_status write_float(const struct conversion *conversion, const void *member, struct output *output) {
        put_float(conversion, output, (double)MEMBER(float));
        return BINDING_OK;
}

enum binding_status write_double(const struct conversion *conversion, const void *member, struct output *output) {
        put_float(conversion, output, MEMBER(double));
        return BINDING_OK;
}

static enum binding_status refuse_enum(const struct conversion *conversion, struct output *output) {
        const ProtobufCEnumDescriptor *descriptor = conversion->field->descriptor;
        const char *reason = arena_printf(output->arena, "is not a value of %s", descriptor->short_name);
        return reason ? refuse(output, reason) : BINDING_TOO_MUCH;
}

enum binding_status write_enum_name(const struct conversion *conversion, const void *member, struct output *output) {
        if (!MEMBER(int))
                return BINDING_OK;
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
                conversion->field->descriptor, MEMBER(int));
        if (!value)
                return refuse_enum(conversion, output);
        put(output, value->name, strlen(value->name));
        return BINDING_OK;
}

enum binding_status write_enum_number(const struct conversion *conversion, const void *member, struct output *output) {
        if (!protobuf_c_enum_descriptor_get_value(conversion->field->descriptor, MEMBER(int)))
                return refuse_enum(conversion, output);
        return write_integer(conversion, output, MEMBER(int));
}

// PostgreSQL keeps microseconds: what is below is cut off.
enum binding_status write_timestamp(const struct conversion *, const void *member, struct output *output) {
        const Google__Protobuf__Timestamp *timestamp = MEMBER(Google__Protobuf__Timestamp *);
        if (timestamp->seconds < TIMESTAMP_MIN || timestamp->seconds > TIMESTAMP_MAX)
                return refuse(output, "is not a time between the years 1 and 9999");
        if (timestamp->nanos < 0 || timestamp->nanos > 999999999)
                return refuse(output, "has nanos that are not between 0 and 999,999,999");
        put_64(output, (uint64_t)((timestamp->seconds - EPOCH_SECONDS) * MICROSECONDS + timestamp->nanos / 1000));
        return BINDING_OK;
}

enum binding_status write_duration(const struct conversion *, const void *member, struct output *output) {
        const Google__Protobuf__Duration *duration = MEMBER(Google__Protobuf__Duration *);
        if (duration->seconds < -DURATION_MAX || duration->seconds > DURATION_MAX)
                return refuse(output, "is longer than 10,000 years");
        if (duration->nanos < -999999999 || duration->nanos > 999999999 ||
                (duration->seconds < 0 && duration->nanos > 0) || (duration->seconds > 0 && duration->nanos < 0))
                return refuse(output, "has nanos that are out of range, or of another sign than the seconds");
        put_64(output, (uint64_t)(duration->seconds * MICROSECONDS + duration->nanos / 1000));
        put_64(output, 0); // days and months
        return BINDING_OK;
}

enum binding_status write_message(const struct conversion *, const void *member, struct output *output) {
        const ProtobufCMessage *message = MEMBER(ProtobufCMessage *);
        output->size += output->data ? protobuf_c_message_pack(message, (uint8_t *)output->data + output->size)
                                     : protobuf_c_message_get_packed_size(message);
        return BINDING_OK;
}

// --- JSON ---

static void put_json_character(struct output *output, char c) {
        char escape[8];
        if (c == '"' || c == '\\')
                put(output, (char[]){'\\', c}, 2);
        else if ((unsigned char)c < 0x20)
                put(output, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c));
        else
                put(output, &c, 1);
}

static void put_json_string(struct output *output, const char *text) {
        put(output, "\"", 1);
        while (*text) {
                size_t plain = strcspn(text, "\"\\\x01\x02\x03\x04\x05\x06\x07\b\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14"
                                             "\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f");
                put(output, text, plain);
                text += plain;
                if (*text)
                        put_json_character(output, *text++);
        }
        put(output, "\"", 1);
}

static size_t count_of(const struct conversion *conversion, const void *member) {
        const ProtobufCFieldDescriptor *field = conversion->field;
        return *(const size_t *)((const char *)member - field->offset + field->quantifier_offset);
}

// Of a key that comes twice, PostgreSQL keeps the last, as protobuf wants it.
enum binding_status write_map(const struct conversion *conversion, const void *member, struct output *output) {
        const ProtobufCMessageDescriptor *entry = conversion->field->descriptor;
        const char *const *entries = MEMBER(const char *const *);
        size_t count = count_of(conversion, member);
        put(output, (char[]){JSONB_VERSION, '{'}, 2);
        for (size_t i = 0; i < count; i++) {
                put(output, ",", i > 0);
                put_json_string(output, *(char *const *)(entries[i] + entry->fields[0].offset));
                put(output, ":", 1);
                put_json_string(output, *(char *const *)(entries[i] + entry->fields[1].offset));
        }
        put(output, "}", 1);
        return BINDING_OK;
}

enum binding_status write_strings(const struct conversion *conversion, const void *member, struct output *output) {
        size_t count = count_of(conversion, member);
        put(output, (char[]){JSONB_VERSION, '['}, 2);
        for (size_t i = 0; i < count; i++) {
                put(output, ",", i > 0);
                put_json_string(output, MEMBER(char *const *)[i]);
        }
        put(output, "]", 1);
        return BINDING_OK;
}
