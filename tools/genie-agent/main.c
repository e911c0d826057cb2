// genie-agent: does the platform's tasks in a customer's cluster.
#include "tools/genie-agent/agent.h"
#include "tools/genie-agent/check.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

static int usage(FILE *to) {
        fputs("genie-agent runs where an organization's systems are. It dials out to the platform, gets tasks, does "
              "them\n"
              "with credentials that never leave this place, and reports back. It listens on no port.\n"
              "\n"
              "  genie-agent run [OPTION…]      works until SIGTERM; a second SIGTERM ends it at once\n"
              "  genie-agent check [OPTION…]    tries everything that `run` needs; 0 where all is well\n"
              "  genie-agent --version\n"
              "  genie-agent --help\n"
              "\n"
              "Options, each also a variable of the environment and a member of the configuration file; arguments "
              "count\n"
              "before the environment, the environment before the file:\n"
              "\n",
                to);
        agent_config_help(to);
        return to == stdout ? 0 : 2;
}

int main(int argc, char **argv) {
        struct agent_config config = {0};
        int rest = 0, status;

        // No core dump, and no other process of the same user, a command among them, reads this one's memory or
        // environment: there are keys in them.
        prctl(PR_SET_DUMPABLE, 0);
        if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
                return usage(stdout);
        if (argc >= 2 && !strcmp(argv[1], "--version"))
                return puts("genie-agent " GENIE_VERSION) < 0;
        if (argc < 2 || (strcmp(argv[1], "run") != 0 && strcmp(argv[1], "check") != 0))
                return usage(stderr);
        bool check = !strcmp(argv[1], "check");
        if (!agent_config_read(&config, argc - 1, argv + 1, &rest)) {
                status = check ? 1 : 2;
        } else if (rest != argc - 1) {
                fprintf(stderr, "genie-agent: there is no argument `%s`; see genie-agent --help\n", argv[1 + rest]);
                status = 2;
        } else {
                status = check ? check_all(&config) : agent_run(&config);
        }
        agent_config_drop(&config);
        return status;
}
