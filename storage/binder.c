#include "storage/binder_private.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void clear_result(PGresult **result) { PQclear(*result); }
#define cleanup_result __attribute__((cleanup(clear_result)))

// --- Problems ---

void problem(struct problems *problems, const char *format, ...) {
        va_list arguments;
        fprintf(problems->stream, "%s%s: ", problems->count++ ? "\n" : "", problems->file);
        va_start(arguments, format);
        vfprintf(problems->stream, format, arguments);
        va_end(arguments);
}

static const char *const type_names[] = {
        [PROTOBUF_C_TYPE_INT32] = "int32",
        [PROTOBUF_C_TYPE_SINT32] = "sint32",
        [PROTOBUF_C_TYPE_SFIXED32] = "sfixed32",
        [PROTOBUF_C_TYPE_INT64] = "int64",
        [PROTOBUF_C_TYPE_SINT64] = "sint64",
        [PROTOBUF_C_TYPE_SFIXED64] = "sfixed64",
        [PROTOBUF_C_TYPE_UINT32] = "uint32",
        [PROTOBUF_C_TYPE_FIXED32] = "fixed32",
        [PROTOBUF_C_TYPE_UINT64] = "uint64",
        [PROTOBUF_C_TYPE_FIXED64] = "fixed64",
        [PROTOBUF_C_TYPE_FLOAT] = "float",
        [PROTOBUF_C_TYPE_DOUBLE] = "double",
        [PROTOBUF_C_TYPE_BOOL] = "bool",
        [PROTOBUF_C_TYPE_STRING] = "string",
        [PROTOBUF_C_TYPE_BYTES] = "bytes",
};

static const char *field_type_name(const ProtobufCFieldDescriptor *field) {
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
                return ((const ProtobufCMessageDescriptor *)field->descriptor)->short_name;
        if (field->type == PROTOBUF_C_TYPE_ENUM)
                return ((const ProtobufCEnumDescriptor *)field->descriptor)->short_name;
        return type_names[field->type];
}

void problem_type(struct problems *problems, const char *what, const char *name, Oid type, const char *direction,
        const ProtobufCFieldDescriptor *field) {
        char oid[16];
        snprintf(oid, sizeof oid, "%u", type);
        PGresult *result cleanup_result = PQexecParams(problems->connection, "SELECT format_type($1::oid, NULL)", 1,
                NULL, (const char *const[]){oid}, NULL, NULL, /* resultFormat= */ 0);
        const char *type_name = PQntuples(result) ? PQgetvalue(result, 0, 0) : oid;
        if (field)
                problem(problems, "%s \"%s\": type %s does not convert %s %s%s", what, name, type_name, direction,
                        field->label == PROTOBUF_C_LABEL_REPEATED ? "repeated " : "", field_type_name(field));
        else
                problem(problems, "%s \"%s\": type %s does not convert %s text", what, name, type_name, direction);
}

// PostgreSQL's message, with the line that it points to and parameters by their names.
static void problem_sql(struct problems *problems, const struct binding *binding, const PGresult *result) {
        const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
                   *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
        if (!message) {
                problem(problems, "%s", PQerrorMessage(problems->connection));
                return;
        }
        // A position counts characters, and parameters keep their line.
        long characters = position ? strtol(position, NULL, 10) : 0;
        unsigned line = 1;
        for (const char *at = binding->text.text; *at && characters > 1; at++) {
                characters -= (at[1] & 0xc0) != 0x80;
                line += *at == '\n';
        }
        problem(problems, "line %u: ", line);
        for (const char *at = message; *at; at++) {
                char *end;
                unsigned long number = *at == '$' ? strtoul(at + 1, &end, 10) : 0;
                if (number && number <= binding->text.parameter_count) {
                        fprintf(problems->stream, ":%s", binding->text.parameters[number - 1]);
                        at = end - 1;
                } else
                        fputc(*at, problems->stream);
        }
}

// --- Making and describing ---

static const ProtobufCFieldDescriptor *find_list(const ProtobufCMessageDescriptor *response) {
        const ProtobufCFieldDescriptor *list = NULL;
        unsigned lists = 0;
        for (unsigned i = 0; response && i < response->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &response->fields[i];
                if (field->label != PROTOBUF_C_LABEL_REPEATED || !field_has_fields(field))
                        continue;
                list = field;
                lists++;
        }
        return lists == 1 && protobuf_c_message_descriptor_get_field_by_name(response, "next_page_token") ? list : NULL;
}

struct binding *binding_new(const struct binding_source *source, char **ret_error) {
        unsigned line = 1;
        const char *what = "out of memory";
        struct binding *binding = calloc(1, sizeof *binding);
        if (!binding || !sql_text_read(source->sql, &binding->text, &line, &what))
                goto failed;
        if (binding->text.parameter_count > MAX_PARAMETERS) {
                what = "more parameters than a statement can have";
                goto failed;
        }
        binding->source = *source;
        binding->list = find_list(source->response);
        binding->statement = (struct storage_statement){
                .name = source->name,
                .text = binding->text.text,
                .lane = source->lane,
                .parameter_count = (int)binding->text.parameter_count,
        };
        return binding;
failed:
        if (asprintf(ret_error, "%s:%u: %s", source->file, line, what) < 0)
                *ret_error = NULL;
        binding_free(binding);
        return NULL;
}

static void plan_free(struct plan *plan) {
        if (!plan)
                return;
        PQclear(plan->description);
        free(plan->result_types);
        free(plan->parameters);
        free(plan->columns);
        free(plan->metadata);
        free(plan);
}

// The unnamed statement: one that is prepared under its own name does not stand in the way.
static PGresult *describe(struct binding *binding, struct problems *problems) {
        PGresult *prepared cleanup_result = PQprepare(
                problems->connection, "", binding->text.text, /* nParams= */ 0, NULL);
        if (PQresultStatus(prepared) != PGRES_COMMAND_OK) {
                problem_sql(problems, binding, prepared);
                return NULL;
        }
        PGresult *description = PQdescribePrepared(problems->connection, "");
        if (PQresultStatus(description) == PGRES_COMMAND_OK &&
                PQnparams(description) == (int)binding->text.parameter_count)
                return description;
        problem_sql(problems, binding, description);
        PQclear(description);
        return NULL;
}

static struct plan *make_plan(struct binding *binding, struct problems *problems) {
        struct plan *plan = calloc(1, sizeof *plan);
        if (!plan) {
                problem(problems, "out of memory");
                return NULL;
        }
        plan->refusal = -1;
        plan->description = describe(binding, problems);
        if (plan->description && (!plan_rows(binding, plan, problems) || !plan_parameters(binding, plan, problems)))
                problem(problems, "out of memory");
        if (!problems->count)
                return plan;
        plan_free(plan);
        return NULL;
}

bool binding_describe(struct binding *binding, PGconn *connection, char **ret_error) {
        size_t size;
        char *text = NULL;
        struct problems problems = {.connection = connection, .file = binding->source.file};
        problems.stream = open_memstream(&text, &size);
        struct plan *plan = problems.stream ? make_plan(binding, &problems) : NULL;
        if (problems.stream)
                fclose(problems.stream);
        if (!plan) {
                *ret_error = text;
                return false;
        }
        free(text);
        for (unsigned i = 0; i < binding->text.parameter_count; i++)
                binding->parameter_types[i] = PQparamtype(plan->description, (int)i);
        binding->statement.parameter_types = binding->parameter_types;
        plan_free(binding->plan);
        binding->plan = plan;
        return true;
}

const struct storage_statement *binding_statement(const struct binding *binding) { return &binding->statement; }

bool binding_is_list(const struct binding *binding) { return binding->list; }

void binding_free(struct binding *binding) {
        if (!binding)
                return;
        plan_free(binding->plan);
        sql_text_drop(&binding->text);
        free(binding);
}
