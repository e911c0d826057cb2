// A look at a message's wire format before protobuf-c unpacks it, for what protobuf-c does not check: nesting, UTF-8,
// NUL in strings, truncated fields. Never allocates.
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

enum { PRESCAN_DEPTH = 100 };

// NULL when the message may be unpacked; else what is wrong, with the field's path in *ret_field where it is known: the
// thread's own, until its next prescan.
const char *prescan(
        const ProtobufCMessageDescriptor *descriptor, const unsigned char *data, size_t size, const char **ret_field);

// Whether the bytes are UTF-8 (RFC 3629: shortest forms, no surrogates, at most U+10FFFF) without NUL.
_Bool is_utf8_text(const unsigned char *data, size_t size);
