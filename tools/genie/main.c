// genie: the command line of DevOps Genie.
#include "tools/genie/commands.h"

#include <locale.h>
#include <stdlib.h>

int main(int argc, char **argv) {
        static int (*const run[COMMANDS])(const struct options *) = {
                [COMMAND_TOKEN] = command_token,
                [COMMAND_KEYS] = command_keys,
                [COMMAND_IMPORT] = command_import,
                [COMMAND_FINDINGS] = command_findings,
                [COMMAND_DEMO] = command_demo,
        };
        struct options options;
        int status;

        // For the width of characters on a terminal; C.UTF-8 is there where the user's locale is not.
        if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
                setlocale(LC_CTYPE, "C.UTF-8");
        if (!options_read(&options, argc, argv, &status))
                return status;
        return run[options.command](&options);
}
