// The arithmetic of leases (task-channel.md): what was renewed is counted from when the renewal was sent, and the agent
// stops at 80 % of it, so that it has stopped before the platform gives the task to another. No I/O; times are
// clock_now_ms.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { LEASE_RENEWALS = 16 };

// The renewals that wait for their LeaseAck; of more than LEASE_RENEWALS the oldest is forgotten, to no harm but an
// earlier stop.
struct lease_renewals {
        struct {
                int64_t seq, sent_ms;
        } sent[LEASE_RENEWALS];
        unsigned next;
};

// When to stop, of a lease that counts from `from_ms`.
static inline int64_t lease_stop_ms(int64_t from_ms, int64_t lease_ms) { return from_ms + lease_ms / 10 * 8; }

static inline void lease_renewal_sent(struct lease_renewals *renewals, int64_t seq, int64_t now_ms) {
        renewals->sent[renewals->next].seq = seq;
        renewals->sent[renewals->next].sent_ms = now_ms;
        renewals->next = (renewals->next + 1) % LEASE_RENEWALS;
}

// Takes a LeaseAck. False: no such renewal, or it was answered before.
static inline bool lease_renewal_answered(struct lease_renewals *renewals, int64_t seq, int64_t *ret_sent_ms) {
        for (unsigned i = 0; seq > 0 && i < LEASE_RENEWALS; i++)
                if (renewals->sent[i].seq == seq) {
                        *ret_sent_ms = renewals->sent[i].sent_ms;
                        renewals->sent[i].seq = 0;
                        return true;
                }
        return false;
}
