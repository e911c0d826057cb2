// The options of genied: one table, from which come parsing, environment, --help and check-config.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { LISTEN_MAX = 8, ISSUERS_MAX = 8, COPIES_MAX = 64 };

struct config {
        const char *database_url, *database_role;
        const char *listen[LISTEN_MAX + 1], *listen_plain[LISTEN_MAX + 1]; // NULL-terminated
        const char *tls_certificate, *tls_key;
        const char *vault_key_file, *jwks_file, *audience;
        const char *issuers[ISSUERS_MAX + 1]; // NULL-terminated
        const char *log_calls;
        long read_connections, write_connections, bulk_connections;
        long read_queue, write_queue, bulk_queue;
        long statement_timeout_ms, bulk_timeout_ms, default_timeout_ms, drain_timeout_ms, drain_pause_ms;
        long call_threads, max_calls, max_open_streams, max_streams, max_message_bytes;
        long lease_ms, offer_ms, heartbeat_ms, silence_ms, log_window_bytes, max_log_bytes, drain_spread_ms;
        bool reflection, coalesce, lean_connections;
        char *copies[COPIES_MAX]; // what the lists point into
        unsigned copy_count;
};

// Defaults, then the environment, then the arguments; `ret_rest` is the index of the first argument that is no option.
// False after saying on standard error what is wrong.
bool config_read(struct config *config, int argc, char **argv, int *ret_rest);

void config_drop(struct config *config);

// The table as --help shows it.
void config_help(FILE *to);

// What would be in force, a line per option; passwords in URLs are not shown.
void config_print(const struct config *config, FILE *to);
