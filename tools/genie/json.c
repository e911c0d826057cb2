#include "tools/genie/json.h"

#include "google/protobuf/timestamp.pb-c.h"
#include "tools/genie/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static json_t *time_json(const Google__Protobuf__Timestamp *timestamp) {
        struct tm tm;
        time_t seconds = timestamp->seconds;
        char date[32], text[64];

        if (!gmtime_r(&seconds, &tm) || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
                return json_null();
        if (timestamp->nanos)
                snprintf(text, sizeof text, "%s.%06dZ", date, timestamp->nanos / 1000);
        else
                snprintf(text, sizeof text, "%sZ", date);
        return json_string(text);
}

static json_t *enum_json(const ProtobufCEnumDescriptor *type, int value) {
        const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(type, value);

        return row ? json_string(row->name) : json_integer(value);
}

json_t *json_text(const char *text) {
        json_t *value = json_string(text ? text : "");

        return value ? value : json_string("\xef\xbf\xbd");
}

static json_t *long_json(const char *format, ...) __attribute__((format(printf, 1, 2)));
static json_t *long_json(const char *format, ...) {
        char text[24];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        return json_string(text);
}

// One value; NULL for a message that is not set, and for a type that this API does not have (bytes, floats).
static json_t *value_json(const ProtobufCFieldDescriptor *field, const void *at) {
        switch (field->type) {
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
                return json_integer(*(const int32_t *)at);
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
                return json_integer(*(const uint32_t *)at);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
                return long_json("%" PRId64, *(const int64_t *)at);
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
                return long_json("%" PRIu64, *(const uint64_t *)at);
        case PROTOBUF_C_TYPE_BOOL:
                return json_boolean(*(const protobuf_c_boolean *)at);
        case PROTOBUF_C_TYPE_ENUM:
                return enum_json(field->descriptor, *(const int *)at);
        case PROTOBUF_C_TYPE_STRING:
                return json_text(*(char *const *)at);
        case PROTOBUF_C_TYPE_MESSAGE: {
                const ProtobufCMessage *message = *(ProtobufCMessage *const *)at;
                return message ? json_message(message) : NULL;
        }
        case PROTOBUF_C_TYPE_BYTES:
        case PROTOBUF_C_TYPE_FLOAT:
        case PROTOBUF_C_TYPE_DOUBLE:
                return NULL;
        }
        return NULL;
}

static size_t element_size(ProtobufCType type) {
        switch (type) {
        case PROTOBUF_C_TYPE_STRING:
        case PROTOBUF_C_TYPE_MESSAGE:
                return sizeof(void *);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_SFIXED64:
        case PROTOBUF_C_TYPE_UINT64:
        case PROTOBUF_C_TYPE_FIXED64:
        case PROTOBUF_C_TYPE_DOUBLE:
                return 8;
        case PROTOBUF_C_TYPE_BOOL:
                return sizeof(protobuf_c_boolean);
        case PROTOBUF_C_TYPE_BYTES:
                return sizeof(ProtobufCBinaryData);
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_SINT32:
        case PROTOBUF_C_TYPE_SFIXED32:
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_FIXED32:
        case PROTOBUF_C_TYPE_FLOAT:
        case PROTOBUF_C_TYPE_ENUM:
                return 4;
        }
        return sizeof(void *);
}

static json_t *field_json(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
        const char *base = (const char *)message, *at = base + field->offset;

        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
                bool other_case = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                                  *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id;
                return other_case ? NULL : value_json(field, at);
        }
        json_t *list = must(json_array());
        size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
        const char *elements = *(char *const *)(const void *)at;
        for (size_t i = 0; i < count; i++)
                json_array_append_new(list, value_json(field, elements + i * element_size(field->type)));
        return list;
}

static void camel_case(const char *name, char *ret_text, size_t size) {
        size_t at = 0;

        for (; *name && at + 1 < size; name++) {
                bool upper = name[0] == '_' && name[1] >= 'a' && name[1] <= 'z';
                if (upper)
                        name++;
                ret_text[at++] = (char)(upper ? *name - 'a' + 'A' : *name);
        }
        ret_text[at] = '\0';
}

json_t *json_message(const ProtobufCMessage *message) {
        if (message->descriptor == &google__protobuf__timestamp__descriptor)
                return time_json((const void *)message);
        json_t *object = must(json_object());
        for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
                char name[100];
                camel_case(field->name, name, sizeof name);
                json_t *value = field_json(message, field);
                if (value)
                        json_object_set_new(object, name, value);
        }
        return object;
}

void json_print(FILE *out, json_t *value) {
        json_dumpf(must(value), out, JSON_COMPACT | JSON_ENCODE_ANY | (isatty(fileno(out)) ? JSON_ENSURE_ASCII : 0));
        fputc('\n', out);
        json_decref(value);
}
