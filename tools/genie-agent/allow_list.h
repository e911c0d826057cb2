// The commands that COMMAND tasks may name. Nothing else is ever run, and no shell reads any of it.
//
//   "commands": {
//     "restart": {
//       "description": "Restarts a deployment",
//       "argv": ["/usr/bin/kubectl", "rollout", "restart"],
//       "arguments": ["deployment/[a-z0-9-]+"],
//       "more-arguments": "--namespace=[a-z0-9-]+",
//       "environment": ["KUBECONFIG"],
//       "directory": "/"
//     }
//   }
//
// A task's arguments follow those of argv. There must be at least as many as `arguments` has; each must match its
// pattern, and the ones beyond them `more-arguments` (none: there must be no others). Patterns are POSIX extended
// regular expressions and match the whole argument; one that begins with `-`, which programs take for an option, is let
// through by a pattern that begins so too, and no other. The command gets only the named variables of the agent's own
// environment.
#pragma once

#include <jansson.h>
#include <regex.h>
#include <stdbool.h>
#include <stddef.h>

struct allowed_pattern {
        regex_t regex;
        bool option; // begins with `-`
};

struct allowed_command {
        const char *name, *description, *directory; // strings live in the JSON
        const char **argv, **environment;
        struct allowed_pattern *arguments, *more_arguments; // more_arguments: NULL for none
        size_t argv_count, argument_count, environment_count;
};

struct allow_list {
        struct allowed_command *commands;
        size_t count;
};

// Reads the object; false with *ret_error (malloc'ed), which names the command. allow_list_drop in either case.
bool allow_list_read(struct allow_list *list, const json_t *object, char **ret_error)
        __attribute__((warn_unused_result));
void allow_list_drop(struct allow_list *list);

// NULL: it is not allowed.
const struct allowed_command *allow_list_find(const struct allow_list *list, const char *name);

// -1: the arguments are allowed; else the index of the first that is not, which is `count` where one is missing.
int allow_list_match(const struct allowed_command *command, char *const *arguments, size_t count);
