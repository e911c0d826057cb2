// Plans where the parameters of a statement come from.
#include "storage/binder_private.h"

#include <google/protobuf/field_mask.pb-c.h>
#include <stdlib.h>
#include <string.h>

static const struct {
        const char *name;
        size_t index;
} texts[] = {
        {"organization_id", offsetof(struct binding_values, organization_id)},
        {"organization_slug", offsetof(struct binding_values, organization_slug)},
        {"caller_id", offsetof(struct binding_values, caller_id)},
        {"caller_subject", offsetof(struct binding_values, caller_subject)},
        {"caller_email", offsetof(struct binding_values, caller_email)},
        {"caller_kind", offsetof(struct binding_values, caller_kind)},
        {"caller_role", offsetof(struct binding_values, caller_role)},
        {"new_id", offsetof(struct binding_values, new_id)},
};

// Whether a parameter is `variable` with `_id` behind it.
static bool is_variable(const char *name, const char *variable) {
        size_t size = strlen(variable);
        return !strncmp(name, variable, size) && !strcmp(name + size, "_id");
}

static bool has_text_source(const struct binding *binding, const char *name, struct parameter *parameter) {
        const char *const *variables = binding->source.name_variables, *const *given = binding->source.given;
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                if (!strcmp(texts[i].name, name)) {
                        parameter->source = SOURCE_TEXT;
                        parameter->index = texts[i].index;
                        return true;
                }
        for (size_t i = 0; variables && variables[i]; i++)
                if (is_variable(name, variables[i])) {
                        parameter->source = SOURCE_NAME;
                        parameter->index = i;
                        return true;
                }
        for (size_t i = 0; given && given[i]; i++)
                if (!strcmp(given[i], name)) {
                        parameter->source = SOURCE_GIVEN;
                        parameter->index = i;
                        return true;
                }
        return false;
}

// The way to field `a__b` from a message, behind the steps that the parameter has. A FieldMask stands for its paths.
static bool has_field_source(const ProtobufCMessageDescriptor *message, const char *name, struct parameter *parameter) {
        for (const char *at = name;;) {
                const char *separator = strstr(at, "__");
                size_t size = separator ? (size_t)(separator - at) : strlen(at);
                const ProtobufCFieldDescriptor *field = find_field(message, at, size);
                if (!field || parameter->step_count == MAX_STEPS)
                        return false;
                bool is_mask = field->descriptor == &google__protobuf__field_mask__descriptor;
                if (separator && (!field_has_fields(field) || is_mask))
                        return false;
                if (separator && field->label == PROTOBUF_C_LABEL_REPEATED) {
                        if (parameter->repeated >= 0)
                                return false;
                        parameter->repeated = (int)parameter->step_count;
                }
                parameter->steps[parameter->step_count++] = field;
                if (separator) {
                        message = field->descriptor;
                        at = separator + 2;
                        continue;
                }
                if (is_mask && parameter->step_count < MAX_STEPS)
                        parameter->steps[parameter->step_count++] = &google__protobuf__field_mask__descriptor.fields[0];
                return true;
        }
}

// The request's field, or else that of the resource that it carries.
static bool has_request_source(const struct binding *binding, const char *name, struct parameter *parameter) {
        const ProtobufCMessageDescriptor *request = binding->source.request;
        parameter->source = SOURCE_FIELD;
        parameter->step_count = 0;
        parameter->repeated = -1;
        if (request && has_field_source(request, name, parameter))
                return true;
        const char *body = binding->source.body;
        const ProtobufCFieldDescriptor *resource = request && body ? find_field(request, body, strlen(body)) : NULL;
        parameter->steps[0] = resource;
        parameter->step_count = 1;
        parameter->repeated = -1;
        return resource && resource->label != PROTOBUF_C_LABEL_REPEATED && field_has_fields(resource) &&
               has_field_source(resource->descriptor, name, parameter);
}

static bool text_converts(enum pg_kind kind) {
        return kind == PG_TEXT || kind == PG_UUID || kind == PG_BYTEA || kind == PG_INT2 || kind == PG_INT4 ||
               kind == PG_INT8;
}

static bool field_converts(struct parameter *parameter, const struct pg_type *type, bool is_array) {
        const ProtobufCFieldDescriptor *field = parameter->steps[parameter->step_count - 1];
        bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED && !field_is_map(field);
        bool in_elements = parameter->repeated >= 0;
        if (is_array)
                parameter->source = SOURCE_ELEMENTS;
        return is_array == (repeated || in_elements) &&
               convert_find_write(field, type, /* as_json= */ repeated && in_elements, &parameter->conversion);
}

static void plan_from_key(const struct plan *plan, const char *name, Oid oid, const struct pg_type *type, bool is_array,
        struct parameter *parameter, struct problems *problems) {
        for (unsigned i = 0; i < plan->key_count; i++) {
                if (strcmp(plan->keys[i].name, name))
                        continue;
                parameter->source = SOURCE_KEY;
                parameter->index = i;
                // The texts' formats are the same.
                if (is_array || !type || type->kind != plan->keys[i].type->kind)
                        problem_type(problems, "parameter", name, oid, "from the column's", NULL);
                return;
        }
        problem(problems, "parameter \"%s\": no column of that name", name);
}

static void plan_parameter(
        const struct binding *binding, struct plan *plan, unsigned index, struct problems *problems) {
        const char *name = binding->text.parameters[index];
        struct parameter *parameter = &plan->parameters[index];
        Oid oid = PQparamtype(plan->description, (int)index);
        bool is_array = false;
        const struct pg_type *type = pg_type_find(oid, &is_array);
        parameter->conversion.type = type;
        if (binding->list && !strncmp(name, "after_", strlen("after_"))) {
                plan_from_key(plan, name, oid, type, is_array, parameter, problems);
        } else if (binding->list && !strcmp(name, "page_limit")) {
                parameter->source = SOURCE_PAGE_LIMIT;
                if (!type || is_array || type->kind != PG_INT8)
                        problem(problems, "parameter \"page_limit\": it is an int8");
        } else if (has_text_source(binding, name, parameter)) {
                if (!type || is_array || !text_converts(type->kind))
                        problem_type(problems, "parameter", name, oid, "from", NULL);
        } else if (!has_request_source(binding, name, parameter)) {
                problem(problems,
                        "parameter \"%s\": no variable of the resource name, no value of the call and no field of %s",
                        name, binding->source.request ? binding->source.request->short_name : "a request");
        } else if (!type || !field_converts(parameter, type, is_array)) {
                problem_type(problems, "parameter", name, oid, "from", parameter->steps[parameter->step_count - 1]);
        }
}

static bool has_parameter(const struct binding *binding, const char *name) {
        return sql_text_find(binding->text.parameters, binding->text.parameter_count, name, (unsigned)strlen(name)) >=
               0;
}

bool plan_parameters(const struct binding *binding, struct plan *plan, struct problems *problems) {
        plan->parameters = calloc((size_t)binding->text.parameter_count + 1, sizeof *plan->parameters);
        if (!plan->parameters)
                return false;
        for (unsigned i = 0; i < binding->text.parameter_count; i++)
                plan_parameter(binding, plan, i, problems);
        if (binding->list && !has_parameter(binding, "page_limit"))
                problem(problems, "a List needs parameter \"page_limit\"");
        for (unsigned i = 0; i < plan->key_count; i++)
                if (!has_parameter(binding, plan->keys[i].name))
                        problem(problems, "column \"%s\": no parameter of that name", plan->keys[i].name);
        return true;
}
