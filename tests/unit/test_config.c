// Options come from their defaults, the environment and the arguments, in that order; what is wrong is said; what is
// secret is not shown.
#include "server/config.h"
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_SIZE = 20000, ARGUMENTS_MAX = 100 };

// What the last function that was asked has said; on standard error for config_read.
static char said[TEXT_SIZE];

// Reads the configuration from arguments, NULL-terminated.
static bool read_list(struct config *config, char **arguments, int *ret_rest) {
        int count = 0, standard_error = dup(STDERR_FILENO);
        FILE *file = tmpfile();
        assert_non_null(file);
        while (arguments[count])
                count++;
        memset(config, 0, sizeof *config);
        fflush(stderr);
        assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
        bool good = config_read(config, count, arguments, ret_rest);
        fflush(stderr);
        assert_true(dup2(standard_error, STDERR_FILENO) >= 0);
        close(standard_error);
        rewind(file);
        said[fread(said, 1, sizeof said - 1, file)] = 0;
        fclose(file);
        return good;
}

#define READ(config, ...) read_list((config), (char *[]){(char[]){"genied"}, ##__VA_ARGS__, NULL}, &(int){0})
#define ARGUMENT(literal) ((char[]){literal})

static void assert_wrong(char *argument, const char *what) {
        struct config config;
        if (READ(&config, argument))
                fail_msg("%s was taken", argument);
        config_drop(&config);
        if (!strstr(said, what))
                fail_msg("%s: %s", argument, said);
        assert_int_equal(strncmp(said, "genied: ", 8) && !strstr(said, "\ngenied: "), 0);
}

static void test_defaults(void **) {
        struct config config;
        assert_true(READ(&config));
        assert_string_equal(said, "");
        assert_string_equal(config.database_url, "");
        assert_string_equal(config.database_role, "genie_app");
        assert_string_equal(config.listen[0], "127.0.0.1:8443");
        assert_null(config.listen[1]);
        assert_null(config.listen_plain[0]);
        assert_null(config.issuers[0]);
        assert_string_equal(config.audience, "devopsgenie");
        assert_int_equal(config.max_message_bytes, 4 << 20);
        assert_int_equal(config.drain_pause_ms, 0);
        assert_true(config.reflection);
        assert_in_range(config.call_threads, 1, 16); // 0 is chosen by the number of cores
        config_drop(&config);
}

static void test_environment_then_arguments(void **) {
        struct config config;
        setenv("GENIED_MAX_CALLS", "5", 1);
        setenv("GENIED_REFLECTION", "off", 1);
        setenv("GENIED_LISTEN", "[::1]:1,unix:/tmp/x", 1);
        setenv("GENIED_AUDIENCE", "", 1); // set and empty is not the default
        assert_true(READ(&config));
        assert_int_equal(config.max_calls, 5);
        assert_false(config.reflection);
        assert_string_equal(config.listen[0], "[::1]:1");
        assert_string_equal(config.listen[1], "unix:/tmp/x");
        assert_null(config.listen[2]);
        assert_string_equal(config.audience, "");
        config_drop(&config);
        assert_true(READ(&config, ARGUMENT("--max-calls=6"), ARGUMENT("--reflection"), ARGUMENT("on"),
                ARGUMENT("--listen=a:1"), ARGUMENT("--max-calls=7")));
        assert_int_equal(config.max_calls, 7); // the last one counts
        assert_true(config.reflection);
        assert_string_equal(config.listen[0], "a:1");
        assert_null(config.listen[1]);
        config_drop(&config);
        setenv("GENIED_MAX_CALLS", "many", 1);
        assert_false(READ(&config));
        assert_non_null(strstr(said, "max-calls is a number from 1 to 1000000, not `many`"));
        config_drop(&config);
        clearenv();
}

static void test_rest(void **) {
        struct config config;
        int rest = 0;
        char *arguments[] = {ARGUMENT("genied"), ARGUMENT("--max-calls=6"), ARGUMENT("keys"), ARGUMENT("create"), NULL};
        assert_true(read_list(&config, arguments, &rest));
        assert_int_equal(rest, 2);
        config_drop(&config);
        assert_true(READ(&config, ARGUMENT("--"), ARGUMENT("--no-option")));
        config_drop(&config);
}

static void test_numbers(void **) {
        static const char *const wrong[] = {"0", "1000001", "-1", "", "x", "1x", "1 ", "1.5", "0x10", "1e3",
                "99999999999999999999", "-99999999999999999999"};
        char argument[100];
        struct config config;
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
                snprintf(argument, sizeof argument, "--max-calls=%s", wrong[i]);
                assert_wrong(argument, "max-calls is a number from 1 to 1000000, not `");
        }
        assert_true(READ(&config, ARGUMENT("--max-calls=1"), ARGUMENT("--read-queue=1000000")));
        assert_int_equal(config.max_calls, 1);
        assert_int_equal(config.read_queue, 1000000);
        config_drop(&config);
}

static void test_booleans(void **) {
        static const struct {
                const char *text;
                bool on;
        } rows[] = {{"on", true}, {"true", true}, {"1", true}, {"off", false}, {"false", false}, {"0", false}};
        char argument[100];
        struct config config;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                snprintf(argument, sizeof argument, "--coalesce=%s", rows[i].text);
                assert_true(READ(&config, argument));
                assert_int_equal(config.coalesce, rows[i].on);
                config_drop(&config);
        }
        assert_wrong(ARGUMENT("--coalesce=yes"), "coalesce is on or off, not `yes`");
        assert_wrong(ARGUMENT("--coalesce="), "coalesce is on or off, not ``");
        assert_wrong(ARGUMENT("--coalesce=ON"), "coalesce is on or off, not `ON`");
}

static void test_lists(void **) {
        struct config config;
        assert_true(READ(&config, ARGUMENT("--issuer=a,b,c,d,e,f,g,h")));
        assert_string_equal(config.issuers[7], "h");
        assert_null(config.issuers[8]);
        config_drop(&config);
        assert_wrong(ARGUMENT("--issuer=a,b,c,d,e,f,g,h,i"), "issuer takes at most 8 values");
        assert_true(READ(&config, ARGUMENT("--issuer=,a,,b,"), ARGUMENT("--listen=")));
        assert_string_equal(config.issuers[0], "a");
        assert_string_equal(config.issuers[1], "b");
        assert_null(config.issuers[2]);
        assert_null(config.listen[0]); // none: plain sockets only
        config_drop(&config);
}

// Each list that is given is kept: there is an end to it.
static void test_a_list_given_too_often(void **) {
        struct config config;
        static char issuer[] = "--issuer=a";
        char *arguments[ARGUMENTS_MAX] = {issuer};
        for (unsigned i = 1; i < ARGUMENTS_MAX - 1; i++)
                arguments[i] = issuer;
        assert_false(read_list(&config, arguments, &(int){0}));
        assert_non_null(strstr(said, "issuer is given too often"));
        config_drop(&config);
}

static void test_other_mistakes(void **) {
        struct config config;
        assert_wrong(ARGUMENT("--no-such-option"), "see genied --help");
        assert_wrong(ARGUMENT("--max-calls"), "see genied --help"); // without its value
        assert_wrong(ARGUMENT("-x"), "see genied --help");
        assert_wrong(ARGUMENT("--log-calls=some"), "log-calls is all, refused or none, not `some`");
        assert_true(READ(&config, ARGUMENT("--log-calls=refused")));
        config_drop(&config);
}

static const char *printed(const struct config *config) {
        FILE *file = fmemopen(said, sizeof said, "w");
        assert_non_null(file);
        if (config)
                config_print(config, file);
        else
                config_help(file);
        fclose(file);
        return said;
}

static const struct {
        const char *url, *shown; // what must still be seen of it
} urls[] = {
        {"postgresql://genie:hunter2@db.example:5432/genie", "user=genie"},
        {"postgres://genie:hunter2@db.example/genie?sslmode=require", "sslmode=require"},
        {"postgresql://genie:hunter2%40hunter2@db.example/genie", "host=db.example"},
        {"postgresql://genie:hunter2@[::1]:5432/genie", "host=::1"},
        {"postgresql://genie@db.example/genie?password=hunter2", "dbname=genie"},
        {"postgresql://db.example/genie?user=genie&password=hunter2&sslpassword=hunter2", "user=genie"},
        {"postgresql://db.example/genie?pass%77ord=hunter2", "dbname=genie"},
        {"postgresql:///genie?host=/tmp/socket&user=a", "host=/tmp/socket"},
        {"host=/tmp user=genie password=hunter2 dbname=genie", "dbname=genie"},
        {"host=/tmp password = hunter2 dbname=genie", "dbname=genie"},
        {"password='hunter2 hunter2' host=/tmp", "host=/tmp"},
        {"password='it\\'s hunter2' host=/tmp", "host=/tmp"},
        {"sslkey=/k sslpassword=hunter2", "sslkey=/k"},
        {"postgresql://genie:hunter2@hunter2@db.example/genie", ""}, // a password that was not encoded
        {"postgresql://genie:x/hunter2@db.example/genie", ""},
        {"postgresql://genie:hunter2/x@db.example/genie", ""},
        {"postgresql://genie%40server:hunter2@db.example/genie", "user=genie@server"},
        {"password=hunter2@x host=db.example", "host=db.example"},
        {"postgresql://genie:hunter2", ""},
        {"hunter2", ""},
        {"password=hunter2 nonsense", ""},
        {"password='hunter2", ""},
        {"postgresql://genie:hunter2@db.example/genie?nonsense=hunter2", ""},
};

static void test_passwords_are_not_shown(void **) {
        for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
                struct config config;
                char argument[200];
                snprintf(argument, sizeof argument, "--database-url=%s", urls[i].url);
                assert_true(READ(&config, argument));
                const char *text = printed(&config);
                if (strstr(text, "hunter2") || !strstr(text, urls[i].shown))
                        fail_msg("%s is shown as %.200s", urls[i].url, text);
                config_drop(&config);
        }
}

static void test_print_and_help_have_every_option(void **) {
        struct config config;
        char help[TEXT_SIZE], name[64];
        unsigned count = 0;
        snprintf(help, sizeof help, "%s", printed(NULL));
        assert_true(READ(&config, ARGUMENT("--issuer=a,b"), ARGUMENT("--max-calls=77"), ARGUMENT("--coalesce=off")));
        printed(&config);
        assert_non_null(strstr(said, "issuer = a,b\n"));
        assert_non_null(strstr(said, "max-calls = 77\n"));
        assert_non_null(strstr(said, "coalesce = off\n"));
        assert_non_null(strstr(said, "database-url = \n"));
        config_drop(&config);
        for (const char *line = said; *line; line = strchr(line, '\n') + 1, count++) {
                snprintf(name, sizeof name, "--%.*s ", (int)strcspn(line, " "), line);
                assert_non_null(strstr(help, name));
        }
        assert_true(count > 20);
        assert_non_null(strstr(help, "GENIED_MAX_CALLS"));
        assert_non_null(strstr(help, "1 to 1000000; default 10000"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_environment_then_arguments),
                cmocka_unit_test(test_rest),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_booleans),
                cmocka_unit_test(test_lists),
                cmocka_unit_test(test_a_list_given_too_often),
                cmocka_unit_test(test_other_mistakes),
                cmocka_unit_test(test_passwords_are_not_shown),
                cmocka_unit_test(test_print_and_help_have_every_option),
        };
        clearenv(); // no option of whoever runs the tests
        return cmocka_run_group_tests(tests, NULL, NULL);
}
