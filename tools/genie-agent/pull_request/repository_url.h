// URLs of repositories, taken apart. No I/O.
#pragma once

#include <stdbool.h>

enum { REPOSITORY_HOST_MAX = 260, REPOSITORY_PATH_MAX = 1000 };

struct repository_url {
        bool http;                           // without TLS
        char host[REPOSITORY_HOST_MAX + 1];  // HOST or HOST:PORT, in lower case
        char path[REPOSITORY_PATH_MAX + 1];  // such as acme/infrastructure: no slash at its ends, no `.git`
        char owner[REPOSITORY_PATH_MAX + 1]; // the last part but one
        const char *name;                    // the last part, in `path`
        char url[REPOSITORY_PATH_MAX + 300]; // to fetch from: scheme, host, path and `.git`
};

// NULL, or what is wrong, without the URL's text: there may be a password in it.
const char *repository_url_parse(const char *text, struct repository_url *ret_url);
