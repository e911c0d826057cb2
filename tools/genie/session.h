// What the commands that talk to the server share.
#pragma once

#include "tools/client/client.h"
#include "tools/genie/options.h"

enum { CALL_TIMEOUT_MS = 30000, RESOURCE_NAME_MAX = 200 };

// A client as the options say. NULL: what is wrong was printed.
struct client *session_open(const struct options *options);

// A client with this credential (NULL: none) in place of the options' own.
struct client *session_open_as(const struct options *options, const char *credential);

// "organizations/demo" from --organization, in either form. False: it is missing or wrong, which was printed.
bool session_organization(const struct options *options, char ret_name[static RESOURCE_NAME_MAX]);

// Prints a call's error, fit for a terminal. `doing` says what failed: "cannot list the findings".
void print_call_error(const char *doing, const struct client_error *error);

// Prints a line of the same form for an error of our own.
void print_failure(const char *format, ...) __attribute__((format(printf, 1, 2)));
