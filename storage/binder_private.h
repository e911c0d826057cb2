// What the binder's parts share. A binding is the parsed file and, once it is described, a plan: where each parameter
// comes from and where each column goes.
#pragma once

#include "storage/binder.h"
#include "storage/convert.h"
#include "storage/sql_text.h"
#include "storage/storage_private.h"

#include <stdio.h>

enum {
        MAX_STEPS = 8,   // from a message down to a field
        MAX_NESTED = 32, // messages in a row's message
        MAX_KEYS = 8,    // after_* columns
        MAX_PATH = 256,  // a dotted name
};

// A column of a List's sort key.
struct key {
        const char *name;
        int column;
        const struct pg_type *type;
};

enum source {
        SOURCE_TEXT,       // a member of binding_values, at `index`
        SOURCE_NAME,       // name_values[index]
        SOURCE_GIVEN,      // given[index]
        SOURCE_PAGE_LIMIT, //
        SOURCE_KEY,        // the cursor's value of keys[index]
        SOURCE_FIELD,      // a request field
        SOURCE_ELEMENTS,   // an array, of a repeated field or of all elements' field
};

struct parameter {
        enum source source;
        size_t index;
        struct conversion conversion; // text sources: its type alone
        // The way from the request to the field. With `repeated` (an index, or -1) the array's elements are in that
        // step.
        const ProtobufCFieldDescriptor *steps[MAX_STEPS];
        unsigned step_count;
        int repeated;
};

// A message in the row's message, made when one of its columns is not NULL.
struct nested {
        unsigned parent; // index of the message it is in
        const ProtobufCFieldDescriptor *field;
};

struct column {
        struct conversion conversion;
        int index;        // in the row
        unsigned message; // index of the message it is in: 0 the row's own
        unsigned width;   // the length that its values have; 0: any
        bool is_array;
};

struct plan {
        PGresult *description; // keeps the columns' names
        int result_count;
        Oid *result_types;
        struct parameter *parameters; // beside the text's
        struct column *columns;
        unsigned column_count;
        struct nested nested[MAX_NESTED + 1]; // the first one stands for the row's message
        unsigned nested_count;
        struct key keys[MAX_KEYS];
        unsigned key_count;
        int refusal; // column, or -1
        int *metadata;
        unsigned metadata_count;
};

struct binding {
        struct binding_source source;
        struct sql_text text;
        struct storage_statement statement;
        Oid parameter_types[MAX_PARAMETERS];
        const ProtobufCFieldDescriptor *list; // a List's repeated field; NULL for other responses
        struct plan *plan;                    // NULL: not described
};

// What is wrong with a file, a line for each.
struct problems {
        FILE *stream;
        PGconn *connection; // to ask for types' names
        const char *file;
        unsigned count;
};

__attribute__((format(printf, 2, 3))) void problem(struct problems *problems, const char *format, ...);

// A column or parameter whose type does not convert.
void problem_type(struct problems *problems, const char *what, const char *name, Oid type, const char *direction,
        const ProtobufCFieldDescriptor *field);

// Both add to the plan and report what does not fit. False: no memory. The rows come first, as parameters refer to
// keys.
bool plan_rows(const struct binding *binding, struct plan *plan, struct problems *problems);
bool plan_parameters(const struct binding *binding, struct plan *plan, struct problems *problems);

// The field whose name is the first `size` bytes of `name`, or NULL.
static inline const ProtobufCFieldDescriptor *find_field(
        const ProtobufCMessageDescriptor *message, const char *name, size_t size) {
        char text[MAX_PATH];
        if (size >= sizeof text)
                return NULL;
        memcpy(text, name, size);
        text[size] = '\0';
        return protobuf_c_message_descriptor_get_field_by_name(message, text);
}

// Whether a field is a message whose fields have columns or parameters of their own.
static inline bool field_has_fields(const ProtobufCFieldDescriptor *field) {
        return field->type == PROTOBUF_C_TYPE_MESSAGE && !field_is_map(field) && !field_is_timestamp(field) &&
               !field_is_duration(field);
}

static inline bool field_is_oneof(const ProtobufCFieldDescriptor *field) {
        return field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

// Whether a has_ member tells that the field is set (proto2).
static inline bool field_has_flag(const ProtobufCFieldDescriptor *field) {
        return field->label == PROTOBUF_C_LABEL_OPTIONAL && !field_is_oneof(field) &&
               field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE;
}
