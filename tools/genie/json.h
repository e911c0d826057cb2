// Messages as JSON (proto3's mapping: lowerCamelCase names, RFC 3339 times, 64-bit numbers as strings).
#pragma once

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

// A message as an object. Fields that have their default value are there too, messages that are not set are not: a
// script finds every field of a message that is there.
json_t *json_message(const ProtobufCMessage *message);

// Text from strangers: what is not UTF-8 becomes U+FFFD.
json_t *json_text(const char *text);

// Prints a value on one line, and lets go of it. On a terminal it is ASCII, so that no name in it steers that.
void json_print(FILE *out, json_t *value);
