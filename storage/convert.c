#include "storage/convert_private.h"

#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/timestamp.pb-c.h>
#include <string.h>

// OIDs as PostgreSQL's pg_type.dat fixes them.
static const struct pg_type types[] = {
        {16, 1000, PG_BOOL, 1},
        {17, 1001, PG_BYTEA, 0},
        {19, 1003, PG_TEXT, 0},
        {20, 1016, PG_INT8, 8},
        {21, 1005, PG_INT2, 2},
        {23, 1007, PG_INT4, 4},
        {25, 1009, PG_TEXT, 0},
        {114, 199, PG_JSON, 0},
        {700, 1021, PG_FLOAT4, 4},
        {701, 1022, PG_FLOAT8, 8},
        {1043, 1015, PG_TEXT, 0},
        {1184, 1185, PG_TIMESTAMPTZ, 8},
        {1186, 1187, PG_INTERVAL, 16},
        {2950, 2951, PG_UUID, 16},
        {3802, 3807, PG_JSONB, 0},
};

const struct pg_type *pg_type_find(Oid oid, bool *ret_is_array) {
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
                if (types[i].oid == oid || types[i].array_oid == oid) {
                        *ret_is_array = types[i].array_oid == oid;
                        return &types[i];
                }
        return NULL;
}

// What a field has, one value of it.
enum value_class {
        CLASS_NONE,
        CLASS_BOOL,
        CLASS_INT32,
        CLASS_UINT32,
        CLASS_INT64,
        CLASS_UINT64,
        CLASS_FLOAT,
        CLASS_DOUBLE,
        CLASS_ENUM,
        CLASS_STRING,
        CLASS_STRINGS, // a repeated string as one JSON array
        CLASS_BYTES,
        CLASS_TIMESTAMP,
        CLASS_DURATION,
        CLASS_MAP,
        CLASS_MESSAGE,
};

static const struct {
        enum value_class class;
        size_t size;
} classes[] = {
        [PROTOBUF_C_TYPE_INT32] = {CLASS_INT32, sizeof(int32_t)},
        [PROTOBUF_C_TYPE_SINT32] = {CLASS_INT32, sizeof(int32_t)},
        [PROTOBUF_C_TYPE_SFIXED32] = {CLASS_INT32, sizeof(int32_t)},
        [PROTOBUF_C_TYPE_INT64] = {CLASS_INT64, sizeof(int64_t)},
        [PROTOBUF_C_TYPE_SINT64] = {CLASS_INT64, sizeof(int64_t)},
        [PROTOBUF_C_TYPE_SFIXED64] = {CLASS_INT64, sizeof(int64_t)},
        [PROTOBUF_C_TYPE_UINT32] = {CLASS_UINT32, sizeof(uint32_t)},
        [PROTOBUF_C_TYPE_FIXED32] = {CLASS_UINT32, sizeof(uint32_t)},
        [PROTOBUF_C_TYPE_UINT64] = {CLASS_UINT64, sizeof(uint64_t)},
        [PROTOBUF_C_TYPE_FIXED64] = {CLASS_UINT64, sizeof(uint64_t)},
        [PROTOBUF_C_TYPE_FLOAT] = {CLASS_FLOAT, sizeof(float)},
        [PROTOBUF_C_TYPE_DOUBLE] = {CLASS_DOUBLE, sizeof(double)},
        [PROTOBUF_C_TYPE_BOOL] = {CLASS_BOOL, sizeof(protobuf_c_boolean)},
        [PROTOBUF_C_TYPE_ENUM] = {CLASS_ENUM, sizeof(int)},
        [PROTOBUF_C_TYPE_STRING] = {CLASS_STRING, sizeof(char *)},
        [PROTOBUF_C_TYPE_BYTES] = {CLASS_BYTES, sizeof(ProtobufCBinaryData)},
        [PROTOBUF_C_TYPE_MESSAGE] = {CLASS_NONE, sizeof(ProtobufCMessage *)},
};

bool field_is_timestamp(const ProtobufCFieldDescriptor *field) {
        return field->descriptor == &google__protobuf__timestamp__descriptor;
}

bool field_is_duration(const ProtobufCFieldDescriptor *field) {
        return field->descriptor == &google__protobuf__duration__descriptor;
}

// Whether an entry's name is the field's in camel case and `Entry`, as protoc names the entries of maps.
static bool is_entry_name(const char *entry, const char *field) {
        for (bool upper = true; *field; field++) {
                if (*field == '_') {
                        upper = true;
                        continue;
                }
                char c = upper && *field >= 'a' && *field <= 'z' ? (char)(*field - 'a' + 'A') : *field;
                if (*entry++ != c)
                        return false;
                upper = false;
        }
        return !strcmp(entry, "Entry");
}

// protobuf-c does not tell that a message is a map's entry.
bool field_is_map(const ProtobufCFieldDescriptor *field) {
        if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
                return false;
        const ProtobufCMessageDescriptor *entry = field->descriptor;
        return entry->n_fields == 2 && is_entry_name(entry->short_name, field->name) &&
               !strcmp(entry->fields[0].name, "key") && entry->fields[0].type == PROTOBUF_C_TYPE_STRING &&
               !strcmp(entry->fields[1].name, "value") && entry->fields[1].type == PROTOBUF_C_TYPE_STRING;
}

size_t field_element_size(const ProtobufCFieldDescriptor *field) { return classes[field->type].size; }

static enum value_class class_of(const ProtobufCFieldDescriptor *field) {
        if (field_is_map(field))
                return CLASS_MAP;
        if (field_is_timestamp(field))
                return CLASS_TIMESTAMP;
        if (field_is_duration(field))
                return CLASS_DURATION;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED)
                return CLASS_MESSAGE;
        return classes[field->type].class;
}

#define ONE(kind) (1u << (kind))
#define INTEGERS (ONE(PG_INT2) | ONE(PG_INT4) | ONE(PG_INT8))
#define FLOATS (ONE(PG_FLOAT4) | ONE(PG_FLOAT8))

static const struct {
        enum value_class class;
        unsigned kinds;
        read_value *read;
        write_value *write;
} conversions[] = {
        {CLASS_STRING, ONE(PG_TEXT), read_text, write_text},
        {CLASS_STRING, ONE(PG_UUID), read_uuid, write_uuid},
        {CLASS_STRING, ONE(PG_JSON), read_text, NULL},
        {CLASS_STRING, ONE(PG_JSONB), read_jsonb, write_jsonb},
        {CLASS_BYTES, ONE(PG_BYTEA), read_bytes, write_bytes},
        {CLASS_BOOL, ONE(PG_BOOL), read_bool, write_bool},
        {CLASS_INT32, INTEGERS, read_int32, write_int32},
        {CLASS_UINT32, INTEGERS, read_uint32, write_uint32},
        {CLASS_INT64, INTEGERS, read_int64, write_int64},
        {CLASS_UINT64, INTEGERS, read_uint64, write_uint64},
        {CLASS_FLOAT, FLOATS, read_float, write_float},
        {CLASS_DOUBLE, FLOATS, read_double, write_double},
        {CLASS_ENUM, ONE(PG_TEXT), read_enum_name, write_enum_name},
        {CLASS_ENUM, ONE(PG_INT2) | ONE(PG_INT4), read_enum_number, write_enum_number},
        {CLASS_TIMESTAMP, ONE(PG_TIMESTAMPTZ), read_timestamp, write_timestamp},
        {CLASS_DURATION, ONE(PG_INTERVAL), read_duration, write_duration},
        {CLASS_MAP, ONE(PG_JSONB), read_map, write_map},
        {CLASS_MESSAGE, ONE(PG_BYTEA), read_message, write_message},
        {CLASS_STRINGS, ONE(PG_JSONB), NULL, write_strings},
};

static bool find(enum value_class class, const ProtobufCFieldDescriptor *field, const struct pg_type *type,
        struct conversion *ret_conversion) {
        for (size_t i = 0; i < sizeof conversions / sizeof *conversions; i++)
                if (conversions[i].class == class && conversions[i].kinds & ONE(type->kind)) {
                        *ret_conversion = (struct conversion){.type = type,
                                .field = field,
                                .read = conversions[i].read,
                                .write = conversions[i].write};
                        return true;
                }
        return false;
}

bool convert_find_read(
        const ProtobufCFieldDescriptor *field, const struct pg_type *type, struct conversion *ret_conversion) {
        return find(class_of(field), field, type, ret_conversion) && ret_conversion->read;
}

bool convert_find_write(const ProtobufCFieldDescriptor *field, const struct pg_type *type, bool as_json,
        struct conversion *ret_conversion) {
        enum value_class class = class_of(field);
        if (as_json && class != CLASS_STRING)
                return false;
        return find(as_json ? CLASS_STRINGS : class, field, type, ret_conversion) && ret_conversion->write;
}
