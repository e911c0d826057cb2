// Keeps what an idle connection holds small. gRPC core has no option for most of it, so that this module says it where
// core asks: it defines SSL_CTX_new for the whole executable, the way an allocator defines malloc, and makes contexts
// that give TLS's buffers of a connection (33 kB) back whenever they are empty; and it has core read in pieces that
// grow with what comes, in place of 8 kB at least. Off, nothing is changed.
#pragma once

#include <stdbool.h>

enum { LEAN_READ_BYTES = 1024 }; // the first piece that a connection reads into

// Before anything of core or OpenSSL is called, by the first thread alone.
void lean_start(void);

bool lean_is_on(void);
