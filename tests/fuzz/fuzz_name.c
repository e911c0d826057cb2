// Resource names, for libFuzzer: what passes is made of its parts again, to the last byte.
#include "server/rpc/call_private.h"
#include "server/rpc/name.h"

#include <devopsgenie/v1/finding_service.pb-c.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char path[] = "/devopsgenie.v1.FindingService/GetFinding";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct core_call core;
        struct call *call = &core.call;
        Devopsgenie__V1__GetFindingRequest request = DEVOPSGENIE__V1__GET_FINDING_REQUEST__INIT;
        request.name = malloc(size + 1);
        if (!request.name || !method_table_init())
                abort();
        memcpy(request.name, data, size);
        request.name[size] = 0;
        memset(&core, 0, sizeof core);
        arena_init(&call->arena, 1 << 16);
        call->request = &request.base;
        call->method = method_find(path, sizeof path - 1);
        if (name_locate(call) && name_check(call)) {
                char *again = arena_printf(
                        &call->arena, "organizations/%s/findings/%s", call->name_values[0], call->name_values[1]);
                if (!again || strcmp(again, request.name) != 0 || strcmp(call->organization, call->name_values[0]) != 0)
                        abort();
        } else if (call->refusal.code != CODE_INVALID_ARGUMENT)
                abort();
        arena_drop(&call->arena, false);
        free(request.name);
        return 0;
}
