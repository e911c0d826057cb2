// Fills responses from rows, by the plan.
#include "storage/binder_private.h"

#include <assert.h>
#include <string.h>

// Whether the result is what was described: a connection that was made later may have prepared the statement on
// another schema.
static bool is_as_described(const struct plan *plan, const PGresult *result) {
        if (PQnfields(result) != plan->result_count || (plan->result_count && !PQbinaryTuples(result)))
                return false;
        for (int i = 0; i < plan->result_count; i++)
                if (PQftype(result, i) != plan->result_types[i])
                        return false;
        return true;
}

static char *at(ProtobufCMessage *message, unsigned offset) { return (char *)message + offset; }

// Notes that a oneof's or a proto2 field is set. False where the oneof has another one already.
static bool mark_set(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
        if (field_has_flag(field))
                *(protobuf_c_boolean *)(void *)at(message, field->quantifier_offset) = true;
        if (!field_is_oneof(field))
                return true;
        uint32_t *which = (void *)at(message, field->quantifier_offset);
        if (*which && *which != field->id)
                return false;
        *which = field->id;
        return true;
}

// Makes a message in the row's message, and those it is in.
static enum binding_status open_nested(
        const struct plan *plan, unsigned index, ProtobufCMessage **messages, struct arena *arena) {
        const struct nested *nested = &plan->nested[index];
        if (!messages[nested->parent]) {
                enum binding_status status = open_nested(plan, nested->parent, messages, arena);
                if (status != BINDING_OK)
                        return status;
        }
        const ProtobufCMessageDescriptor *descriptor = nested->field->descriptor;
        ProtobufCMessage *parent = messages[nested->parent], *message = arena_alloc(arena, descriptor->sizeof_message);
        if (!message)
                return BINDING_TOO_MUCH;
        protobuf_c_message_init(descriptor, message);
        if (!mark_set(parent, nested->field))
                return BINDING_BROKEN;
        *(ProtobufCMessage **)(void *)at(parent, nested->field->offset) = message;
        messages[index] = message;
        return BINDING_OK;
}

static enum binding_status read_value_of(
        const struct column *column, ProtobufCMessage *message, char *data, size_t size, struct arena *arena) {
        const struct conversion *conversion = &column->conversion;
        const ProtobufCFieldDescriptor *field = conversion->field;
        void *member = at(message, field->offset);
        if (column->is_array)
                return read_array(conversion, (void *)at(message, field->quantifier_offset), member, data, size, arena);
        if ((column->width && size != column->width) || !mark_set(message, field))
                return BINDING_BROKEN;
        return conversion->read(conversion, member, data, size, arena);
}

static enum binding_status read_row(
        const struct plan *plan, const PGresult *result, int row, struct arena *arena, ProtobufCMessage *ret_message) {
        ProtobufCMessage *messages[MAX_NESTED + 1];
        memset(messages, 0, (plan->nested_count + 1) * sizeof *messages);
        messages[0] = ret_message;
        for (const struct column *column = plan->columns; column < plan->columns + plan->column_count; column++) {
                int size = PQgetlength(result, row, column->index);
                if (!size && PQgetisnull(result, row, column->index))
                        continue;
                enum binding_status status = BINDING_OK;
                if (!messages[column->message])
                        status = open_nested(plan, column->message, messages, arena);
                if (status == BINDING_OK)
                        status = read_value_of(column, messages[column->message],
                                PQgetvalue(result, row, column->index), (size_t)size, arena);
                if (status != BINDING_OK)
                        return status;
        }
        return BINDING_OK;
}

static enum binding_status read_list(const struct binding *binding, const PGresult *result, size_t count,
        struct arena *arena, ProtobufCMessage *response) {
        const ProtobufCMessageDescriptor *descriptor = binding->list->descriptor;
        ProtobufCMessage **rows = arena_alloc(arena, count * sizeof *rows);
        if (!rows)
                return BINDING_TOO_MUCH;
        for (size_t i = 0; i < count; i++) {
                rows[i] = arena_alloc(arena, descriptor->sizeof_message);
                if (!rows[i])
                        return BINDING_TOO_MUCH;
                protobuf_c_message_init(descriptor, rows[i]);
                enum binding_status status = read_row(binding->plan, result, (int)i, arena, rows[i]);
                if (status != BINDING_OK)
                        return status;
        }
        *(ProtobufCMessage ***)(void *)at(response, binding->list->offset) = rows;
        *(size_t *)(void *)at(response, binding->list->quantifier_offset) = count;
        return BINDING_OK;
}

enum binding_status binding_response(const struct binding *binding, const PGresult *result, long page_size,
        struct arena *arena, ProtobufCMessage *response) {
        assert(binding->plan && binding->source.response == response->descriptor);
        long count = PQntuples(result);
        if (!is_as_described(binding->plan, result))
                return BINDING_BROKEN;
        if (binding->list)
                return read_list(binding, result, (size_t)(count < page_size ? count : page_size), arena, response);
        return count ? read_row(binding->plan, result, 0, arena, response) : BINDING_BROKEN;
}

// --- Refusals and cursors ---

const char *binding_refusal(const struct binding *binding, const PGresult *result) {
        const struct plan *plan = binding->plan;
        if (plan->refusal < 0 || !PQntuples(result) || !is_as_described(plan, result) ||
                PQgetisnull(result, 0, plan->refusal))
                return NULL;
        return PQgetvalue(result, 0, plan->refusal);
}

unsigned binding_refusal_metadata(const struct binding *binding, const PGresult *result, unsigned max,
        const char **ret_names, const char **ret_values) {
        const struct plan *plan = binding->plan;
        unsigned count = 0;
        if (!PQntuples(result) || !is_as_described(plan, result))
                return 0;
        for (unsigned i = 0; i < plan->metadata_count && count < max; i++) {
                if (PQgetisnull(result, 0, plan->metadata[i]))
                        continue;
                ret_names[count] = PQfname(plan->description, plan->metadata[i]) + strlen("refusal_");
                ret_values[count++] = PQgetvalue(result, 0, plan->metadata[i]);
        }
        return count;
}

static void put_cursor(const struct plan *plan, const PGresult *result, int row, struct output *output) {
        for (const struct key *key = plan->keys; key < plan->keys + plan->key_count; key++) {
                int size = PQgetlength(result, row, key->column);
                put_32(output, (uint32_t)size);
                put(output, PQgetvalue(result, row, key->column), (size_t)size);
        }
}

// A sort key without a value has no place in the order.
static bool has_cursor(const struct plan *plan, const PGresult *result, int row) {
        for (const struct key *key = plan->keys; key < plan->keys + plan->key_count; key++)
                if (PQgetisnull(result, row, key->column) ||
                        (key->type->width && PQgetlength(result, row, key->column) != (int)key->type->width))
                        return false;
        return true;
}

enum binding_status binding_cursor(const struct binding *binding, const PGresult *result, long page_size,
        struct arena *arena, const char **ret_cursor, size_t *ret_size) {
        const struct plan *plan = binding->plan;
        struct output output = {0};
        if (!binding->list || !is_as_described(plan, result))
                return BINDING_BROKEN;
        if (PQntuples(result) <= page_size) {
                *ret_cursor = NULL;
                *ret_size = 0;
                return BINDING_OK;
        }
        int row = (int)page_size - 1;
        if (row < 0 || !has_cursor(plan, result, row))
                return BINDING_BROKEN;
        put_cursor(plan, result, row, &output);
        output.data = arena_alloc(arena, output.size);
        output.size = 0;
        if (!output.data)
                return BINDING_TOO_MUCH;
        put_cursor(plan, result, row, &output);
        *ret_cursor = output.data;
        *ret_size = output.size;
        return BINDING_OK;
}
