#include "storage/convert_private.h"
#include "storage/uuid.h"

#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/timestamp.pb-c.h>
#include <jansson.h>

// The members' types are protobuf-c's own.
#define MEMBER(type) (*(type *)member)

enum binding_status read_text(const struct conversion *, void *member, char *data, size_t, struct arena *) {
        MEMBER(char *) = data;
        return BINDING_OK;
}

enum binding_status read_uuid(const struct conversion *, void *member, char *data, size_t, struct arena *arena) {
        char *text = arena_alloc(arena, UUID_TEXT_SIZE);
        if (!text)
                return BINDING_TOO_MUCH;
        uuid_to_text((const unsigned char *)data, text);
        MEMBER(char *) = text;
        return BINDING_OK;
}

enum binding_status read_jsonb(const struct conversion *, void *member, char *data, size_t size, struct arena *) {
        if (!size || *data != JSONB_VERSION)
                return BINDING_BROKEN;
        MEMBER(char *) = data + 1;
        return BINDING_OK;
}

enum binding_status read_bytes(const struct conversion *, void *member, char *data, size_t size, struct arena *) {
        MEMBER(ProtobufCBinaryData) = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)data};
        return BINDING_OK;
}

enum binding_status read_bool(const struct conversion *, void *member, char *data, size_t, struct arena *) {
        MEMBER(protobuf_c_boolean) = *data != 0;
        return BINDING_OK;
}

static int64_t load_integer(const struct conversion *conversion, const char *data) {
        switch (conversion->type->width) {
        case 2:
                return (int16_t)load_16(data);
        case 4:
                return (int32_t)load_32(data);
        default:
                return (int64_t)load_64(data);
        }
}

enum binding_status read_int32(const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        int64_t value = load_integer(conversion, data);
        if (value < INT32_MIN || value > INT32_MAX)
                return BINDING_BROKEN;
        MEMBER(int32_t) = (int32_t)value;
        return BINDING_OK;
}

enum binding_status read_uint32(const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        int64_t value = load_integer(conversion, data);
        if (value < 0 || value > UINT32_MAX)
                return BINDING_BROKEN;
        MEMBER(uint32_t) = (uint32_t)value;
        return BINDING_OK;
}

enum binding_status read_int64(const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        MEMBER(int64_t) = load_integer(conversion, data);
        return BINDING_OK;
}

enum binding_status read_uint64(const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        int64_t value = load_integer(conversion, data);
        if (value < 0)
                return BINDING_BROKEN;
        MEMBER(uint64_t) = (uint64_t)value;
        return BINDING_OK;
}

static double load_float(const struct conversion *conversion, const char *data) {
        union {
                uint32_t bits;
                float value;
        } single = {0};
        union {
                uint64_t bits;
                double value;
        } whole = {0};
        if (conversion->type->width == sizeof single) {
                single.bits = load_32(data);
                return (double)single.value;
        }
        whole.bits = load_64(data);
        return whole.value;
}

enum binding_status read_float(const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        MEMBER(float) = (float)load_float(conversion, data);
        return BINDING_OK;
}

enum binding_status read_double(const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        MEMBER(double) = load_float(conversion, data);
        return BINDING_OK;
}

enum binding_status read_enum_name(
        const struct conversion *conversion, void *member, char *data, size_t size, struct arena *) {
        const ProtobufCEnumValue *value = size ? protobuf_c_enum_descriptor_get_value_by_name(
                                                         conversion->field->descriptor, data)
                                               : NULL;
        if (size && !value)
                return BINDING_BROKEN;
        MEMBER(int) = value ? value->value : 0;
        return BINDING_OK;
}

enum binding_status read_enum_number(
        const struct conversion *conversion, void *member, char *data, size_t, struct arena *) {
        int number = (int)load_integer(conversion, data);
        if (!protobuf_c_enum_descriptor_get_value(conversion->field->descriptor, number))
                return BINDING_BROKEN;
        MEMBER(int) = number;
        return BINDING_OK;
}

enum binding_status read_timestamp(const struct conversion *, void *member, char *data, size_t, struct arena *arena) {
        int64_t time = (int64_t)load_64(data), rest = time % MICROSECONDS;
        int64_t seconds = time / MICROSECONDS - (rest < 0) + EPOCH_SECONDS;
        // Infinity is out of range, too.
        if (seconds < TIMESTAMP_MIN || seconds > TIMESTAMP_MAX)
                return BINDING_BROKEN;
        Google__Protobuf__Timestamp *timestamp = arena_alloc(arena, sizeof *timestamp);
        if (!timestamp)
                return BINDING_TOO_MUCH;
        google__protobuf__timestamp__init(timestamp);
        timestamp->seconds = seconds;
        timestamp->nanos = (int32_t)(rest < 0 ? rest + MICROSECONDS : rest) * 1000;
        MEMBER(Google__Protobuf__Timestamp *) = timestamp;
        return BINDING_OK;
}

// A day of an interval is taken as 24 hours; a month has no length.
enum binding_status read_duration(const struct conversion *, void *member, char *data, size_t, struct arena *arena) {
        int64_t time = (int64_t)load_64(data), days = (int32_t)load_32(data + 8);
        if (load_32(data + 12))
                return BINDING_BROKEN;
        // Neither sum overflows: each part is far from the range's end.
        int64_t seconds = time / MICROSECONDS + days * 86400, rest = time % MICROSECONDS;
        if (seconds > 0 && rest < 0) {
                seconds--;
                rest += MICROSECONDS;
        } else if (seconds < 0 && rest > 0) {
                seconds++;
                rest -= MICROSECONDS;
        }
        if (seconds < -DURATION_MAX || seconds > DURATION_MAX)
                return BINDING_BROKEN;
        Google__Protobuf__Duration *duration = arena_alloc(arena, sizeof *duration);
        if (!duration)
                return BINDING_TOO_MUCH;
        google__protobuf__duration__init(duration);
        duration->seconds = seconds;
        duration->nanos = (int32_t)rest * 1000;
        MEMBER(Google__Protobuf__Duration *) = duration;
        return BINDING_OK;
}

// --- Maps ---

static void drop_json(json_t **json) { json_decref(*json); }

static enum binding_status read_entry(const ProtobufCMessageDescriptor *descriptor, const char *key,
        const json_t *value, struct arena *arena, ProtobufCMessage **ret_entry) {
        if (!json_is_string(value))
                return BINDING_BROKEN;
        ProtobufCMessage *entry = arena_alloc(arena, descriptor->sizeof_message);
        char *key_copy = arena_copy(arena, key, strlen(key));
        char *value_copy = arena_copy(arena, json_string_value(value), json_string_length(value));
        if (!entry || !key_copy || !value_copy)
                return BINDING_TOO_MUCH;
        protobuf_c_message_init(descriptor, entry);
        *(char **)((char *)entry + descriptor->fields[0].offset) = key_copy;
        *(char **)((char *)entry + descriptor->fields[1].offset) = value_copy;
        *ret_entry = entry;
        return BINDING_OK;
}

enum binding_status read_map(
        const struct conversion *conversion, void *member, char *data, size_t size, struct arena *arena) {
        if (!size || *data != JSONB_VERSION)
                return BINDING_BROKEN;
        json_t *map __attribute__((cleanup(drop_json))) = json_loadb(data + 1, size - 1, 0, NULL);
        if (!json_is_object(map))
                return BINDING_BROKEN;
        const ProtobufCFieldDescriptor *field = conversion->field;
        ProtobufCMessage **entries = arena_alloc(arena, json_object_size(map) * sizeof *entries);
        if (!entries)
                return BINDING_TOO_MUCH;
        size_t count = 0;
        const char *key;
        json_t *value;
        json_object_foreach(map, key, value) {
                enum binding_status status = read_entry(field->descriptor, key, value, arena, &entries[count]);
                if (status != BINDING_OK)
                        return status;
                count++;
        }
        MEMBER(ProtobufCMessage **) = entries;
        *(size_t *)((char *)member - field->offset + field->quantifier_offset) = count;
        return BINDING_OK;
}

// --- Messages in their wire form ---

// protobuf-c does not tell a malformed message from an arena that is full. Only a message that fits is ever stored, so
// it is taken for malformed.
enum binding_status read_message(
        const struct conversion *conversion, void *member, char *data, size_t size, struct arena *arena) {
        ProtobufCMessage *message = protobuf_c_message_unpack(
                conversion->field->descriptor, arena_protobuf_allocator(arena), size, (const uint8_t *)data);
        if (!message)
                return BINDING_BROKEN;
        MEMBER(ProtobufCMessage *) = message;
        return BINDING_OK;
}

// --- Arrays ---

// The header: dimensions, whether there are NULLs, the elements' type; for each dimension its size and lower bound.
enum { ARRAY_HEADER = 12, ARRAY_DIMENSION = 8 };

// The number of elements; false for a header that cannot be. Each element has 4 bytes of length at least.
static bool read_array_header(const struct conversion *conversion, const char *data, size_t size, size_t *ret_count) {
        *ret_count = 0;
        if (size < ARRAY_HEADER || load_32(data + 8) != conversion->type->oid)
                return false;
        if (!load_32(data))
                return size == ARRAY_HEADER;
        if (load_32(data) != 1 || size < ARRAY_HEADER + ARRAY_DIMENSION)
                return false;
        *ret_count = load_32(data + ARRAY_HEADER);
        return *ret_count <= (size - ARRAY_HEADER - ARRAY_DIMENSION) / 4;
}

// A value of any length needs a NUL behind it, and has the next one's length there.
static enum binding_status read_element(
        const struct conversion *conversion, void *member, char *data, size_t size, struct arena *arena) {
        if (conversion->type->width)
                return size == conversion->type->width ? conversion->read(conversion, member, data, size, arena)
                                                       : BINDING_BROKEN;
        char *copy = arena_copy(arena, data, size);
        return copy ? conversion->read(conversion, member, copy, size, arena) : BINDING_TOO_MUCH;
}

enum binding_status read_array(const struct conversion *conversion, size_t *ret_count, void **ret_elements, char *data,
        size_t size, struct arena *arena) {
        size_t count, element_size = field_element_size(conversion->field);
        if (!read_array_header(conversion, data, size, &count))
                return BINDING_BROKEN;
        char *elements = arena_alloc(arena, count * element_size), *end = data + size;
        if (!elements)
                return BINDING_TOO_MUCH;
        data += count ? ARRAY_HEADER + ARRAY_DIMENSION : ARRAY_HEADER;
        for (size_t i = 0; i < count; i++) {
                if (end - data < 4)
                        return BINDING_BROKEN;
                uint32_t length = load_32(data);
                data += 4;
                if (length > INT32_MAX || length > (size_t)(end - data))
                        return BINDING_BROKEN;
                enum binding_status status = read_element(conversion, elements + i * element_size, data, length, arena);
                if (status != BINDING_OK)
                        return status;
                data += length;
        }
        if (data != end)
                return BINDING_BROKEN;
        *ret_count = count;
        *ret_elements = elements;
        return BINDING_OK;
}
