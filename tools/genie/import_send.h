// Sends a run to the server as a scan, over as many connections as it takes.
#pragma once

#include "devopsgenie/v1/scan_service.pb-c.h"
#include "tools/client/client.h"
#include "tools/genie/import_feed.h"
#include "tools/genie/request_id.h"

struct import {
        struct client *client;
        struct feed feed;
        struct report report;
        const Devopsgenie__V1__Coverage *coverage; // NULL: as reported
        char account[200];                         // the account's resource name
        char request_id[REQUEST_ID_SIZE];
        char scan[200];    // the scan's resource name, once it started
        bool end_sent;     // the server may have all of it
        int64_t confirmed; // the record up to which the server has it
};

// Sends the feed's run to its end. The scan as it is then, to be freed; NULL: it failed, which was printed.
Devopsgenie__V1__Scan *import_send(struct import *import);
