#include "tools/genie-agent/pull_request/helm_value.h"

#include "tools/genie-agent/pull_request/text.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { KEYS_MAX = 64, KEY_BYTES_MAX = 501 };

// A step down: a key of a mapping, or an index of a sequence.
struct key {
        bool index;
        size_t number;
        char name[KEY_BYTES_MAX];
};

struct path {
        struct key keys[KEYS_MAX];
        size_t count;
};

// A file as libyaml sees it, up to the end of its first document.
struct events {
        yaml_event_t *all;
        size_t count, capacity;
};

enum { NONE = -1 };

static const char *index_parse(const char *text, struct key *ret_key) {
        size_t digits = strspn(text + 1, "0123456789");
        if (digits == 0 || digits > 9 || text[1 + digits] != ']')
                return NULL;
        ret_key->index = true;
        ret_key->number = strtoul(text + 1, NULL, 10);
        text += digits + 2;
        if (*text == '.' && text[1] != '\0' && text[1] != '.' && text[1] != '[')
                return text + 1;
        return *text == '\0' || *text == '[' ? text : NULL;
}

static const char *name_parse(const char *text, struct key *ret_key) {
        size_t size = 0;
        for (; *text && *text != '.' && *text != '['; text++) {
                if (*text == '\\' && *++text == '\0')
                        return NULL;
                if (size + 1 == sizeof ret_key->name)
                        return NULL;
                ret_key->name[size++] = *text;
        }
        ret_key->name[size] = '\0';
        if (size == 0 || (*text == '.' && (text[1] == '\0' || text[1] == '[')))
                return NULL;
        return *text == '.' ? text + 1 : text;
}

static bool path_parse(const char *text, struct path *ret_path) {
        while (*text) {
                if (ret_path->count == KEYS_MAX)
                        return false;
                struct key *key = &ret_path->keys[ret_path->count++];
                text = *text == '[' ? index_parse(text, key) : name_parse(text, key);
                if (!text)
                        return false;
        }
        return ret_path->count > 0;
}

static void events_drop(struct events *events) {
        for (size_t i = 0; i < events->count; i++)
                yaml_event_delete(&events->all[i]);
        free(events->all);
        *events = (struct events){.all = NULL};
}

static bool events_room(struct events *events) {
        if (events->count < events->capacity)
                return true;
        size_t capacity = events->capacity ? 2 * events->capacity : 256;
        yaml_event_t *all = reallocarray(events->all, capacity, sizeof *all);
        if (!all)
                return false;
        events->all = all;
        events->capacity = capacity;
        return true;
}

// What is behind a document must begin another one or be nothing: a template of Helm's is no YAML, though it begins so.
static enum helm_status ends_well(yaml_parser_t *parser) {
        yaml_event_t next;
        if (!yaml_parser_parse(parser, &next))
                return parser->error == YAML_MEMORY_ERROR ? HELM_NO_MEMORY : HELM_INVALID_YAML;
        yaml_event_delete(&next);
        return HELM_OK;
}

// How an event changes the depth.
static int deeper(const yaml_event_t *event) {
        if (event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT)
                return 1;
        return event->type == YAML_MAPPING_END_EVENT || event->type == YAML_SEQUENCE_END_EVENT ? -1 : 0;
}

// libyaml's scanner takes time with the square of the depth, so there is a limit to it.
static enum helm_status events_read(yaml_parser_t *parser, struct events *ret_events) {
        for (int depth = 0;;) {
                if (ret_events->count == HELM_EVENTS_MAX || depth > HELM_DEPTH_MAX)
                        return HELM_INVALID_YAML;
                if (!events_room(ret_events))
                        return HELM_NO_MEMORY;
                yaml_event_t *event = &ret_events->all[ret_events->count];
                if (!yaml_parser_parse(parser, event))
                        return parser->error == YAML_MEMORY_ERROR ? HELM_NO_MEMORY : HELM_INVALID_YAML;
                ret_events->count++;
                depth += deeper(event);
                if (event->type == YAML_STREAM_END_EVENT)
                        return HELM_OK;
                if (event->type == YAML_DOCUMENT_END_EVENT)
                        return ends_well(parser);
        }
}

static enum helm_status events_parse(const char *text, size_t size, struct events *ret_events) {
        yaml_parser_t parser;
        if (!yaml_parser_initialize(&parser))
                return HELM_NO_MEMORY;
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
        enum helm_status status = events_read(&parser, ret_events);
        yaml_parser_delete(&parser);
        return status;
}

// The event behind a node.
static ssize_t node_end(const struct events *events, ssize_t at) {
        int depth = 0;
        for (; at < (ssize_t)events->count; at++) {
                depth += deeper(&events->all[at]);
                if (depth == 0)
                        return at + 1;
        }
        return at;
}

static bool is_named(const yaml_event_t *event, const char *name) {
        return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == strlen(name) &&
               memcmp(event->data.scalar.value, name, event->data.scalar.length) == 0;
}

static enum helm_status in_mapping(const struct events *events, ssize_t at, const char *name, ssize_t *ret_value) {
        ssize_t found = NONE, value;
        for (ssize_t key = at + 1; events->all[key].type != YAML_MAPPING_END_EVENT; key = node_end(events, value)) {
                value = node_end(events, key);
                if (!is_named(&events->all[key], name))
                        continue;
                if (found != NONE)
                        return HELM_UNEDITABLE;
                found = value;
        }
        *ret_value = found;
        return found == NONE ? HELM_MISSING : HELM_OK;
}

static enum helm_status in_sequence(const struct events *events, ssize_t at, size_t number, ssize_t *ret_value) {
        ssize_t value = at + 1;
        while (number-- > 0 && events->all[value].type != YAML_SEQUENCE_END_EVENT)
                value = node_end(events, value);
        *ret_value = value;
        return events->all[value].type == YAML_SEQUENCE_END_EVENT ? HELM_MISSING : HELM_OK;
}

// The event of the scalar or alias at a path.
static enum helm_status find(const struct events *events, const struct path *path, ssize_t *ret_at) {
        ssize_t at = 2; // behind the starts of stream and document
        enum helm_status status = events->count > 2 ? HELM_OK : HELM_MISSING;
        for (size_t i = 0; status == HELM_OK && i < path->count; i++) {
                const struct key *key = &path->keys[i];
                yaml_event_type_t type = events->all[at].type;
                if (type != (key->index ? YAML_SEQUENCE_START_EVENT : YAML_MAPPING_START_EVENT))
                        return HELM_MISSING;
                status = key->index ? in_sequence(events, at, key->number, &at)
                                    : in_mapping(events, at, key->name, &at);
        }
        if (status != HELM_OK)
                return status;
        *ret_at = at;
        yaml_event_type_t type = events->all[at].type;
        return type == YAML_SCALAR_EVENT || type == YAML_ALIAS_EVENT ? HELM_OK : HELM_UNEDITABLE;
}

// libyaml counts characters, a byte order mark not among them. NULL past the end.
static const char *byte_at(const char *text, size_t size, size_t characters) {
        const char *at = text, *end = text + size;
        if (size >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
                at += 3;
        for (; characters > 0 && at < end; characters--)
                for (at++; at < end && ((unsigned char)*at & 0xc0) == 0x80;)
                        at++;
        return characters == 0 ? at : NULL;
}

static bool same_text(const yaml_char_t *a, const yaml_char_t *b) {
        return a && b ? strcmp((const char *)a, (const char *)b) == 0 : a == b;
}

static bool same_start(const yaml_char_t *anchor_a, const yaml_char_t *tag_a, int style_a, const yaml_char_t *anchor_b,
        const yaml_char_t *tag_b, int style_b) {
        return same_text(anchor_a, anchor_b) && same_text(tag_a, tag_b) && style_a == style_b;
}

static bool same_scalar(const yaml_event_t *a, const yaml_event_t *b) {
        return same_text(a->data.scalar.tag, b->data.scalar.tag) && a->data.scalar.length == b->data.scalar.length &&
               memcmp(a->data.scalar.value, b->data.scalar.value, a->data.scalar.length) == 0 &&
               a->data.scalar.style == b->data.scalar.style;
}

static bool same_event(const yaml_event_t *a, const yaml_event_t *b) {
        if (a->type != b->type)
                return false;
        switch (a->type) {
        case YAML_ALIAS_EVENT:
                return same_text(a->data.alias.anchor, b->data.alias.anchor);
        case YAML_SCALAR_EVENT:
                return same_text(a->data.scalar.anchor, b->data.scalar.anchor) && same_scalar(a, b);
        case YAML_SEQUENCE_START_EVENT:
                return same_start(a->data.sequence_start.anchor, a->data.sequence_start.tag,
                        (int)a->data.sequence_start.style, b->data.sequence_start.anchor, b->data.sequence_start.tag,
                        (int)b->data.sequence_start.style);
        case YAML_MAPPING_START_EVENT:
                return same_start(a->data.mapping_start.anchor, a->data.mapping_start.tag,
                        (int)a->data.mapping_start.style, b->data.mapping_start.anchor, b->data.mapping_start.tag,
                        (int)b->data.mapping_start.style);
        case YAML_NO_EVENT:
        case YAML_STREAM_START_EVENT:
        case YAML_STREAM_END_EVENT:
        case YAML_DOCUMENT_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT:
                break;
        }
        return true;
}

// Whether `after` is `before` with the scalar in the place of the event at `at`.
static bool only_differs_in(
        const struct events *before, const struct events *after, ssize_t at, const yaml_event_t *scalar) {
        if (before->count != after->count)
                return false;
        for (size_t i = 0; i < before->count; i++) {
                const yaml_event_t *event = &after->all[i];
                if ((ssize_t)i != at && !same_event(&before->all[i], event))
                        return false;
                if ((ssize_t)i == at && (event->type != YAML_SCALAR_EVENT || !same_scalar(event, scalar)))
                        return false;
        }
        return true;
}

// One scalar that is all of the text, on one line, without an anchor.
static bool value_good(const struct events *events, const char *value) {
        size_t size = strlen(value);
        if (events->count != 4 || events->all[2].type != YAML_SCALAR_EVENT || strpbrk(value, "\r\n") ||
                isspace((unsigned char)value[0]))
                return false;
        const yaml_event_t *event = &events->all[2];
        yaml_scalar_style_t style = event->data.scalar.style;
        return !event->data.scalar.anchor && style != YAML_LITERAL_SCALAR_STYLE && style != YAML_FOLDED_SCALAR_STYLE &&
               byte_at(value, size, event->start_mark.index) == value &&
               byte_at(value, size, event->end_mark.index) == value + size &&
               events->all[1].data.document_start.implicit && events->all[3].data.document_end.implicit;
}

struct place {
        const char *begin, *end;
        const char *before; // what has to stand between what is there and the value
};

// A block scalar's end is where the next line begins: its line break stays.
static bool place_find(const char *text, size_t size, const yaml_event_t *event, struct place *ret_place) {
        const char *begin = byte_at(text, size, event->start_mark.index);
        const char *end = byte_at(text, size, event->end_mark.index);
        if (!begin || !end || begin > end)
                return false;
        bool block = event->type == YAML_SCALAR_EVENT && (event->data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
                                                                 event->data.scalar.style == YAML_FOLDED_SCALAR_STYLE);
        while (block && end > begin && isspace((unsigned char)end[-1]))
                end--;
        // Nothing (`key:`, `-`): the value goes behind the sign.
        bool nothing = begin == end;
        if (nothing && (begin == text || (begin[-1] != ':' && begin[-1] != '-' && !isspace((unsigned char)begin[-1]))))
                return false;
        *ret_place = (struct place){begin, end, nothing && !isspace((unsigned char)begin[-1]) ? " " : ""};
        return true;
}

static enum helm_status replace(const char *content, size_t size, const struct place *place, const char *anchor,
        const char *value, char **ret_content, size_t *ret_size) {
        size_t length = size + strlen(value) + (anchor ? strlen(anchor) : 0) + 8;
        char *text = malloc(length);
        if (!text)
                return HELM_NO_MEMORY;
        size_t head = (size_t)(place->begin - content), tail = size - (size_t)(place->end - content);
        memcpy(text, content, head);
        int middle = snprintf(text + head, length - head, "%s%s%s%s%s", place->before, anchor ? "&" : "",
                anchor ? anchor : "", anchor ? " " : "", value);
        memcpy(text + head + middle, place->end, tail);
        *ret_content = text;
        *ret_size = head + (size_t)middle + tail;
        return HELM_OK;
}

// Helps helm_value_set, which drops the events.
static enum helm_status set(const char *content, size_t size, const struct path *path, const char *value,
        struct events *file, struct events *scalar, struct events *after, char **ret_content, size_t *ret_size) {
        struct place place;
        ssize_t at;
        enum helm_status status = events_parse(value, strlen(value), scalar);
        if (status == HELM_INVALID_YAML || (status == HELM_OK && !value_good(scalar, value)))
                return HELM_INVALID_VALUE;
        if (status == HELM_OK)
                status = events_parse(content, size, file);
        if (status == HELM_OK)
                status = find(file, path, &at);
        if (status != HELM_OK)
                return status;
        const yaml_event_t *event = &file->all[at];
        if (!place_find(content, size, event, &place))
                return HELM_UNEDITABLE;
        const char *anchor = event->type == YAML_SCALAR_EVENT ? (const char *)event->data.scalar.anchor : NULL;
        status = replace(content, size, &place, anchor, value, ret_content, ret_size);
        if (status == HELM_OK)
                status = events_parse(*ret_content, *ret_size, after);
        if (status == HELM_INVALID_YAML || (status == HELM_OK && !only_differs_in(file, after, at, &scalar->all[2])))
                return HELM_UNEDITABLE;
        return status;
}

enum helm_status helm_value_set(
        const char *content, size_t size, const char *path, const char *value, char **ret_content, size_t *ret_size) {
        struct events file = {.all = NULL}, scalar = {.all = NULL}, after = {.all = NULL};
        struct path *keys = calloc(1, sizeof *keys);
        char *text = NULL;
        size_t text_size = 0;
        if (!keys)
                return HELM_NO_MEMORY;
        enum helm_status status = HELM_INVALID_PATH;
        if (path_parse(path, keys))
                status = size > HELM_FILE_MAX || !text_is_utf8(content, size)
                                 ? HELM_INVALID_YAML
                                 : set(content, size, keys, value, &file, &scalar, &after, &text, &text_size);
        events_drop(&file);
        events_drop(&scalar);
        events_drop(&after);
        free(keys);
        if (status != HELM_OK) {
                free(text);
                return status;
        }
        *ret_content = text;
        *ret_size = text_size;
        return HELM_OK;
}
