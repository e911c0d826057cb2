// Which cloud account a run's results are of.
#pragma once

#include "tools/client/client.h"
#include "tools/genie/import_feed.h"
#include "tools/genie/options.h"

// Finds the account by --account or by what the head says, in the organization. False: there is none, or another
// one than the file is about; that was printed, with what can be done.
bool import_find_account(struct client *client, const struct options *options, const char *organization,
        const struct scan_head *head, char *ret_name, size_t size);
