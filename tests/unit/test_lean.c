// Contexts that the executable makes give buffers back, once that is switched on.
#include "server/rpc/lean.h"
#include "tests/unit/cmocka_all.h"

#include <openssl/ssl.h>
#include <stdlib.h>

static bool gives_back(void) {
        SSL_CTX *context = SSL_CTX_new(TLS_server_method());
        assert_non_null(context);
        bool gives = (SSL_CTX_get_mode(context) & SSL_MODE_RELEASE_BUFFERS) != 0;
        SSL_CTX_free(context);
        return gives;
}

static void buffers_are_given_back_when_lean(void **state) {
        (void)state;
        assert_false(lean_is_on());
        assert_false(gives_back());
        lean_start();
        assert_true(lean_is_on());
        assert_true(gives_back());
}

static void what_an_operator_chose_stands(void **state) {
        (void)state;
        setenv("GRPC_EXPERIMENTS", "chosen", 1);
        lean_start();
        assert_string_equal(getenv("GRPC_EXPERIMENTS"), "chosen");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(buffers_are_given_back_when_lean),
                cmocka_unit_test(what_an_operator_chose_stands),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
