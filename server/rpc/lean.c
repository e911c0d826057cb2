#include "server/rpc/lean.h"

#include <dlfcn.h>
#include <openssl/ssl.h>
#include <stdlib.h>

static bool lean;

// Core has the size of its reads as one of its experiments, which are chosen by name in the environment. The one that
// is on reads into 8 kB or 64 kB. What an operator has chosen stands; a later core ignores the name.
void lean_start(void) {
        lean = true;
        setenv("GRPC_EXPERIMENTS", "-tcp_read_chunks", /* overwrite= */ 0);
}

bool lean_is_on(void) { return lean; }

// What the executable and its libraries call in place of OpenSSL's function.
SSL_CTX *SSL_CTX_new(const SSL_METHOD *method) {
        union {
                void *symbol;
                SSL_CTX *(*function)(const SSL_METHOD *);
        } next = {.symbol = dlsym(RTLD_NEXT, "SSL_CTX_new")};
        SSL_CTX *context = next.symbol ? next.function(method) : NULL;
        if (context && lean)
                SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
        return context;
}
