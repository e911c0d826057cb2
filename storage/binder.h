// Binds a SQL file to the messages of an RPC: named parameters to request fields, result columns to response
// fields. All names and types are resolved once, at start, against what PostgreSQL describes; a call then runs
// a table of conversions.
//
// Parameters (`:name` in the file) are looked up in this order:
//   1. the variables of the resource name: `finding_id` (uuid) from `organizations/*/findings/*`; `organization_id` is
//      the tenant's uuid, `organization_slug` its slug
//   2. the runtime: `caller_id` (text: who calls), `caller_subject`, `caller_email`, `caller_kind` (text: user,
//      api_key, agent, or a service role such as scanner), `caller_role` (int2: the Role's number in the
//      organization, 0 for none), `new_id` (uuid, version 7, made for this call), `page_limit` (int8: one more
//      than the page), `after_*` (a List's cursor, see below)
//   3. what the method's `before` hook gives (by the method's options)
//   4. the request's field of that name; `a__b` for field b of message field a. Where a is repeated, it is the array
//      of all its elements' b (an empty array for none), and where b is repeated too, a jsonb[] with one JSON array of
//      strings per element: so a batch is one statement with `unnest`
//   5. the field of that name of the resource that the request carries (http `body`)
// Result columns fill the response's field of the same name, `a.b` for nested ones; for a List, one row per
// element of the response's repeated message field. Some columns are the runtime's:
//   `refusal`    text: not NULL refuses the call for a reason of the refusal table; `refusal_*` text columns are its
//   metadata
//   `after_*`    the sort key of a List's row; the cursor of the next page is the last row's. Each is a parameter of
//   the same type, too; a List without them, or without `page_limit`, is an error
// A column that has no field, a field that no column fills (where the file does not say `-- unset: a, b`), a type
// that does not convert, and a parameter that is not found are errors that name file, column and field. A response is a
// List where it has one repeated message field and next_page_token, which the runtime fills.
//
// Conversions (binary formats both ways):
//   string ↔ text, varchar, name; string ↔ uuid (36 characters; a malformed one is INVALID_ARGUMENT at run time);
//   string ← json, jsonb (text) and → jsonb (validated by PostgreSQL); bytes ↔ bytea; bool ↔ bool; int32, uint32,
//   int64, uint64 ↔ int2, int4, int8 (range checked); float, double ↔ float4, float8; enum ↔ text (the value's name,
//   NULL and '' ↔ 0) or int2, int4 (its number); Timestamp ↔ timestamptz (microseconds; infinity is an error);
//   Duration ↔ interval (microseconds, no months); FieldMask → text[]; repeated scalars, strings and enums ↔ arrays;
//   map<string,string> ↔ jsonb object of strings (json ← hstore is not needed); wrapper-less `optional`: NULL ↔ absent;
//   a message ↔ bytea, its wire form (malformed: BINDING_BROKEN), in the place of columns or parameters of its own.
// NULL into a plain proto3 scalar leaves its default; an unset message field or oneof member is SQL NULL, and so is an
// empty string where the parameter is uuid or jsonb; a nested message exists in the response when any of its columns is
// not NULL. The enum value 0 becomes '', as an empty string does.
#pragma once

#include "storage/arena.h"
#include "storage/storage.h"

#include <libpq-fe.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

// Made and described by one thread; after that any number of threads may use it at the same time.
struct binding;

// What a binding is made from: a row of the generated method table, or of the server's own statements.
struct binding_source {
        const char *file; // for messages, such as `finding_service/get_finding.sql`
        const char *name; // the prepared statement's name
        const char *sql;  // the file's text, with :named parameters
        enum lane lane;
        const ProtobufCMessageDescriptor *request;  // NULL: no request fields
        const ProtobufCMessageDescriptor *response; // NULL: rows are read by C
        const char *const *name_variables;          // variables of the resource name in order, NULL-terminated, such as
                                           // {"organization", "finding", NULL}; parameter `finding_id` is the second
        const char *body;         // the request field that carries the resource; NULL: none
        const char *const *given; // parameters that a hook gives, NULL-terminated; NULL: none
};

// What a call brings besides its request. Texts may be NULL where the method cannot need them.
struct binding_values {
        const char *organization_id, *organization_slug;
        const char *const *name_values; // beside name_variables; a UUID text for every variable but the organization
        const char *caller_id, *caller_subject, *caller_email, *caller_kind, *caller_role;
        const char *new_id; // UUID text
        long page_size;     // already clamped
        const char *cursor; // what binding_cursor gave for the page before; NULL: first page
        size_t cursor_size;
        // Beside binding_source.given: the bytes themselves for bytea, else text (`7`, a UUID, …) that the binder
        // converts to the parameter's type.
        const struct storage_value *given;
};

enum binding_status {
        BINDING_OK,
        BINDING_INVALID,  // the request's value does not fit: *ret_field and *ret_reason say what and why
        BINDING_TOO_MUCH, // the arena is full
        BINDING_BROKEN,   // the database gave what its description does not allow, or the cursor is malformed
};

// Parses the SQL text; NULL with *ret_error (malloc'ed: file, line and what is wrong) on failure. After this the
// storage can prepare binding_statement(); it cannot convert before binding_describe.
struct binding *binding_new(const struct binding_source *source, char **ret_error);

// Describes the statement on a connection (prepare, describe) and resolves all conversions. False with *ret_error
// (malloc'ed, one line per problem). Blocking; at start and for `genied check-queries`.
bool binding_describe(struct binding *binding, PGconn *connection, char **ret_error);

const struct storage_statement *binding_statement(const struct binding *binding);
void binding_free(struct binding *binding);

// Fills *ret_parameters (in the arena) from the request. Strings, bytes and the cursor are not copied: request and
// values must live as long as the parameters. *ret_field is a path such as `evaluations[3].status`; for an id in a
// resource name it is `name`.
enum binding_status binding_parameters(const struct binding *binding, const ProtobufCMessage *request,
        const struct binding_values *values, struct arena *arena, const struct storage_value **ret_parameters,
        const char **ret_field, const char **ret_reason);

// Where the first row refuses the call: its reason, else NULL; `refusal_*` columns that are not NULL as pairs of name
// (without `refusal_`) and value. Both are the binding's and the result's.
const char *binding_refusal(const struct binding *binding, const PGresult *result);
unsigned binding_refusal_metadata(const struct binding *binding, const PGresult *result, unsigned max,
        const char **ret_names, const char **ret_values);

// Fills the response from the rows: the first row into the message itself (no row is BINDING_BROKEN), or, for a List,
// at most `page_size` rows into its repeated field. Strings and bytes stay where they are in the result, which must not
// be cleared before the response is packed.
enum binding_status binding_response(const struct binding *binding, const PGresult *result, long page_size,
        struct arena *arena, ProtobufCMessage *response);

// Whether the response is a List, and where more rows follow, the cursor of the next page (in the arena);
// *ret_size 0 on the last page.
bool binding_is_list(const struct binding *binding);
enum binding_status binding_cursor(const struct binding *binding, const PGresult *result, long page_size,
        struct arena *arena, const char **ret_cursor, size_t *ret_size);
