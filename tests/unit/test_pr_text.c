// Strangers' text, made fit to be shown.
#include "cmocka_all.h"
#include "tools/genie-agent/pull_request/text.h"

#include <string.h>

static void what_is_said_is_shown_safely(void **state) {
        (void)state;
        static const struct {
                const char *said, *secret, *shown;
        } texts[] = {
                {"all is well", "sesame", "all is well"},
                {"a\r\n\tb\x1b[31mc\x7f \n", NULL, "a b [31mc"},
                {"sesame", "sesame", "***"},
                {"xsesamesesame!", "sesame", "x******!"},
                {"sesam sesame", "sesame", "sesam ***"},
                {"at https://bot:other@host/x?y@z", "sesame", "at https://***@host/x?y@z"},
                {"at https://host/a@b and http://u@h", NULL, "at https://host/a@b and http://***@h"},
                {"://@x", NULL, "://@x"},
                {"\xc3\xa4\xff\xe2\x82", NULL, "\xc3\xa4???"},
                {"", "sesame", ""},
                {"x", "", "x"},
        };
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
                char shown[100];
                text_show(texts[i].said, strlen(texts[i].said), texts[i].secret, shown, sizeof shown);
                assert_string_equal(shown, texts[i].shown);
        }
        char small[6];
        text_show("abc\xc3\xa4\xc3\xb6", 7, NULL, small, sizeof small);
        assert_string_equal(small, "abc\xc3\xa4");
        text_show("abcd\xc3\xa4", 6, NULL, small, sizeof small);
        assert_string_equal(small, "abcd?");
        text_show("abcsesame", 9, "sesame", small, sizeof small);
        assert_string_equal(small, "abc**");
}

static void names_are_encoded_for_urls(void **state) {
        (void)state;
        char text[20], small[4];
        assert_true(text_encode("a-Z_0.~/ %\xc3\xa4", text, sizeof text) == false);
        assert_true(text_encode("a/%\xc3\xa4", text, sizeof text));
        assert_string_equal(text, "a%2F%25%C3%A4");
        assert_true(text_encode("-_.~", text, sizeof text));
        assert_string_equal(text, "-_.~");
        assert_false(text_encode("ab", small, sizeof small));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_said_is_shown_safely),
                cmocka_unit_test(names_are_encoded_for_urls),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
