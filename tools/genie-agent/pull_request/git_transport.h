// git's smart protocol over http.h, for libgit2: credentials, certificates, time limits and stops are http.h's
// business, and libgit2, its errors and its files never see the token.
#pragma once

#include "tools/genie-agent/pull_request/http.h"

#include <git2.h>

// What went wrong at the host, where a libgit2 call over the transport failed; end is HTTP_OK with status 0 where the
// trouble is not the host's.
struct git_transport_context {
        struct http *http;
        enum http_end end;
        struct http_response response; // body: the beginning of what was said
};

// For git_remote_callbacks.transport; the payload is a git_transport_context, which outlives the remote.
int git_transport_make(git_transport **ret_transport, git_remote *owner, void *context);

void git_transport_forget(struct git_transport_context *context); // what went wrong before
