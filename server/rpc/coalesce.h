// Gathers what gRPC core sends. Core writes each reply with a sendmsg of its own, and those system calls are a third of
// a small call's cost. This module defines sendmsg, shutdown and close for the whole executable, the way an allocator
// defines malloc: between coalesce_begin and coalesce_end of a thread, its sends go into a buffer per socket, and
// coalesce_end sends each buffer at once. Calls of other threads, and all calls when it is off, go straight to the
// kernel.
//
// What core sees stays true: once the kernel's buffer is full, sendmsg says EAGAIN, and what was gathered follows when
// the socket is writable; an error of a late send ends the connection and is reported by the next sendmsg; nothing
// overtakes what was gathered before it; shutdown and close send it first, as far as the kernel's buffer takes it,
// which is why coalesce_stop comes before a drain. At most COALESCE_BYTES wait per socket, and none of it is held while
// nothing waits.
//
// Only stream sockets that do not block are gathered for. Such a socket is to be sent to by sendmsg alone, through one
// descriptor, and to be closed by close: what write, a duplicate or dup2 do to it is not seen here.
#pragma once

#include <stdbool.h>

enum { COALESCE_BYTES = 65536 };

// Starts the thread that sends what a full socket left behind. Without it nothing is ever gathered.
bool coalesce_start(void);

// Nothing is gathered from here on; what waits is still sent.
void coalesce_stop(void);

// From here to coalesce_end, this thread's sends are gathered. May be called again while it holds.
void coalesce_begin(void);

// Sends what this thread has gathered; its sends go straight to the kernel again.
void coalesce_end(void);
