// The method table: one row per RPC, generated at build time by tools/method_table.py from the descriptor set. It names
// all that an RPC is made of: access rule, SQL file, hooks, handler. What is missing fails the build or the link.
#pragma once

#include "auth/principal.h"
#include "storage/binder.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

struct call;

// What a field may hold: devopsgenie.options.Valid, with what else the proto says.
struct field_rule {
        unsigned index; // in the message descriptor's fields
        bool required, future;
        enum form { FORM_NONE, FORM_SLUG, FORM_EMAIL, FORM_UUID } form;
        uint32_t min_length, max_length, max_element_length; // in code points; elements for repeated fields
        int64_t min, max;                                    // both 0: no bound; max 0: no upper one
        const struct message_rules *message;                 // of a message field, or of a repeated one's elements
};

struct message_rules {
        const ProtobufCMessageDescriptor *descriptor;
        unsigned count;
        const struct field_rule *fields;
        const char *const *updatable; // of a resource: the paths that an update_mask may have, NULL-terminated
};

// Where a request names its resource and how the name looks.
struct name_rule {
        const char *field;              // its path in the request, such as `name` or `member.name`
        const char *type;               // such as `devopsgenie.dev/Finding`
        const char *const *collections; // `organizations`, `findings`, NULL
        const char *const *variables;   // `organization`, `finding`, NULL
};

enum method_kind { METHOD_GET, METHOD_LIST, METHOD_CREATE, METHOD_UPDATE, METHOD_DELETE, METHOD_CUSTOM };

// A stream's code. All functions run on the stream thread; between two of them the call may be touched by nobody else.
struct stream_handler {
        void (*message)(
                struct call *call, ProtobufCMessage *message); // the first one has passed authorize and validate
        void (*half_closed)(struct call *call);                // the caller sends no more
        void (*woken)(struct call *call);                      // after stream_wake; NULL where it never comes
        void (*drained)(struct call *call);                    // all that was sent has left; NULL: not asked for
        void (*closed)(struct call *call); // the caller has gone, or the call is answered; NULL: nothing to do
        int patience; // seconds in which a caller reads on once the stream has ended, or it is cut; 0: no limit
};

struct method {
        const char *path;      // `/devopsgenie.v1.FindingService/GetFinding`
        const char *full_name; // `devopsgenie.v1.FindingService.GetFinding`
        const char *service;   // `devopsgenie.v1.FindingService`
        enum method_kind kind;
        bool client_streams, server_streams;
        const ProtobufCMessageDescriptor *request, *response;
        const struct message_rules *rules; // of the request
        struct access_rule access;
        bool access_changes; // success makes the replica forget what it remembers of callers
        enum lane lane;
        struct name_rule name;         // .field NULL: the request names nothing
        const char *body;              // the request field that carries a resource; NULL: none
        const char *sql_file, *sql;    // NULL where a handler does it all
        const char *const *given;      // parameters that `before` gives, NULL-terminated
        bool (*before)(struct call *); // false: it has refused the call
        bool (*after)(struct call *, ProtobufCMessage *response);
        void (*handler)(struct call *);      // unary, without SQL
        const struct stream_handler *stream; // streams
};

extern const struct method methods[];
extern const unsigned method_count;

// The statements of storage/queries/internal, by file name.
struct internal_query {
        const char *file, *sql;
};
extern const struct internal_query internal_queries[];
extern const unsigned internal_query_count;

// The serialized FileDescriptorSet of the API.
extern const unsigned char descriptor_set[], descriptor_set_end[];

// The method of a path, or NULL. Constant time: a perfect look-up table made at start by method_table_init.
const struct method *method_find(const char *path, size_t size);
bool method_table_init(void);
