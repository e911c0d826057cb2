// URLs of repositories.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/repository_url.h"

#include <string.h>

static void good_ones_are_taken_apart(void **state) {
        (void)state;
        static const struct {
                const char *text, *host, *path, *owner, *name, *url;
                bool http;
        } urls[] = {
                {"https://github.com/acme/infra", "github.com", "acme/infra", "acme", "infra",
                        "https://github.com/acme/infra.git", false},
                {"https://GitHub.com/acme/infra.git", "github.com", "acme/infra", "acme", "infra",
                        "https://github.com/acme/infra.git", false},
                {"HTTPS://gitlab.example:8443/a/b/c.d/", "gitlab.example:8443", "a/b/c.d", "b", "c.d",
                        "https://gitlab.example:8443/a/b/c.d.git", false},
                {"http://127.0.0.1:80/a/b", "127.0.0.1", "a/b", "a", "b", "http://127.0.0.1/a/b.git", true},
                {"https://x:443/~a/b+c", "x", "~a/b+c", "~a", "b+c", "https://x/~a/b+c.git", false},
                {"https://[::1]:3000/a/b", "[::1]:3000", "a/b", "a", "b", "https://[::1]:3000/a/b.git", false},
        };
        for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
                struct repository_url url;
                const char *problem = repository_url_parse(urls[i].text, &url);
                if (problem)
                        fail_msg("%s: %s", urls[i].text, problem);
                assert_string_equal(url.host, urls[i].host);
                assert_string_equal(url.path, urls[i].path);
                assert_string_equal(url.owner, urls[i].owner);
                assert_string_equal(url.name, urls[i].name);
                assert_string_equal(url.url, urls[i].url);
                assert_int_equal(url.http, urls[i].http);
        }
}

static void others_are_refused_without_being_quoted(void **state) {
        (void)state;
        static const char *const urls[] = {"", "github.com/a/b", "git@github.com:a/b", "ssh://github.com/a/b",
                "git://github.com/a/b", "file:///a/b", "https://", "https:///a/b", "https://github.com",
                "https://github.com/", "https://github.com/a", "https://github.com/.git", "https://github.com/a/.git",
                "https://sesame@github.com/a/b", "https://u:sesame@github.com/a/b", "https://github.com/a/b?sesame",
                "https://github.com/a/b#sesame", "https://github.com/a//b", "https://github.com/../a/b",
                "https://github.com/a/..", "https://github.com/a/.", "https://github.com/a/b%2f..",
                "https://github.com/a/b c", "https://github.com/a/b\n", "https://github.com\\@evil/a/b",
                "https://github.com:/a/b", "https://github.com:99999999/a/b", "https://github.com:8a/a/b",
                "https://-x/a/b", "https://a_b/a/b", "https://[::1/a/b", "https://[::1]x/a/b",
                "https://github.com/a/b@c", "https://\xc3\xa4/a/b"};
        for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
                struct repository_url url;
                const char *problem = repository_url_parse(urls[i], &url);
                if (!problem || strstr(problem, "sesame"))
                        fail_msg("taken, or quoted: %s", urls[i]);
        }
        char longer[2000] = "https://github.com/a/";
        memset(longer + strlen(longer), 'b', 1500);
        struct repository_url url;
        assert_non_null(repository_url_parse(longer, &url));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(good_ones_are_taken_apart),
                cmocka_unit_test(others_are_refused_without_being_quoted),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
