// The look at the wire format, and what passes it, for libFuzzer: the first byte chooses the message. What passes
// unpacks within the arena's cap or is refused, holds nothing but text in its strings, and passes again when packed.
#include "server/rpc/method.h"
#include "server/rpc/prescan.h"
#include "storage/arena.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAP = 4 << 20 };

static void need(bool holds) {
        if (!holds)
                abort();
}

static const ProtobufCMessageDescriptor *choose(unsigned char number) {
        if (number == 255)
                return &google__protobuf__descriptor_proto__descriptor; // nests in itself
        if (number == 254)
                return &google__rpc__status__descriptor;
        return methods[number % method_count].request;
}

static void walk(const ProtobufCMessage *message, unsigned depth);

static void walk_value(const ProtobufCFieldDescriptor *field, const void *value, unsigned depth) {
        if (field->type == PROTOBUF_C_TYPE_STRING)
                need(is_utf8_text(value, strlen(value)));
        else if (field->type == PROTOBUF_C_TYPE_MESSAGE)
                walk(value, depth + 1);
}

static void walk(const ProtobufCMessage *message, unsigned depth) {
        need(depth <= PRESCAN_DEPTH);
        for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
                const char *at = (const char *)message + field->offset;
                const void *quantifier = (const char *)message + field->quantifier_offset;
                if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
                        continue;
                void *const *values = *(void *const *const *)(const void *)at;
                if (field->label == PROTOBUF_C_LABEL_REPEATED) {
                        for (size_t k = 0; k < *(const size_t *)quantifier; k++)
                                walk_value(field, values[k], depth);
                        continue;
                }
                bool elsewhere = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                                 *(const uint32_t *)quantifier != field->id;
                if (values && !elsewhere)
                        walk_value(field, values, depth);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct arena arena;
        const char *field;
        if (!size)
                return 0;
        const ProtobufCMessageDescriptor *descriptor = choose(data[0]);
        if (prescan(descriptor, data + 1, size - 1, &field))
                return 0;
        arena_init(&arena, CAP);
        ProtobufCMessage *message = protobuf_c_message_unpack(
                descriptor, arena_protobuf_allocator(&arena), size - 1, data + 1);
        if (message) {
                walk(message, 0);
                size_t packed_size = protobuf_c_message_get_packed_size(message);
                unsigned char *packed = malloc(packed_size + 1);
                need(packed != NULL);
                need(protobuf_c_message_pack(message, packed) == packed_size);
                need(!prescan(descriptor, packed, packed_size, &field));
                free(packed);
        }
        arena_drop(&arena, false);
        return 0;
}
