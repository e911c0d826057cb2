#include "server/rpc/outbox.h"

#include "server/log.h"
#include "server/rpc/coalesce.h"

#include <assert.h>

static _Thread_local const struct outbox *here;

void outbox_open(struct outbox *outbox) { here = outbox; }

bool outbox_is_here(const struct outbox *outbox) { return here == outbox; }

void outbox_put(struct outbox *outbox, struct core_call *call) {
        call->next_ready = NULL;
        if (outbox->gathered)
                outbox->gathered_last->next_ready = call;
        else
                outbox->gathered = call;
        outbox->gathered_last = call;
}

// On the call thread. What comes while it works finds `ready` empty, and wakes it again.
static void send_ready(struct tag *tag, bool ok) {
        (void)ok;
        struct outbox *outbox = (struct outbox *)(void *)tag;
        struct core_call *call = atomic_exchange(&outbox->ready, NULL);
        coalesce_begin();
        while (call) {
                struct core_call *next = call->next_ready; // the call may end with its sending
                unary_send(call);
                call = next;
        }
        coalesce_end();
        log_flush();
}

// A batch without an operation posts its tag at once: core's way to another thread.
void outbox_flush(struct outbox *outbox) {
        struct core_call *first = outbox->gathered, *waiting = NULL;
        if (!first)
                return;
        outbox->gathered = NULL;
        do
                outbox->gathered_last->next_ready = waiting;
        while (!atomic_compare_exchange_weak(&outbox->ready, &waiting, first));
        if (waiting)
                return; // a wake-up is under way
        tag_arm(&outbox->tag, send_ready);
        grpc_call_error error = grpc_call_start_batch(first->core, NULL, 0, &outbox->tag, NULL);
        assert(error == GRPC_CALL_OK);
        (void)error;
}
