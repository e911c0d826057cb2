#include "server/statements.h"

#include "server/rpc/call.h"
#include "server/rpc/method.h"

#include <devopsgenie/internal/channel.pb-c.h>
#include <devopsgenie/v1/scan_service.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The internal queries, and what their parameters and rows are. Without a response their rows are read by C.
static const struct {
        const char *file;
        enum lane lane;
        const ProtobufCMessageDescriptor *request, *response;
        const char *const *name_variables, *const *given;
} internals[INTERNAL_COUNT] = {
        [INTERNAL_FIND_API_KEY] = {"internal/find_api_key.sql", LANE_READ,
                .given = (const char *const[]){"key_prefix", NULL}},
        [INTERNAL_FIND_AGENT_KEY] = {"internal/find_agent_key.sql", LANE_READ,
                .given = (const char *const[]){"key_prefix", NULL}},
        [INTERNAL_FIND_MEMBER] = {"internal/find_member.sql", LANE_WRITE,
                .given = (const char *const[]){"subject", "email", NULL}},
        [INTERNAL_FIND_ORGANIZATION] = {"internal/find_organization.sql", LANE_READ},
        [INTERNAL_TOUCH_API_KEYS] = {"internal/touch_api_keys.sql", LANE_WRITE,
                .given = (const char *const[]){"organization_ids", "api_key_ids", NULL}},
        [INTERNAL_SWEEP] = {"internal/sweep.sql", LANE_BULK, .given = (const char *const[]){"row_limit", NULL}},
        [INTERNAL_START_IMPORT] = {"internal/start_import.sql", LANE_BULK, &devopsgenie__v1__import_header__descriptor,
                .name_variables = (const char *const[]){"organization", "cloud_account", NULL}},
        [INTERNAL_IMPORT_BATCH] = {"internal/import_batch.sql", LANE_BULK, &devopsgenie__v1__import_batch__descriptor,
                .given = (const char *const[]){"scan_id", NULL}},
        [INTERNAL_COMPLETE_IMPORT] = {"internal/complete_import.sql", LANE_BULK,
                &devopsgenie__v1__import_end__descriptor, &devopsgenie__v1__scan__descriptor,
                .given = (const char *const[]){"scan_id", NULL}},
        [INTERNAL_RELEASE_IMPORT] = {"internal/release_import.sql", LANE_BULK,
                .given = (const char *const[]){"scan_id", NULL}},
        [INTERNAL_OPEN_SESSION] = {"internal/open_session.sql", LANE_WRITE,
                &devopsgenie__internal__session_start__descriptor, &devopsgenie__internal__session_started__descriptor},
        [INTERNAL_CLOSE_SESSIONS] = {"internal/close_sessions.sql", LANE_WRITE,
                &devopsgenie__internal__sessions__descriptor},
        [INTERNAL_CHECK_SESSIONS] = {"internal/check_sessions.sql", LANE_READ,
                &devopsgenie__internal__sessions__descriptor},
        [INTERNAL_FIND_NEW_SESSIONS] = {"internal/find_new_sessions.sql", LANE_READ,
                &devopsgenie__internal__replica__descriptor},
        [INTERNAL_CLAIM_TASKS] = {"internal/claim_tasks.sql", LANE_WRITE, &devopsgenie__internal__claims__descriptor},
        [INTERNAL_START_TASKS] = {"internal/start_tasks.sql", LANE_WRITE, &devopsgenie__internal__starts__descriptor},
        [INTERNAL_REJECT_TASKS] = {"internal/reject_tasks.sql", LANE_WRITE,
                &devopsgenie__internal__rejections__descriptor},
        [INTERNAL_END_TASKS] = {"internal/end_tasks.sql", LANE_WRITE, &devopsgenie__internal__endings__descriptor},
        [INTERNAL_NOTE_EFFECTS] = {"internal/note_effects.sql", LANE_WRITE,
                &devopsgenie__internal__effects__descriptor},
        [INTERNAL_APPEND_LOGS] = {"internal/append_logs.sql", LANE_BULK,
                &devopsgenie__internal__log_pieces__descriptor},
        [INTERNAL_ANSWER_CANCELS] = {"internal/answer_cancels.sql", LANE_WRITE,
                &devopsgenie__internal__cancel_answers__descriptor},
        [INTERNAL_FIND_CANCELS] = {"internal/find_cancels.sql", LANE_READ,
                &devopsgenie__internal__cancels_wanted__descriptor},
        [INTERNAL_CHANNEL_TICK] = {"internal/channel_tick.sql", LANE_WRITE, &devopsgenie__internal__tick__descriptor},
        [INTERNAL_LEAVE_REPLICA] = {"internal/leave_replica.sql", LANE_WRITE,
                &devopsgenie__internal__replica__descriptor},
        [INTERNAL_OFFER_KEY] = {"internal/offer_key.sql", LANE_WRITE, &devopsgenie__internal__key_made__descriptor},
        [INTERNAL_NOTIFY] = {"internal/notify.sql", LANE_WRITE, &devopsgenie__internal__notices__descriptor},
        [INTERNAL_READ_TASK_LOG] = {"internal/read_task_log.sql", LANE_READ,
                .name_variables = (const char *const[]){"organization", "task", NULL},
                .given = (const char *const[]){"attempt", "log_stream", "stdout_offset", "stderr_offset", NULL}},
        [INTERNAL_WATCH_TASKS] = {"internal/watch_tasks.sql", LANE_READ,
                .given = (const char *const[]){"position", "sequence", "watched_task", NULL}},
        [INTERNAL_WATCH_AGENTS] = {"internal/watch_agents.sql", LANE_READ,
                .given = (const char *const[]){"position", "sequence", NULL}},
};

static const char *sql_of(const char *file) {
        for (unsigned i = 0; i < internal_query_count; i++)
                if (!strcmp(internal_queries[i].file, file))
                        return internal_queries[i].sql;
        return NULL;
}

// Adds what went wrong to what did before. Takes `problem` over.
static void add_problem(char **errors, char *problem) {
        char *all = NULL;
        if (!problem || asprintf(&all, "%s%s%s", *errors ? *errors : "", *errors ? "\n" : "", problem) < 0)
                all = NULL;
        free(problem);
        if (all) {
                free(*errors);
                *errors = all;
        }
}

static struct binding *new_method(const struct method *method, char **errors) {
        char *error = NULL;
        struct binding *binding = binding_new(
                &(struct binding_source){
                        .file = method->sql_file,
                        .name = method->full_name,
                        .sql = method->sql,
                        .lane = method->lane,
                        .request = method->request,
                        .response = method->response,
                        .name_variables = method->name.variables,
                        .body = method->body,
                        .given = method->given,
                },
                &error);
        add_problem(errors, error);
        return binding;
}

static struct binding *new_internal(unsigned i, char **errors) {
        char *error = NULL;
        const char *sql = sql_of(internals[i].file);
        if (!sql) {
                if (asprintf(&error, "%s: no such file", internals[i].file) < 0)
                        error = NULL;
                add_problem(errors, error);
                return NULL;
        }
        struct binding *binding = binding_new(
                &(struct binding_source){
                        .file = internals[i].file,
                        .name = internals[i].file,
                        .sql = sql,
                        .lane = internals[i].lane,
                        .request = internals[i].request,
                        .response = internals[i].response,
                        .name_variables = internals[i].name_variables,
                        .given = internals[i].given,
                },
                &error);
        add_problem(errors, error);
        return binding;
}

bool statements_new(struct statements *statements, char **ret_error) {
        *ret_error = NULL;
        statements->methods = calloc(method_count, sizeof(struct binding *));
        statements->internals = calloc(INTERNAL_COUNT, sizeof(struct binding *));
        statements->all = calloc(method_count + INTERNAL_COUNT + 1, sizeof(struct storage_statement *));
        if (!statements->methods || !statements->internals || !statements->all) {
                *ret_error = strdup("out of memory");
                return false;
        }
        unsigned count = 0;
        for (unsigned i = 0; i < method_count; i++)
                if (methods[i].sql && (statements->methods[i] = new_method(&methods[i], ret_error)))
                        statements->all[count++] = binding_statement(statements->methods[i]);
        for (unsigned i = 0; i < INTERNAL_COUNT; i++)
                if ((statements->internals[i] = new_internal(i, ret_error)))
                        statements->all[count++] = binding_statement(statements->internals[i]);
        return !*ret_error;
}

bool statements_describe(struct statements *statements, PGconn *connection, char **ret_error) {
        *ret_error = NULL;
        for (unsigned i = 0; i < method_count + INTERNAL_COUNT; i++) {
                struct binding *binding = i < method_count ? statements->methods[i]
                                                           : statements->internals[i - method_count];
                char *error = NULL;
                if (binding && !binding_describe(binding, connection, &error))
                        add_problem(ret_error, error);
        }
        return !*ret_error;
}

void statements_free(struct statements *statements) {
        for (unsigned i = 0; statements->methods && i < method_count; i++)
                binding_free(statements->methods[i]);
        for (unsigned i = 0; statements->internals && i < INTERNAL_COUNT; i++)
                binding_free(statements->internals[i]);
        free(statements->methods);
        free(statements->internals);
        free(statements->all);
}
