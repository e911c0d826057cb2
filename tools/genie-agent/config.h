// The options of genie-agent: one table, from which come parsing, the configuration file's members, the environment,
// --help and what `check` shows. What has a structure, the allow-list of commands and the git hosts, stands in the
// configuration file alone.
#pragma once

#include "tools/genie-agent/allow_list.h"
#include "tools/genie-agent/pull_request/pull_request.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum { LABELS_MAX = 50, GIT_HOSTS_MAX = 50, KEY_SIZE = 200 };

struct agent_config {
        const char *config, *endpoint, *ca_file, *key, *key_file, *state_directory, *log_level;
        const char *cache_directory, *author_name, *author_email, *signing_key_file;
        long command_slots, pull_request_slots;
        long log_spool_bytes, journal_bytes, cache_bytes;
        long shutdown_grace_ms, superseded_delay_ms, full_disk_wait_ms, pull_request_limit_ms;
        bool plaintext;
        struct {
                const char *name, *value;
        } labels[LABELS_MAX];
        size_t label_count;
        struct allow_list commands;
        struct pull_request_settings pull_request;
        struct git_host git_hosts[GIT_HOSTS_MAX];
        json_t *file;      // what the strings of the configuration file live in
        char *labels_text; // and those of labels given as text
};

// Defaults, then the configuration file, then the environment, then the arguments; `ret_rest` is the index of the first
// argument that is no option. False after saying on standard error, in one line, what is wrong. agent_config_drop in
// either case.
bool agent_config_read(struct agent_config *config, int argc, char **argv, int *ret_rest)
        __attribute__((warn_unused_result));
void agent_config_drop(struct agent_config *config);

// The table as --help shows it.
void agent_config_help(FILE *to);

// The agent's key as it is configured now: from its file, which is read anew, or the environment. False with *ret_error
// (malloc'ed), which does not have it. The caller wipes ret_key.
bool agent_config_key(const struct agent_config *config, char ret_key[static KEY_SIZE], char **ret_error)
        __attribute__((warn_unused_result));
