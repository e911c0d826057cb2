// A database, an arena, and short ways to make, describe and run a binding.
#pragma once

#include "storage/binder.h"
#include "tests/integration/database.h"
#include "tests/unit/cmocka_all.h"

#include <google/protobuf/timestamp.pb-c.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define UUID_A "0190a5b2-7c3d-7e4f-8a1b-0123456789ab"
#define UUID_B "ffffffff-ffff-ffff-ffff-ffffffffffff"

static struct database database;
static struct arena arena;

static inline int new_arena(void **) {
        arena_init(&arena, 16 << 20);
        return 0;
}

static inline int drop_arena(void **) {
        arena_drop(&arena, false);
        return 0;
}

// NULL with *ret_error where it cannot be made or described.
static inline struct binding *try_binding(const struct binding_source *source, char **ret_error) {
        *ret_error = NULL;
        struct binding *binding = binding_new(source, ret_error);
        if (!binding || binding_describe(binding, database.admin, ret_error))
                return binding;
        binding_free(binding);
        return NULL;
}

static inline struct binding *make_binding(const struct binding_source *source) {
        char *error;
        struct binding_source named = *source;
        named.file = "service/method.sql";
        named.name = "method";
        struct binding *binding = try_binding(&named, &error);
        if (!binding)
                fail_msg("%s", error);
        return binding;
}

// Runs the statement as the lanes do: typed parameters, all in binary.
static inline PGresult *run_statement(const struct binding *binding, const struct storage_value *parameters) {
        const struct storage_statement *statement = binding_statement(binding);
        const char *values[64];
        int lengths[64], formats[64];
        for (int i = 0; i < statement->parameter_count; i++) {
                values[i] = parameters[i].data;
                lengths[i] = parameters[i].length;
                formats[i] = 1;
        }
        PGresult *result = PQexecParams(database.admin, statement->text, statement->parameter_count,
                statement->parameter_types, values, lengths, formats, /* resultFormat= */ 1);
        if (PQresultStatus(result) != PGRES_TUPLES_OK)
                fail_msg("%s", PQresultErrorMessage(result));
        return result;
}

// Binds the request and runs the statement.
static inline PGresult *run_binding(
        const struct binding *binding, const ProtobufCMessage *request, const struct binding_values *values) {
        const struct storage_value *parameters;
        const char *field = "", *reason = "";
        enum binding_status status = binding_parameters(binding, request, values, &arena, &parameters, &field, &reason);
        if (status != BINDING_OK)
                fail_msg("%d: %s %s", status, field, reason);
        return run_statement(binding, parameters);
}

static inline ProtobufCMessage *new_message(const ProtobufCMessageDescriptor *descriptor) {
        ProtobufCMessage *message = arena_alloc(&arena, descriptor->sizeof_message);
        assert_non_null(message);
        protobuf_c_message_init(descriptor, message);
        return message;
}

// The response of a statement that takes nothing but the request.
static inline ProtobufCMessage *respond_to(
        const struct binding_source *source, const ProtobufCMessage *request, PGresult **ret_result) {
        struct binding *binding = make_binding(source);
        *ret_result = run_binding(binding, request, &(struct binding_values){0});
        ProtobufCMessage *response = new_message(source->response);
        assert_int_equal(binding_response(binding, *ret_result, 1, &arena, response), BINDING_OK);
        binding_free(binding);
        return response;
}

static inline void assert_same_message(const ProtobufCMessage *a, const ProtobufCMessage *b) {
        size_t size = protobuf_c_message_get_packed_size(a);
        assert_int_equal(size, protobuf_c_message_get_packed_size(b));
        uint8_t *packed_a = arena_alloc(&arena, size + 1), *packed_b = arena_alloc(&arena, size + 1);
        assert_non_null(packed_a);
        assert_non_null(packed_b);
        protobuf_c_message_pack(a, packed_a);
        protobuf_c_message_pack(b, packed_b);
        assert_memory_equal(packed_a, packed_b, size);
}

// protobuf-c's strings are not const.
#define text(value) ((char *)(uintptr_t)(value))

static inline Google__Protobuf__Timestamp *at(int64_t seconds, int32_t nanos) {
        Google__Protobuf__Timestamp *time = (Google__Protobuf__Timestamp *)(void *)new_message(
                &google__protobuf__timestamp__descriptor);
        time->seconds = seconds;
        time->nanos = nanos;
        return time;
}
