// Messages as JSON (proto3's mapping: lowerCamelCase names, RFC 3339 times, 64-bit numbers as strings).
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

// Prints a message on one line. Fields that have their default value are printed too, messages that are not set are
// not: a script finds every field of a message that is there.
void json_print(FILE *out, const ProtobufCMessage *message);
