#include "storage/cancel.h"

#include "storage/storage_private.h"

static void *send_request(void *argument) {
        struct canceller *canceller = argument;
        // The outcome does not matter: while the statement runs on, the request is made again.
        char error[256];
        PQcancel(canceller->cancel, error, sizeof error);
        struct storage *storage = canceller->storage;
        atomic_store(&canceller->ended, true);
        storage_look(storage);
        return NULL;
}

bool canceller_start(struct canceller *canceller, struct storage *storage, PGconn *pg) {
        canceller->storage = storage;
        canceller->cancel = PQgetCancel(pg);
        if (!canceller->cancel)
                return false;
        atomic_store(&canceller->ended, false);
        if (pthread_create(&canceller->thread, NULL, send_request, canceller) != 0) {
                PQfreeCancel(canceller->cancel);
                return false;
        }
        canceller->running = true;
        return true;
}

void canceller_finish(struct canceller *canceller) {
        if (!canceller->running)
                return;
        pthread_join(canceller->thread, NULL);
        PQfreeCancel(canceller->cancel);
        canceller->running = false;
}

bool canceller_idle(struct canceller *canceller) {
        if (canceller->running && atomic_load(&canceller->ended))
                canceller_finish(canceller);
        return !canceller->running;
}
