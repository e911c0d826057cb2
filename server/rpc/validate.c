#include "server/rpc/validate.h"

#include "server/rpc/name.h"
#include "server/utf8.h"
#include "storage/convert.h"

#include <google/protobuf/duration.pb-c.h>
#include <google/protobuf/field_mask.pb-c.h>
#include <google/protobuf/timestamp.pb-c.h>
#include <string.h>
#include <time.h>

enum { TEXT_MAX = 1000, PATH_MAX_SIZE = 200, MASK_MAX = 100 };

struct check {
        struct call *call;
        const char *path;                        // of the message that is checked, with a dot behind it, or ""
        const Google__Protobuf__FieldMask *mask; // an Update's resource: only what it names is required
};

static void *member(const ProtobufCMessage *message, unsigned offset) { return (void *)((uintptr_t)message + offset); }

static void wrong(const struct check *check, const ProtobufCFieldDescriptor *field, const char *why) {
        call_refuse_field(check->call, arena_printf(&check->call->arena, "%s%s", check->path, field->name), "%s", why);
}

static bool is_email(const char *text) {
        size_t size = strlen(text);
        const char *at = strchr(text, '@');
        if (size > EMAIL_MAX || !at || at == text || !at[1] || strchr(at + 1, '@'))
                return false;
        for (const char *c = text; *c; c++)
                if ((unsigned char)*c <= ' ' || *c == 0x7f)
                        return false;
        return true;
}

static void check_text(const struct check *check, const ProtobufCFieldDescriptor *field, const struct field_rule *rule,
        const char *text) {
        size_t size = utf8_length(text), max = rule->max_length ? rule->max_length : TEXT_MAX;
        char *problem = NULL;
        if (!size)
                return;
        if (size > max)
                problem = arena_printf(&check->call->arena, "has %zu characters; at most %zu are allowed", size, max);
        else if (size < rule->min_length)
                problem = arena_printf(
                        &check->call->arena, "has %zu characters; at least %u are needed", size, rule->min_length);
        if (problem)
                wrong(check, field, problem);
        else if (rule->form == FORM_SLUG && !is_slug(text, strlen(text)))
                wrong(check, field, "is not of the form [a-z][a-z0-9-]{2,62}");
        else if (rule->form == FORM_UUID && !is_uuid(text, strlen(text)))
                wrong(check, field, "is not a UUID such as 018f3c1e-7b1a-7c3d-9e2f-5a6b7c8d9e0f");
        else if (rule->form == FORM_EMAIL && !is_email(text))
                wrong(check, field, "is not an e-mail address");
}

static void check_number(const struct check *check, const ProtobufCFieldDescriptor *field,
        const struct field_rule *rule, int64_t value) {
        if (((rule->min || rule->max) && value < rule->min) || (rule->max && value > rule->max))
                wrong(check, field,
                        arena_printf(&check->call->arena, "is %lld; it must be from %lld to %lld", (long long)value,
                                (long long)rule->min, (long long)rule->max));
}

// The streams of agents may be of a later version than this server: what it does not know there, it ignores.
static void check_enum(const struct check *check, const ProtobufCFieldDescriptor *field, int value) {
        if (check->call->method->access.agents)
                return;
        if (!protobuf_c_enum_descriptor_get_value(field->descriptor, value))
                wrong(check, field,
                        arena_printf(&check->call->arena, "%d is not a value of %s", value,
                                ((const ProtobufCEnumDescriptor *)field->descriptor)->short_name));
}

static void check_time(const struct check *check, const ProtobufCFieldDescriptor *field, const struct field_rule *rule,
        const Google__Protobuf__Timestamp *time_) {
        if (rule->future && time_->seconds <= time(NULL))
                wrong(check, field, "must be in the future");
}

// The bounds are in seconds; a rest of a second counts, and no length of time with a rule is negative.
static void check_duration(const struct check *check, const ProtobufCFieldDescriptor *field,
        const struct field_rule *rule, const Google__Protobuf__Duration *duration) {
        bool less = duration->seconds < rule->min || duration->nanos < 0;
        bool more = rule->max && (duration->seconds > rule->max || (duration->seconds == rule->max && duration->nanos));
        if (duration->nanos > 999999999)
                wrong(check, field, "has nanos that are not between 0 and 999,999,999");
        else if (less || more)
                wrong(check, field,
                        rule->max ? arena_printf(&check->call->arena, "must be from %lld to %lld seconds",
                                            (long long)rule->min, (long long)rule->max)
                                  : "is too short");
}

static void check_bytes(const struct check *check, const ProtobufCFieldDescriptor *field, const struct field_rule *rule,
        const ProtobufCBinaryData *bytes) {
        if (rule->max_length && bytes->len > rule->max_length)
                wrong(check, field,
                        arena_printf(&check->call->arena, "has %zu bytes; at most %u are allowed", bytes->len,
                                rule->max_length));
}

static void check_message(
        const struct check *check, const struct message_rules *rules, const ProtobufCMessage *message);

// A message whose path is the checked message's and `path`.
static void check_below(const struct check *check, const char *path, const struct message_rules *rules,
        const ProtobufCMessage *message) {
        struct check inner = *check;
        inner.path = path;
        if (path && strlen(path) < PATH_MAX_SIZE)
                check_message(&inner, rules, message);
}

static void check_nested(const struct check *check, const ProtobufCFieldDescriptor *field,
        const struct field_rule *rule, const ProtobufCMessage *message) {
        if (field->descriptor == &google__protobuf__timestamp__descriptor)
                check_time(check, field, rule, (const void *)message);
        else if (field->descriptor == &google__protobuf__duration__descriptor)
                check_duration(check, field, rule, (const void *)message);
        else if (rule->message)
                check_below(check, arena_printf(&check->call->arena, "%s%s.", check->path, field->name), rule->message,
                        message);
}

// The keys and values of a map of strings: its entries are messages of these two fields.
static void check_entries(
        const struct check *check, const ProtobufCFieldDescriptor *field, size_t max, const void *value, size_t count) {
        const ProtobufCMessageDescriptor *entry = field->descriptor;
        for (size_t i = 0; i < count; i++)
                for (unsigned j = 0; j < entry->n_fields; j++) {
                        const char *const *text = member(
                                ((ProtobufCMessage *const *)value)[i], entry->fields[j].offset);
                        if (utf8_length(*text) > max)
                                wrong(check, field,
                                        arena_printf(&check->call->arena,
                                                "the %s of entry %zu is longer than %zu characters",
                                                entry->fields[j].name, i, max));
                }
}

static void check_repeated(const struct check *check, const ProtobufCFieldDescriptor *field,
        const struct field_rule *rule, const void *value, size_t count) {
        size_t max = rule->max_length ? rule->max_length : TEXT_MAX;
        if (count > max) {
                wrong(check, field,
                        arena_printf(&check->call->arena, "has %zu elements; at most %zu are allowed", count, max));
                return;
        }
        size_t element = rule->max_element_length ? rule->max_element_length : TEXT_MAX;
        for (size_t i = 0; field->type == PROTOBUF_C_TYPE_STRING && i < count; i++)
                if (utf8_length(((char *const *)value)[i]) > element) {
                        wrong(check, field,
                                arena_printf(
                                        &check->call->arena, "element %zu is longer than %zu characters", i, element));
                        return;
                }
        if (rule->max_element_length && field_is_map(field))
                check_entries(check, field, element, value, count);
        for (size_t i = 0; field->type == PROTOBUF_C_TYPE_ENUM && i < count; i++)
                check_enum(check, field, ((const int *)value)[i]);
        for (size_t i = 0; rule->message && i < count; i++)
                check_below(check, arena_printf(&check->call->arena, "%s%s[%zu].", check->path, field->name, i),
                        rule->message, ((ProtobufCMessage *const *)value)[i]);
}

// The field's value as a number, where it is one.
static int64_t number(const ProtobufCFieldDescriptor *field, const void *at) {
        switch ((int)field->type) {
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_UINT64:
                return *(const int64_t *)at;
        case PROTOBUF_C_TYPE_INT32:
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_ENUM:
                return *(const int32_t *)at;
        default:
                return 0;
        }
}

static bool is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
        const void *at = member(message, field->offset);
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
                return *(const size_t *)member(message, field->quantifier_offset) > 0;
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
                *(const uint32_t *)member(message, field->quantifier_offset) != field->id)
                return false;
        switch ((int)field->type) {
        case PROTOBUF_C_TYPE_STRING:
                return *(char *const *)at && **(char *const *)at;
        case PROTOBUF_C_TYPE_MESSAGE:
                return *(void *const *)at != NULL;
        case PROTOBUF_C_TYPE_BYTES:
                return ((const ProtobufCBinaryData *)at)->len > 0;
        case PROTOBUF_C_TYPE_BOOL:
                return *(const protobuf_c_boolean *)at;
        default:
                return number(field, at) != 0;
        }
}

static bool in_mask(const Google__Protobuf__FieldMask *mask, const char *name) {
        for (size_t i = 0; i < mask->n_paths; i++)
                if (!strcmp(mask->paths[i], name))
                        return true;
        return false;
}

static void check_field(const struct check *check, const struct field_rule *rule, const ProtobufCMessage *message,
        const ProtobufCFieldDescriptor *field) {
        const void *at = member(message, field->offset);
        if (!is_set(message, field)) {
                bool needed = rule->required && (!check->mask || in_mask(check->mask, field->name));
                if (needed)
                        wrong(check, field, "is required");
        } else if (field->label == PROTOBUF_C_LABEL_REPEATED)
                check_repeated(check, field, rule, *(void *const *)at,
                        *(const size_t *)member(message, field->quantifier_offset));
        else if (field->type == PROTOBUF_C_TYPE_STRING)
                check_text(check, field, rule, *(char *const *)at);
        else if (field->type == PROTOBUF_C_TYPE_MESSAGE)
                check_nested(check, field, rule, *(ProtobufCMessage *const *)at);
        else if (field->type == PROTOBUF_C_TYPE_ENUM)
                check_enum(check, field, *(const int *)at);
        else if (field->type == PROTOBUF_C_TYPE_BYTES)
                check_bytes(check, field, rule, at);
        else
                check_number(check, field, rule, number(field, at));
}

static void check_message(
        const struct check *check, const struct message_rules *rules, const ProtobufCMessage *message) {
        for (unsigned i = 0; i < rules->count; i++) {
                const struct field_rule *rule = &rules->fields[i];
                check_field(check, rule, message, &rules->descriptor->fields[rule->index]);
        }
}

bool validate_message(struct call *call, const struct message_rules *rules, const ProtobufCMessage *message) {
        check_message(&(struct check){call, "", NULL}, rules, message);
        return call->refusal.code == CODE_OK;
}

static bool is_updatable(const struct message_rules *rules, const char *path) {
        for (const char *const *known = rules->updatable; known && *known; known++)
                if (!strcmp(*known, path))
                        return true;
        return false;
}

// Every path that may be changed (for `*`, AIP-134), or every one that the resource sets (for no mask).
static bool fill_mask(struct call *call, Google__Protobuf__FieldMask *mask, const struct message_rules *rules,
        const ProtobufCMessage *resource, bool all) {
        mask->paths = arena_alloc(&call->arena, MASK_MAX * sizeof *mask->paths);
        if (!mask->paths)
                return call_fail(call, "arena");
        mask->n_paths = 0;
        for (const char *const *path = rules->updatable; *path && mask->n_paths < MASK_MAX; path++)
                if (all || is_set(resource, protobuf_c_message_descriptor_get_field_by_name(rules->descriptor, *path)))
                        mask->paths[mask->n_paths++] = arena_copy(&call->arena, *path, strlen(*path));
        if (!mask->n_paths)
                return call_refuse_field(
                        call, "update_mask", "is empty, and the resource sets nothing that can be changed");
        return true;
}

// Settles an Update's mask. The request has fields `update_mask` and the resource.
static bool settle_mask(struct call *call, const struct message_rules *rules, const ProtobufCMessage *resource,
        Google__Protobuf__FieldMask **ret_mask) {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
                call->request->descriptor, "update_mask");
        Google__Protobuf__FieldMask **place = member(call->request, field->offset), *mask = *place;
        if (!mask) {
                mask = arena_alloc(&call->arena, sizeof *mask);
                if (!mask)
                        return call_fail(call, "arena");
                google__protobuf__field_mask__init(mask);
                *place = mask;
        }
        *ret_mask = mask;
        if (!mask->n_paths || (mask->n_paths == 1 && !strcmp(mask->paths[0], "*")))
                return fill_mask(call, mask, rules, resource, mask->n_paths == 1);
        if (mask->n_paths > MASK_MAX)
                return call_refuse_field(call, "update_mask", "has more than %d paths", MASK_MAX);
        for (size_t i = 0; i < mask->n_paths; i++)
                if (!is_updatable(rules, mask->paths[i]))
                        call_refuse_field(
                                call, "update_mask", "`%.100s` is not a field that can be changed", mask->paths[i]);
        return call->refusal.code == CODE_OK;
}

bool validate(struct call *call) {
        const struct message_rules *rules = call->method->rules;
        struct check check = {.call = call, .path = ""};
        for (unsigned i = 0; i < rules->count; i++) {
                const struct field_rule *rule = &rules->fields[i];
                const ProtobufCFieldDescriptor *field = &rules->descriptor->fields[rule->index];
                struct check one = check;
                if (call->method->kind == METHOD_UPDATE && rule->message && rule->message->updatable &&
                        is_set(call->request, field)) {
                        Google__Protobuf__FieldMask *mask = NULL;
                        if (!settle_mask(call, rule->message,
                                    *(ProtobufCMessage *const *)member(call->request, field->offset), &mask))
                                continue;
                        one.mask = mask;
                }
                check_field(&one, rule, call->request, field);
        }
        return call->refusal.code == CODE_OK;
}
