#include "server/rpc/name.h"

#include <ctype.h>
#include <string.h>

bool is_slug(const char *text, size_t size) {
        if (size < 3 || size > SLUG_MAX || text[0] < 'a' || text[0] > 'z')
                return false;
        for (size_t i = 1; i < size; i++)
                if (!(text[i] >= 'a' && text[i] <= 'z') && !(text[i] >= '0' && text[i] <= '9') && text[i] != '-')
                        return false;
        return true;
}

bool is_uuid(const char *text, size_t size) {
        if (size != UUID_TEXT)
                return false;
        for (unsigned i = 0; i < UUID_TEXT; i++) {
                bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
                if (hyphen ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
                        return false;
        }
        return true;
}

// The string at a path such as `member.name`; NULL where a message on the way is not set.
static const char *text_at(const ProtobufCMessage *message, const char *path) {
        for (;;) {
                size_t size = strcspn(path, ".");
                char name[64];
                if (size >= sizeof name)
                        return NULL;
                memcpy(name, path, size);
                name[size] = 0;
                const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
                        message->descriptor, name);
                if (!field)
                        return NULL;
                const void *value = *(void *const *)(const void *)((const char *)message + field->offset);
                // A member of a oneof shares its place with the others: it is set only where the case says so.
                if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                        *(const uint32_t *)(const void *)((const char *)message + field->quantifier_offset) !=
                                field->id)
                        return NULL;
                if (!value || !path[size])
                        return value;
                message = value;
                path += size + 1;
        }
}

static bool malformed(struct call *call, const char *why) {
        const struct name_rule *rule = &call->method->name;
        char pattern[256];
        size_t used = 0;
        for (unsigned i = 0; rule->collections[i] && used < sizeof pattern - 1; i++) {
                int size = snprintf(pattern + used, sizeof pattern - used, rule->variables[i] ? "%s%s/{%s}" : "%s%s",
                        i ? "/" : "", rule->collections[i], rule->variables[i] ? rule->variables[i] : "");
                used += size > 0 ? (size_t)size : 0;
        }
        return call_refuse_field(call, rule->field, "%s; its form is %s", why, pattern);
}

// One collection and its id at *at: the value goes to call->name_values, *at behind it.
static bool take_part(struct call *call, unsigned i, const char **at) {
        const char *collection = call->method->name.collections[i];
        size_t size = strlen(collection);
        if (strncmp(*at, collection, size) || (*at)[size] != '/')
                return malformed(call, "is malformed");
        *at += size + 1;
        size = strcspn(*at, "/");
        if (i == 0 ? !is_slug(*at, size) : !is_uuid(*at, size))
                return malformed(call, i == 0 ? "has a malformed organization" : "has a malformed UUID");
        char *value = arena_copy(&call->arena, *at, size);
        if (!value)
                return call_fail(call, "arena");
        call->name_values[i] = value;
        *at += size;
        return true;
}

bool name_locate(struct call *call) {
        const struct name_rule *rule = &call->method->name;
        if (!rule->field)
                return true;
        const char *at = text_at(call->request, rule->field);
        if (!at || !*at)
                return malformed(call, "is required");
        call->name = at;
        if (!take_part(call, 0, &at))
                return false;
        call->organization = call->name_values[0];
        return true;
}

bool name_check(struct call *call) {
        const struct name_rule *rule = &call->method->name;
        if (!rule->field)
                return true;
        const char *at = strchr(call->name, '/') + 1;
        at += strcspn(at, "/");
        for (unsigned i = 1; rule->collections[i]; i++) {
                if (*at++ != '/')
                        return malformed(call, "is malformed");
                if (!take_part(call, i, &at))
                        return false;
        }
        return !*at || malformed(call, "is malformed");
}
