// Tries a TLS handshake with the platform and names what is wrong with its certificate; helps check.c.
#pragma once

#include <stdbool.h>

struct tls_finding {
        char text[400];
};

// endpoint: HOST:PORT. ca_file NULL: the machine's certificate authorities.
bool check_tls(const char *endpoint, const char *ca_file, struct tls_finding *ret_finding);
