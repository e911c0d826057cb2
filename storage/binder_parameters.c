// Fills the parameters of a call, by the plan.
#include "storage/binder_private.h"
#include "storage/uuid.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

// --- The request's fields ---

// What fills the parameters of one call.
struct filling {
        const struct binding *binding;
        const struct binding_values *values;
        const ProtobufCMessage *request;
        struct arena *arena;
        struct storage_value keys[MAX_KEYS]; // from the cursor
        const char *field, *reason;          // for BINDING_INVALID
};

// Where the field's value is; NULL: it is not set.
static const void *find_member(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
        const char *base = (const char *)message;
        const void *quantifier = base + field->quantifier_offset, *member = base + field->offset;
        if (field_is_oneof(field) && *(const uint32_t *)quantifier != field->id)
                return NULL;
        if (field_has_flag(field) && !*(const protobuf_c_boolean *)quantifier)
                return NULL;
        bool is_pointer = field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE;
        if (is_pointer && field->label != PROTOBUF_C_LABEL_REPEATED && !*(const void *const *)member)
                return NULL;
        return member;
}

// Follows steps from a message to the last one's member; NULL: it is not set.
static const void *follow(
        const ProtobufCMessage *message, const ProtobufCFieldDescriptor *const *steps, unsigned count) {
        for (unsigned i = 0; i < count - 1 && message; i++) {
                const void *member = find_member(message, steps[i]);
                message = member ? *(const ProtobufCMessage *const *)member : NULL;
        }
        return message ? find_member(message, steps[count - 1]) : NULL;
}

// The elements of an array: those of the repeated field at the end of the way, or those of the repeated message in it,
// from which the rest of the way is gone.
struct elements {
        const char *first;
        size_t count, size;
        const ProtobufCFieldDescriptor *const *rest;
        unsigned rest_count;
};

// False: the repeated field's message is not set.
static bool find_elements(
        const struct parameter *parameter, const ProtobufCMessage *request, struct elements *ret_elements) {
        unsigned at = parameter->repeated >= 0 ? (unsigned)parameter->repeated : parameter->step_count - 1;
        const ProtobufCFieldDescriptor *field = parameter->steps[at];
        const char *member = follow(request, parameter->steps, at + 1);
        if (!member)
                return false;
        *ret_elements = (struct elements){
                .first = *(const char *const *)(const void *)member,
                .count = *(const size_t *)(const void *)(member - field->offset + field->quantifier_offset),
                .size = field_element_size(field),
                .rest = parameter->steps + at + 1,
                .rest_count = parameter->step_count - at - 1,
        };
        return true;
}

static const void *find_element(const struct elements *elements, size_t index) {
        const char *element = elements->first + index * elements->size;
        if (!elements->rest_count)
                return element;
        return follow(*(const ProtobufCMessage *const *)(const void *)element, elements->rest, elements->rest_count);
}

// Writes a value behind its length; -1 is NULL.
static enum binding_status put_element(const struct conversion *conversion, const void *member, struct output *output) {
        size_t at = output->size;
        put_32(output, 0);
        output->is_null = !member;
        enum binding_status status = member ? conversion->write(conversion, member, output) : BINDING_OK;
        uint32_t length = htobe32(output->is_null ? UINT32_MAX : (uint32_t)(output->size - at - sizeof length));
        if (output->data)
                memcpy(output->data + at, &length, sizeof length);
        return status;
}

static enum binding_status put_array(const struct conversion *conversion, const struct elements *elements,
        struct output *output, size_t *ret_index) {
        put_32(output, elements->count > 0); // dimensions
        put_32(output, 0);                   // whether there are NULLs: PostgreSQL looks for itself
        put_32(output, conversion->type->oid);
        if (elements->count) {
                put_32(output, (uint32_t)elements->count);
                put_32(output, 1); // the first one's index
        }
        for (size_t i = 0; i < elements->count; i++) {
                enum binding_status status = put_element(conversion, find_element(elements, i), output);
                if (status != BINDING_OK) {
                        *ret_index = i;
                        return status;
                }
        }
        output->is_null = false;
        return BINDING_OK;
}

// Names the field of a value that is refused, such as `evaluations[3].severity`.
static enum binding_status refuse_field(
        struct filling *filling, const struct parameter *parameter, const char *reason, size_t index) {
        char name[MAX_PATH];
        size_t used = 0;
        unsigned in = parameter->repeated >= 0 ? (unsigned)parameter->repeated : parameter->step_count - 1;
        bool is_array = parameter->source == SOURCE_ELEMENTS;
        for (unsigned i = 0; i < parameter->step_count && used < sizeof name; i++) {
                int size = snprintf(name + used, sizeof name - used, "%s%s", i ? "." : "", parameter->steps[i]->name);
                used += (size_t)size;
                if (is_array && i == in && used < sizeof name)
                        used += (size_t)snprintf(name + used, sizeof name - used, "[%zu]", index);
        }
        filling->field = arena_printf(filling->arena, "%s", name);
        filling->reason = reason;
        return filling->field ? BINDING_INVALID : BINDING_TOO_MUCH;
}

// Written twice: to learn the size, and into memory of that size.
static enum binding_status fill_converted(
        struct filling *filling, const struct parameter *parameter, struct storage_value *ret_value) {
        const struct conversion *conversion = &parameter->conversion;
        struct output output = {.arena = filling->arena};
        struct elements elements = {0};
        const void *member = NULL;
        size_t index = 0;
        if (parameter->source == SOURCE_ELEMENTS
                        ? !find_elements(parameter, filling->request, &elements)
                        : !(member = follow(filling->request, parameter->steps, parameter->step_count)))
                return BINDING_OK;
        if (member && convert_in_place(conversion, member, ret_value))
                return BINDING_OK;
        for (;;) {
                enum binding_status status = member ? conversion->write(conversion, member, &output)
                                                    : put_array(conversion, &elements, &output, &index);
                if (status == BINDING_INVALID)
                        return refuse_field(filling, parameter, output.reason, index);
                if (status != BINDING_OK || output.is_null)
                        return status;
                if (output.data)
                        break;
                output.data = output.size <= INT_MAX ? arena_alloc(filling->arena, output.size + 1) : NULL;
                if (!output.data)
                        return BINDING_TOO_MUCH;
                output.size = 0;
        }
        *ret_value = (struct storage_value){.data = output.data, .length = (int)output.size};
        return BINDING_OK;
}

// --- What comes as text, and the page ---

static bool put_decimal(struct output *output, unsigned width, const char *text, size_t size) {
        char copy[24], *end;
        if (!size || size >= sizeof copy)
                return false;
        memcpy(copy, text, size);
        copy[size] = '\0';
        errno = 0;
        long long value = strtoll(copy, &end, 10);
        return !errno && !*end && put_integer(output, width, value);
}

// Into ret_value, which is SQL NULL before. Empty text is NULL but where text is asked for.
static enum binding_status fill_from_text(struct filling *filling, const struct pg_type *type, const char *text,
        size_t size, struct storage_value *ret_value) {
        if (type->kind == PG_TEXT || type->kind == PG_BYTEA) {
                *ret_value = (struct storage_value){.data = text, .length = (int)size};
                return BINDING_OK;
        }
        if (!size)
                return BINDING_OK;
        struct output output = {.data = arena_alloc(filling->arena, UUID_BYTES)};
        if (!output.data)
                return BINDING_TOO_MUCH;
        bool fits = type->kind == PG_UUID ? uuid_from_text(text, size, (unsigned char *)output.data)
                                          : put_decimal(&output, type->width, text, size);
        if (!fits)
                return BINDING_BROKEN;
        *ret_value = (struct storage_value){.data = output.data, .length = (int)type->width};
        return BINDING_OK;
}

static enum binding_status fill_from_string(
        struct filling *filling, const struct pg_type *type, const char *text, struct storage_value *ret_value) {
        return text ? fill_from_text(filling, type, text, strlen(text), ret_value) : BINDING_OK;
}

static enum binding_status fill_from_name(
        struct filling *filling, const struct parameter *parameter, struct storage_value *ret_value) {
        const char *const *names = filling->values->name_values;
        enum binding_status status = fill_from_string(
                filling, parameter->conversion.type, names ? names[parameter->index] : NULL, ret_value);
        if (status != BINDING_BROKEN)
                return status;
        filling->field = "name";
        filling->reason = "has a part that is not a UUID";
        return BINDING_INVALID;
}

static enum binding_status fill_from_given(
        struct filling *filling, const struct parameter *parameter, struct storage_value *ret_value) {
        const struct storage_value *given = filling->values->given;
        if (!given || !given[parameter->index].data)
                return BINDING_OK;
        return fill_from_text(filling, parameter->conversion.type, given[parameter->index].data,
                (size_t)given[parameter->index].length, ret_value);
}

static enum binding_status fill_page_limit(struct filling *filling, struct storage_value *ret_value) {
        struct output output = {.data = arena_alloc(filling->arena, sizeof(int64_t))};
        if (!output.data)
                return BINDING_TOO_MUCH;
        put_64(&output, (uint64_t)filling->values->page_size + 1);
        *ret_value = (struct storage_value){.data = output.data, .length = (int)output.size};
        return BINDING_OK;
}

// Takes the cursor apart: for each key its length and its value.
static bool read_cursor(struct filling *filling) {
        const struct plan *plan = filling->binding->plan;
        const char *at = filling->values->cursor, *end = at + filling->values->cursor_size;
        for (unsigned i = 0; i < plan->key_count; i++) {
                if ((size_t)(end - at) < sizeof(uint32_t))
                        return false;
                uint32_t length = load_32(at), width = plan->keys[i].type->width;
                at += sizeof length;
                if (length > INT_MAX || length > (size_t)(end - at) || (width && length != width))
                        return false;
                filling->keys[i] = (struct storage_value){.data = at, .length = (int)length};
                at += length;
        }
        return at == end;
}

// --- All of them ---

static enum binding_status fill(
        struct filling *filling, const struct parameter *parameter, struct storage_value *ret_value) {
        switch (parameter->source) {
        case SOURCE_TEXT:
                return fill_from_string(filling, parameter->conversion.type,
                        *(const char *const *)(const void *)((const char *)filling->values + parameter->index),
                        ret_value);
        case SOURCE_NAME:
                return fill_from_name(filling, parameter, ret_value);
        case SOURCE_GIVEN:
                return fill_from_given(filling, parameter, ret_value);
        case SOURCE_PAGE_LIMIT:
                return fill_page_limit(filling, ret_value);
        case SOURCE_KEY:
                *ret_value = filling->keys[parameter->index];
                return BINDING_OK;
        case SOURCE_FIELD:
        case SOURCE_ELEMENTS:
                break;
        }
        return fill_converted(filling, parameter, ret_value);
}

enum binding_status binding_parameters(const struct binding *binding, const ProtobufCMessage *request,
        const struct binding_values *values, struct arena *arena, const struct storage_value **ret_parameters,
        const char **ret_field, const char **ret_reason) {
        assert(binding->plan &&
                (!request || !binding->source.request || request->descriptor == binding->source.request));
        unsigned count = binding->text.parameter_count;
        struct filling filling = {.binding = binding, .values = values, .request = request, .arena = arena};
        struct storage_value *parameters = arena_alloc(arena, (count + 1) * sizeof *parameters);
        if (!parameters)
                return BINDING_TOO_MUCH;
        if (values->cursor && !read_cursor(&filling))
                return BINDING_BROKEN;
        for (unsigned i = 0; i < count; i++) {
                enum binding_status status = fill(&filling, &binding->plan->parameters[i], &parameters[i]);
                if (status == BINDING_INVALID) {
                        *ret_field = filling.field;
                        *ret_reason = filling.reason;
                }
                if (status != BINDING_OK)
                        return status;
        }
        *ret_parameters = parameters;
        return BINDING_OK;
}
