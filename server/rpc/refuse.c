#include "server/rpc/refuse.h"

#include "server/rpc/refusals.h"
#include "storage/binder.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { RETRY_MS = 1000 };

static const struct refusal_rule *find_rule(const char *reason) {
        for (const struct refusal_rule *rule = refusal_rules; rule->reason; rule++)
                if (!strcmp(rule->reason, reason))
                        return rule;
        return NULL;
}

// The rule's message with `{name}` replaced by the metadata of that name.
static const char *fill_in(struct call *call, const char *template) {
        char text[1024];
        size_t used = 0;
        for (const char *at = template; *at && used < sizeof text - 1; at++) {
                size_t size = *at == '{' ? strcspn(at, "}") : 0;
                const char *value = NULL;
                for (unsigned i = 0; size && i < call->refusal.metadata_count; i++)
                        if (strlen(call->refusal.metadata[i].name) == size - 1 &&
                                !strncmp(call->refusal.metadata[i].name, at + 1, size - 1))
                                value = call->refusal.metadata[i].value;
                if (!value) {
                        text[used++] = *at;
                        continue;
                }
                int written = snprintf(text + used, sizeof text - used, "%s", value);
                used += written > 0 ? (size_t)written : 0;
                at += size;
        }
        text[used < sizeof text ? used : sizeof text - 1] = 0;
        return arena_copy(&call->arena, text, strlen(text));
}

// Refuses for a reason of the table. An unknown one is a bug of ours: the statement and the table disagree.
static void refuse_for(struct core_call *call, const char *reason) {
        const struct refusal_rule *rule = find_rule(reason);
        if (!rule) {
                call_fail(&call->call, arena_printf(&call->call.arena, "no refusal rule for %s", reason));
                return;
        }
        const char *message = fill_in(&call->call, rule->message);
        if (rule->field)
                call_refuse_field(&call->call, rule->field, "%s", message ? message : rule->message);
        else
                call_refuse(&call->call, rule->code, rule->reason, "%s", message ? message : rule->message);
        call->call.refusal.reason = rule->reason;
        call->call.refusal.precondition = rule->precondition;
        call->call.refusal.about_resource = rule->about_resource;
        call->call.refusal.retry_ms = rule->retry_ms;
}

static void add_metadata(struct core_call *call, const PGresult *result) {
        const char *names[METADATA_MAX], *values[METADATA_MAX];
        unsigned count = binding_refusal_metadata(call->binding, result, METADATA_MAX, names, values);
        for (unsigned i = 0; i < count; i++) {
                const char *name = strncmp(names[i], "refusal_", 8) ? names[i] : names[i] + 8;
                call_refusal_metadata(&call->call, arena_copy(&call->call.arena, name, strlen(name)),
                        arena_copy(&call->call.arena, values[i], strlen(values[i])));
        }
}

bool refuse_by_row(struct core_call *call, const PGresult *result) {
        const char *reason = PQntuples(result) ? binding_refusal(call->binding, result) : NULL;
        if (!reason)
                return false;
        add_metadata(call, result);
        refuse_for(call, reason);
        return true;
}

// A violated constraint is a refusal by its name; all else that PostgreSQL refuses is ours, or the database's.
static void refuse_sql(struct core_call *call, const PGresult *result) {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE),
                   *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
        if (state && !strncmp(state, "23", 2) && constraint) {
                char *reason = arena_copy(&call->call.arena, constraint, strlen(constraint));
                for (char *c = reason; c && *c; c++)
                        *c = (char)toupper((unsigned char)*c);
                refuse_for(call, reason ? reason : "INTERNAL");
        } else if (state && (!strcmp(state, "40001") || !strcmp(state, "40P01") || !strcmp(state, "55P03"))) {
                call_refuse(&call->call, CODE_ABORTED, "CONCURRENT_CHANGE",
                        "another call changed the same things; try again");
                call->call.refusal.retry_ms = RETRY_MS / 10;
        } else {
                const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
                call_fail(&call->call, arena_printf(&call->call.arena, "SQLSTATE %s: %s", state ? state : "?",
                                               message ? message : "?"));
        }
}

bool call_check_outcome(struct core_call *call, enum storage_outcome outcome, const PGresult *result) {
        switch (outcome) {
        case STORAGE_OK:
                return true;
        case STORAGE_REFUSED:
                refuse_sql(call, result);
                return false;
        case STORAGE_CANCELLED:
                return call_refuse(&call->call, CODE_CANCELLED, "CANCELLED", "the call was cancelled");
        case STORAGE_DEADLINE:
                return call_refuse(
                        &call->call, CODE_DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the call took longer than it may");
        case STORAGE_LOST:
                call_refuse(&call->call, CODE_UNAVAILABLE, "OUTCOME_UNKNOWN",
                        "the database connection broke; whether the change happened is not known");
                break;
        case STORAGE_DOWN:
        default:
                call_refuse(
                        &call->call, CODE_UNAVAILABLE, "DATABASE_UNAVAILABLE", "the database cannot be reached now");
        }
        call->call.refusal.retry_ms = RETRY_MS;
        return false;
}
