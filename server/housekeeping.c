#include "server/housekeeping.h"

#include "server/log.h"
#include "server/rpc/server.h"

#include <string.h>
#include <time.h>

static const int64_t SECOND = 1000000000;
enum { SWEEP_ROWS = 1000, SWEEP_SECONDS = 10, TOUCH_SECONDS = 5 };

static void done(struct storage_operation *operation, enum storage_outcome outcome, PGresult *result) {
        struct chore *chore = (struct chore *)(void *)operation;
        if (outcome == STORAGE_REFUSED)
                log_event("housekeeping", "statement", operation->statement->name, "error",
                        PQresultErrorMessage(result), NULL);
        atomic_store(&chore->under_way, false);
}

static void start(struct housekeeping *housekeeping, struct chore *chore) {
        chore->operation.statement = binding_statement(chore->binding);
        chore->operation.parameters = chore->parameters;
        chore->operation.organization_id = "";
        chore->operation.caller = "system";
        chore->operation.method = "";
        chore->operation.request_id = "";
        chore->operation.done = done;
        atomic_store(&chore->under_way, true);
        if (!storage_submit(housekeeping->storage, &chore->operation))
                atomic_store(&chore->under_way, false);
}

static bool is_due(struct chore *chore, int seconds) {
        int64_t now = now_ns();
        if (now < chore->next || atomic_load(&chore->under_way))
                return false;
        chore->next = now + seconds * SECOND;
        return true;
}

void housekeeping_init(struct housekeeping *housekeeping, struct storage *storage, struct identity *identity,
        const struct statements *statements) {
        memset(housekeeping, 0, sizeof *housekeeping);
        housekeeping->storage = storage;
        housekeeping->identity = identity;
        housekeeping->sweep.binding = statements->internals[INTERNAL_SWEEP];
        memcpy(housekeeping->row_limit, (unsigned char[]){0, 0, SWEEP_ROWS >> 8, SWEEP_ROWS & 0xff}, 4);
        housekeeping->sweep.parameters[0] = (struct storage_value){(const char *)housekeeping->row_limit, 4};
        housekeeping->touch.binding = statements->internals[INTERNAL_TOUCH_API_KEYS];
}

void housekeeping_tick(struct housekeeping *housekeeping) {
        if (is_due(&housekeeping->sweep, SWEEP_SECONDS))
                start(housekeeping, &housekeeping->sweep);
        struct chore *touch = &housekeeping->touch;
        if (is_due(touch, TOUCH_SECONDS) && identity_take_used_keys(housekeeping->identity, housekeeping->organizations,
                                                    housekeeping->keys, USED_KEYS_TEXT)) {
                touch->parameters[0] = (struct storage_value){
                        housekeeping->organizations, (int)strlen(housekeeping->organizations)};
                touch->parameters[1] = (struct storage_value){housekeeping->keys, (int)strlen(housekeeping->keys)};
                start(housekeeping, touch);
        }
        log_flush();
}

void housekeeping_stop(struct housekeeping *housekeeping) {
        struct chore *chores[] = {&housekeeping->sweep, &housekeeping->touch};
        for (unsigned i = 0; i < 2; i++)
                while (atomic_load(&chores[i]->under_way)) {
                        storage_cancel(housekeeping->storage, &chores[i]->operation);
                        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
                }
}
