// A call without a server: what the steps that decide about a request need of it.
#pragma once

#include "server/rpc/call_private.h"
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <string.h>

enum { CALL_ARENA = 1 << 20 };

// A call of a method of the API by its last two names, such as `FindingService/GetFinding`. The request stays the
// caller's.
static inline struct call *call_begin(struct core_call *core, const char *method, ProtobufCMessage *request) {
        char path[100];
        memset(core, 0, sizeof *core);
        arena_init(&core->call.arena, CALL_ARENA);
        snprintf(path, sizeof path, "/devopsgenie.v1.%s", method);
        assert_true(method_table_init());
        core->call.method = method_find(path, strlen(path));
        if (!core->call.method)
                fail_msg("no method %s", path);
        if (request)
                assert_ptr_equal(request->descriptor, core->call.method->request);
        core->call.request = request;
        snprintf(core->call.request_id, sizeof core->call.request_id, "%s", "request-1");
        return &core->call;
}

static inline void call_end(struct core_call *core) { arena_drop(&core->call.arena, false); }

// Drops the refusal, so that the same call can be asked again.
static inline void call_forgive(struct call *call) { memset(&call->refusal, 0, sizeof call->refusal); }
