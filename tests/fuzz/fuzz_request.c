// A request's way from the wire to the statement, for libFuzzer: pre-scan, name and validation by the rules of the
// method that the first byte chooses. A refusal's status is in bounds and holds nothing but text.
#include "server/rpc/call_private.h"
#include "server/rpc/name.h"
#include "server/rpc/prescan.h"
#include "server/rpc/status.h"
#include "server/rpc/validate.h"

#include <google/rpc/status.pb-c.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAP = 4 << 20, STATUS_MAX = 4100 };

static void need(bool holds) {
        if (!holds)
                abort();
}

static void check_status(struct call *call) {
        const unsigned char *packed;
        const char *field;
        size_t size = status_pack(call, &packed);
        need(size <= STATUS_MAX && !prescan(&google__rpc__status__descriptor, packed, size, &field));
        need(size == 0 || call->refusal.violation_count <= VIOLATIONS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct core_call core;
        struct call *call = &core.call;
        const char *field, *problem;
        if (!size)
                return 0;
        memset(&core, 0, sizeof core);
        arena_init(&call->arena, CAP);
        call->method = &methods[data[0] % method_count];
        if ((problem = prescan(call->method->request, data + 1, size - 1, &field)))
                call_refuse_field(call, field, "%s", problem);
        else
                call->request = protobuf_c_message_unpack(
                        call->method->request, arena_protobuf_allocator(&call->arena), size - 1, data + 1);
        if (call->request && name_locate(call) && name_check(call) && validate(call))
                need(call->refusal.code == CODE_OK);
        else if (problem || call->request)
                need(call->refusal.code != CODE_OK);
        if (call->refusal.code != CODE_OK)
                check_status(call);
        arena_drop(&call->arena, false);
        return 0;
}
