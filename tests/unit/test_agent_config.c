// The agent's options: defaults, file, environment, arguments, in that order; what is wrong is said; secrets stay out
// of files and arguments. And the key that was offered.
#include "tests/unit/cmocka_all.h"
#include "tests/unit/scratch.h"
#include "tools/genie-agent/config.h"
#include "tools/genie-agent/key_store.h"

enum { TEXT_SIZE = 20000 };

static struct scratch scratch;
static char said[TEXT_SIZE]; // on standard error, by the last reading

static int set_up(void **) {
        scratch_make(&scratch);
        clearenv();
        setenv("GENIE_AGENT_ENDPOINT", "platform:443", 1);
        setenv("GENIE_AGENT_KEY", "dga_key", 1);
        return 0;
}

static int tear_down(void **) {
        clearenv();
        scratch_drop(&scratch);
        return 0;
}

static bool read_list(struct agent_config *config, char **arguments) {
        int count = 0, standard_error = dup(STDERR_FILENO), rest;
        FILE *file = tmpfile();
        while (arguments[count])
                count++;
        memset(config, 0, sizeof *config);
        fflush(stderr);
        assert_true(file && dup2(fileno(file), STDERR_FILENO) >= 0);
        bool good = agent_config_read(config, count, arguments, &rest);
        fflush(stderr);
        assert_true(dup2(standard_error, STDERR_FILENO) >= 0);
        close(standard_error);
        rewind(file);
        said[fread(said, 1, sizeof said - 1, file)] = '\0';
        fclose(file);
        return good;
}
#define ARGUMENT(literal) ((char[]){literal})
#define READ(config, ...) read_list((config), (char *[]){ARGUMENT("genie-agent"), ##__VA_ARGS__, NULL})

static void use_file(const char *text) {
        scratch_write(&scratch, "config.json", text, 0600);
        setenv("GENIE_AGENT_CONFIG", scratch_path(&scratch, "config.json"), 1);
}

static void test_defaults(void **) {
        struct agent_config config;
        assert_true(READ(&config));
        assert_string_equal(said, "");
        assert_string_equal(config.state_directory, "/var/lib/genie-agent");
        assert_int_equal(config.command_slots, 4);
        assert_false(config.plaintext);
        assert_null(config.pull_request.signing_key_file);
        assert_int_equal(config.label_count, 0);
        agent_config_drop(&config);
}

static void test_file_then_environment_then_arguments(void **) {
        struct agent_config config;
        use_file("{\"command-slots\": 5, \"pull-request-slots\": \"6\", \"author-name\": \"file\", \"plaintext\": true,"
                 " \"endpoint\": \"file:1\", \"labels\": {\"a\": \"1\", \"b\": \"2\"}}");
        assert_true(READ(&config));
        assert_int_equal(config.command_slots, 5);
        assert_int_equal(config.pull_request_slots, 6);
        assert_string_equal(config.endpoint, "platform:443");
        assert_string_equal(config.author_name, "file");
        assert_true(config.plaintext);
        assert_int_equal(config.label_count, 2);
        agent_config_drop(&config);
        setenv("GENIE_AGENT_COMMAND_SLOTS", "7", 1);
        setenv("GENIE_AGENT_LABELS", "c=3,d=", 1);
        assert_true(READ(&config, ARGUMENT("--pull-request-slots=8"), ARGUMENT("--endpoint"), ARGUMENT("argument:1")));
        assert_int_equal(config.command_slots, 7);
        assert_int_equal(config.pull_request_slots, 8);
        assert_string_equal(config.endpoint, "argument:1");
        assert_int_equal(config.label_count, 2);
        assert_string_equal(config.labels[0].name, "c");
        assert_string_equal(config.labels[1].value, "");
        agent_config_drop(&config);
}

static void test_mistakes_in_the_file(void **) {
        static const struct {
                const char *text, *error;
        } rows[] = {
                {"", "line 1"},
                {"[]", "is not a JSON object"},
                {"{\"command-slots\": 1, \"command-slots\": 2}", "duplicate"},
                {"{\"no\": 1}", "there is no option `no`"},
                {"{\"config\": \"x\"}", "there is no option `config`"},
                {"{\"key\": \"dga_secret\"}", "key does not belong into the configuration file"},
                {"{\"command-slots\": 1.5}", "command-slots is not of the right type"},
                {"{\"command-slots\": 101}", "command-slots is a number from 0 to 100, not `101`"},
                {"{\"plaintext\": \"maybe\"}", "plaintext is on or off, not `maybe`"},
                {"{\"labels\": [\"a\"]}", "labels is an object"},
                {"{\"labels\": {\"a\": 1}}", "the label a is not a string"},
                {"{\"log-level\": \"loud\"}", "log-level is error, warning, info or debug, not `loud`"},
                {"{\"commands\": {\"x\": {}}}", "command x"},
                {"{\"git-hosts\": {}}", "git-hosts is an array"},
                {"{\"git-hosts\": [1]}", "a git host is an object"},
                {"{\"git-hosts\": [{}]}", "a git host has no `host`"},
                {"{\"git-hosts\": [{\"host\": \"h\"}]}", "the git host h has no `forge`"},
                {"{\"git-hosts\": [{\"host\": \"h\", \"forge\": \"svn\"}]}", "the git host h has no `forge`"},
                {"{\"git-hosts\": [{\"host\": \"h\", \"forge\": \"github\"}]}", "takes one of token-file and"},
                {"{\"git-hosts\": [{\"host\": \"h\", \"forge\": \"github\", \"token\": \"t\"}]}", "no member `token`"},
                {"{\"git-hosts\": [{\"host\": \"h\", \"forge\": \"github\", \"token-file\": \"f\", "
                 "\"token-variable\": \"v\"}]}",
                        "takes one of token-file and"},
        };
        struct agent_config config;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                use_file(rows[i].text);
                if (READ(&config))
                        fail_msg("%s was taken", rows[i].text);
                if (!strstr(said, rows[i].error) || strstr(said, "dga_secret") || strncmp(said, "genie-agent: ", 13))
                        fail_msg("%s: %s", rows[i].text, said);
                assert_non_null(strchr(said, '\n'));
                assert_int_equal(strchr(said, '\n')[1], '\0'); // one line
                agent_config_drop(&config);
        }
}

static void test_other_mistakes(void **) {
        struct agent_config config;
        assert_false(READ(&config, ARGUMENT("--key=dga_x")));
        assert_non_null(strstr(said, "a secret does not belong into an argument"));
        assert_null(strstr(said, "dga_x"));
        agent_config_drop(&config);
        assert_false(READ(&config, ARGUMENT("--labels=a")));
        assert_non_null(strstr(said, "labels are NAME=VALUE"));
        agent_config_drop(&config);
        char label[200];
        snprintf(label, sizeof label, "--labels=%099d\u00e4=x", 0);
        assert_true(READ(&config, label));
        agent_config_drop(&config);
        snprintf(label, sizeof label, "--labels=%0100d\u00e4=x", 0);
        assert_false(READ(&config, label));
        assert_non_null(strstr(said, "at most 100 characters"));
        agent_config_drop(&config);
        setenv("GENIE_AGENT_CONFIG", "/no/such/file", 1);
        assert_false(READ(&config));
        assert_non_null(strstr(said, "/no/such/file"));
        agent_config_drop(&config);
        unsetenv("GENIE_AGENT_CONFIG");
        unsetenv("GENIE_AGENT_KEY");
        assert_false(READ(&config));
        assert_non_null(strstr(said, "no key"));
        agent_config_drop(&config);
}

static void test_git_hosts(void **) {
        struct agent_config config;
        use_file("{\"git-hosts\": [{\"host\": \"git.example:8443\", \"forge\": \"gitea\", \"token-file\": \"/t\", "
                 "\"api-url\": \"https://git.example/api\", \"user\": \"bot\", \"ca-file\": \"/ca\", "
                 "\"allow-http\": true}, {\"host\": \"github.com\", \"forge\": \"github\", \"token-variable\": "
                 "\"T\"}]}");
        assert_true(READ(&config));
        assert_int_equal(config.pull_request.host_count, 2);
        const struct git_host *host = config.pull_request.hosts;
        assert_string_equal(host[0].name, "git.example:8443");
        assert_int_equal(host[0].forge, FORGE_GITEA);
        assert_string_equal(host[0].token_file, "/t");
        assert_true(host[0].allow_http && !host[1].allow_http);
        assert_string_equal(host[1].token_variable, "T");
        assert_null(host[1].api_url);
        agent_config_drop(&config);
}

// A command gets neither the agent's key nor a git host's token.
static void test_no_secrets_for_commands(void **) {
        static const char *const variables[] = {"GENIE_AGENT_KEY", "T"};
        struct agent_config config;
        char text[400];
        for (unsigned i = 0; i < 2; i++) {
                snprintf(text, sizeof text,
                        "{\"commands\": {\"x\": {\"argv\": [\"/x\"], \"environment\": [\"%s\"]}}, \"git-hosts\": "
                        "[{\"host\": \"h\", \"forge\": \"github\", \"token-variable\": \"T\"}]}",
                        variables[i]);
                use_file(text);
                assert_false(READ(&config));
                assert_non_null(strstr(said, "must not see the agent's own"));
                agent_config_drop(&config);
        }
}

static void test_help_has_every_option(void **) {
        char help[TEXT_SIZE] = "";
        FILE *file = fmemopen(help, sizeof help - 1, "w");
        agent_config_help(file);
        fclose(file);
        assert_non_null(strstr(help, "--state-directory TEXT"));
        assert_non_null(strstr(help, "GENIE_AGENT_STATE_DIRECTORY"));
        assert_non_null(strstr(help, "; 0 to 100; default 4"));
        assert_non_null(strstr(help, "GENIE_AGENT_KEY\n"));
        assert_null(strstr(help, "--key "));
}

static void test_key(void **) {
        struct agent_config config = {.key = "dga_environment", .key_file = ""};
        char key[KEY_SIZE], *error = NULL;
        assert_true(agent_config_key(&config, key, &error));
        assert_string_equal(key, "dga_environment");
        scratch_write(&scratch, "key", "dga_file\n", 0600);
        config.key_file = scratch_path(&scratch, "key");
        assert_true(agent_config_key(&config, key, &error));
        assert_string_equal(key, "dga_file");
        scratch_write(&scratch, "key", "dga_new", 0600); // read anew
        assert_true(agent_config_key(&config, key, &error));
        assert_string_equal(key, "dga_new");
        static const char *const bad[] = {"", "\n", "dga_a b", "dga_\001"};
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                scratch_write(&scratch, "key", bad[i], 0600);
                assert_false(agent_config_key(&config, key, &error));
                assert_non_null(strstr(error, "holds no key"));
                assert_null(strstr(error, "dga_"));
                free(error);
        }
}

static void test_offered_key(void **) {
        char key[KEY_SIZE], long_key[KEY_SIZE + 1];
        int folder = open(scratch.folder, O_RDONLY | O_DIRECTORY);
        struct stat status;
        assert_false(key_store_find(folder, "configured", key));
        assert_true(key_store_keep(folder, "configured", "dga_offered"));
        assert_int_equal(stat(scratch_path(&scratch, "offered-key"), &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
        assert_true(key_store_find(folder, "configured", key));
        assert_string_equal(key, "dga_offered");
        assert_false(key_store_find(folder, "changed", key)); // the operator's own change wins
        assert_true(key_store_keep(folder, "configured", "dga_second"));
        assert_true(key_store_find(folder, "configured", key));
        assert_string_equal(key, "dga_second");
        memset(long_key, 'a', KEY_SIZE);
        long_key[KEY_SIZE] = '\0';
        assert_false(key_store_keep(folder, "configured", long_key));
        assert_false(key_store_keep(folder, "configured", ""));
        assert_true(key_store_find(folder, "configured", key)); // what was there stays
        close(folder);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_defaults),
                TEST(test_file_then_environment_then_arguments),
                TEST(test_mistakes_in_the_file),
                TEST(test_other_mistakes),
                TEST(test_git_hosts),
                TEST(test_no_secrets_for_commands),
                TEST(test_help_has_every_option),
                TEST(test_key),
                TEST(test_offered_key),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
