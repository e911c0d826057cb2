// Plans where the columns of a statement go in the response.
#include "storage/binder_private.h"

#include <stdlib.h>
#include <string.h>

static const ProtobufCMessageDescriptor *row_message(const struct binding *binding) {
        return binding->list ? binding->list->descriptor : binding->source.response;
}

static bool begins_with(const char *text, const char *prefix) { return !strncmp(text, prefix, strlen(prefix)); }

static int find_column(const struct plan *plan, const char *name) {
        for (int i = 0; i < plan->result_count; i++)
                if (!strcmp(PQfname(plan->description, i), name))
                        return i;
        return -1;
}

static bool is_unset(const struct binding *binding, const char *name) {
        return sql_text_find(binding->text.unset, binding->text.unset_count, name, (unsigned)strlen(name)) >= 0;
}

static bool has_columns_in(const struct plan *plan, const char *message) {
        size_t size = strlen(message);
        for (int i = 0; i < plan->result_count; i++)
                if (!strncmp(PQfname(plan->description, i), message, size) &&
                        PQfname(plan->description, i)[size] == '.')
                        return true;
        return false;
}

// --- Where each column goes ---

// The index of a message in the row's message; -1: there are too many.
static int find_nested(struct plan *plan, unsigned parent, const ProtobufCFieldDescriptor *field) {
        for (unsigned i = 1; i <= plan->nested_count; i++)
                if (plan->nested[i].parent == parent && plan->nested[i].field == field)
                        return (int)i;
        if (plan->nested_count == MAX_NESTED)
                return -1;
        plan->nested[++plan->nested_count] = (struct nested){.parent = parent, .field = field};
        return (int)plan->nested_count;
}

// The field of a dotted name and the index of the message it is in; NULL: reported.
static const ProtobufCFieldDescriptor *find_target(const struct binding *binding, struct plan *plan, const char *name,
        unsigned *ret_message, struct problems *problems) {
        const ProtobufCMessageDescriptor *message = row_message(binding);
        *ret_message = 0;
        for (const char *at = name;;) {
                size_t size = strcspn(at, ".");
                const ProtobufCFieldDescriptor *field = find_field(message, at, size);
                bool last = !at[size];
                if (!field || (!last && (field->label == PROTOBUF_C_LABEL_REPEATED || !field_has_fields(field)))) {
                        problem(problems, "column \"%s\": no such field in %s", name, row_message(binding)->short_name);
                        return NULL;
                }
                if (last)
                        return field;
                int nested = find_nested(plan, *ret_message, field);
                if (nested < 0) {
                        problem(problems, "column \"%s\": more than %d nested messages", name, MAX_NESTED);
                        return NULL;
                }
                *ret_message = (unsigned)nested;
                message = field->descriptor;
                at += size + 1;
        }
}

static void plan_field(const struct binding *binding, struct plan *plan, int index, struct problems *problems) {
        const char *name = PQfname(plan->description, index);
        struct column *column = &plan->columns[plan->column_count];
        const ProtobufCFieldDescriptor *field = find_target(binding, plan, name, &column->message, problems);
        if (!field)
                return;
        bool wants_array = field->label == PROTOBUF_C_LABEL_REPEATED && !field_is_map(field);
        Oid oid = plan->result_types[index];
        const struct pg_type *type = pg_type_find(oid, &column->is_array);
        bool is_wire = type && type->kind == PG_BYTEA && !wants_array && !has_columns_in(plan, name);
        if (field_has_fields(field) && !is_wire) {
                problem(problems,
                        "column \"%s\": %s message fields are filled by columns of their own, %sor not at all", name,
                        wants_array ? "repeated" : "a message's", wants_array ? "" : "or as a bytea, ");
                return;
        }
        if (!type || column->is_array != wants_array || !convert_find_read(field, type, &column->conversion)) {
                problem_type(problems, "column", name, oid, "to", field);
                return;
        }
        if (is_unset(binding, name))
                problem(problems, "column \"%s\": listed in `-- unset:`", name);
        column->index = index;
        column->width = wants_array ? 0 : type->width;
        plan->column_count++;
}

static void plan_key(struct plan *plan, int index, struct problems *problems) {
        const char *name = PQfname(plan->description, index);
        bool is_array = false;
        const struct pg_type *type = pg_type_find(plan->result_types[index], &is_array);
        if (!type || is_array)
                problem_type(problems, "column", name, plan->result_types[index], "to a cursor's", NULL);
        else if (plan->key_count == MAX_KEYS)
                problem(problems, "column \"%s\": more than %d columns after_*", name, MAX_KEYS);
        else
                plan->keys[plan->key_count++] = (struct key){.name = name, .column = index, .type = type};
}

// False where the column is none of the refusal's.
static bool plan_refusal(struct plan *plan, int index, struct problems *problems) {
        const char *name = PQfname(plan->description, index);
        bool is_array = false, is_reason = !strcmp(name, "refusal");
        if (!is_reason && !begins_with(name, "refusal_"))
                return false;
        const struct pg_type *type = pg_type_find(plan->result_types[index], &is_array);
        if (!type || is_array || type->kind != PG_TEXT)
                problem_type(problems, "column", name, plan->result_types[index], "to", NULL);
        else if (is_reason)
                plan->refusal = index;
        else
                plan->metadata[plan->metadata_count++] = index;
        return true;
}

static void plan_column(const struct binding *binding, struct plan *plan, int index, struct problems *problems) {
        const char *name = PQfname(plan->description, index);
        if (binding->source.response && find_column(plan, name) != index)
                problem(problems, "column \"%s\": there are several of this name", name);
        else if (plan_refusal(plan, index, problems) || !binding->source.response)
                return;
        else if (binding->list && begins_with(name, "after_"))
                plan_key(plan, index, problems);
        else
                plan_field(binding, plan, index, problems);
}

// --- That nothing is forgotten ---

// Reports the fields of a message, and of those in it that have columns, that nothing fills.
static void check_filled(const struct binding *binding, const struct plan *plan,
        const ProtobufCMessageDescriptor *message, const char *prefix, struct problems *problems) {
        for (unsigned i = 0; i < message->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &message->fields[i];
                char name[MAX_PATH];
                snprintf(name, sizeof name, "%s%s", prefix, field->name);
                if (is_unset(binding, name) || find_column(plan, name) >= 0)
                        continue;
                if (!has_columns_in(plan, name)) {
                        problem(problems, "field \"%s\" of %s: no column fills it, and no `-- unset:` lists it", name,
                                row_message(binding)->short_name);
                        continue;
                }
                char nested[MAX_PATH + 1];
                snprintf(nested, sizeof nested, "%s.", name);
                // A column that is no field's is reported already.
                if (field_has_fields(field) && field->label != PROTOBUF_C_LABEL_REPEATED)
                        check_filled(binding, plan, field->descriptor, nested, problems);
        }
}

static void check_list(const struct binding *binding, const struct plan *plan, struct problems *problems) {
        const ProtobufCMessageDescriptor *response = binding->source.response;
        for (unsigned i = 0; response && i < response->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &response->fields[i];
                if (field != binding->list && strcmp(field->name, "next_page_token") && !is_unset(binding, field->name))
                        problem(problems, "field \"%s\" of %s: no column fills it, and no `-- unset:` lists it",
                                field->name, response->short_name);
        }
        if (!plan->key_count)
                problem(problems, "a List needs its sort key as columns after_*");
}

// Each name of `-- unset:` must be a field's.
static void check_unset(const struct binding *binding, struct problems *problems) {
        for (unsigned i = 0; i < binding->text.unset_count; i++) {
                const char *name = binding->text.unset[i], *at = name;
                const ProtobufCMessageDescriptor *message = row_message(binding);
                const ProtobufCFieldDescriptor *field = NULL;
                if (binding->list && protobuf_c_message_descriptor_get_field_by_name(binding->source.response, name))
                        continue;
                for (size_t size; message; at += size + 1) {
                        size = strcspn(at, ".");
                        field = find_field(message, at, size);
                        message = field && at[size] && field_has_fields(field) ? field->descriptor : NULL;
                        if (field && at[size] && !message)
                                field = NULL;
                }
                if (!field)
                        problem(problems, "`-- unset:` names \"%s\": no such field in %s", name,
                                row_message(binding) ? row_message(binding)->short_name : "the response: it has none");
        }
}

bool plan_rows(const struct binding *binding, struct plan *plan, struct problems *problems) {
        plan->result_count = PQnfields(plan->description);
        size_t count = (size_t)plan->result_count + 1;
        plan->result_types = calloc(count, sizeof *plan->result_types);
        plan->columns = calloc(count, sizeof *plan->columns);
        plan->metadata = calloc(count, sizeof *plan->metadata);
        if (!plan->result_types || !plan->columns || !plan->metadata)
                return false;
        for (int i = 0; i < plan->result_count; i++)
                plan->result_types[i] = PQftype(plan->description, i);
        for (int i = 0; i < plan->result_count; i++)
                plan_column(binding, plan, i, problems);
        check_unset(binding, problems);
        if (binding->source.response)
                check_filled(binding, plan, row_message(binding), "", problems);
        if (binding->list)
                check_list(binding, plan, problems);
        return true;
}
