// Every sequence that looks like UTF-8 is taken or refused as RFC 3629 says; a text that was cut is mended.
#include "server/utf8.h"
#include "tests/unit/cmocka_all.h"

#include <string.h>

static unsigned shortest(unsigned long point) { return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4; }

// Writes a code point in `size` bytes, whether that is the shortest form or not.
static void encode(unsigned long point, unsigned size, unsigned char ret_bytes[4]) {
        static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (unsigned i = size; i-- > 1; point >>= 6)
                ret_bytes[i] = (unsigned char)(0x80 | (point & 0x3f));
        ret_bytes[0] = (unsigned char)(leads[size] | point);
}

static void test_every_code_point_in_every_size(void **) {
        static const unsigned long ends[] = {0, 0x80, 0x800, 0x10000, 0x200000};
        unsigned char bytes[4];
        for (unsigned size = 1; size <= 4; size++)
                for (unsigned long point = 0; point < ends[size]; point++) {
                        encode(point, size, bytes);
                        unsigned good = size == shortest(point) && point <= 0x10ffff &&
                                        !(point >= 0xd800 && point <= 0xdfff);
                        if (utf8_sequence(bytes, bytes + size) != good * size)
                                fail_msg("U+%lX in %u bytes", point, size);
                }
}

static void test_every_cut_and_every_second_byte(void **) {
        unsigned char bytes[4];
        for (unsigned lead = 0xc2; lead <= 0xf4; lead++) {
                unsigned size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
                for (unsigned cut = 1; cut < size; cut++) {
                        memset(bytes, 0x90, sizeof bytes);
                        bytes[0] = (unsigned char)lead;
                        assert_int_equal(utf8_sequence(bytes, bytes + cut), 0);
                }
                for (unsigned at = 1; at < size; at++)
                        for (unsigned other = 0; other < 256; other++) {
                                memset(bytes, lead == 0xed || lead == 0xf4 ? 0x80 : 0xa0, sizeof bytes);
                                bytes[0] = (unsigned char)lead;
                                bytes[at] = (unsigned char)other;
                                if (other < 0x80 || other > 0xbf)
                                        assert_int_equal(utf8_sequence(bytes, bytes + 4), 0);
                        }
        }
        for (unsigned lead = 0x80; lead < 0x100; lead++) {
                memset(bytes, 0x80, sizeof bytes);
                bytes[0] = (unsigned char)lead;
                if (lead < 0xc2 || lead > 0xf4)
                        assert_int_equal(utf8_sequence(bytes, bytes + 4), 0);
        }
}

static const struct {
        const char *text, *mended;
} texts[] = {
        {"", ""},
        {"plain", "plain"},
        {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"cut \xc3", "cut ?"},
        {"cut \xe2\x82", "cut ??"},
        {"cut \xf0\x9f\x98", "cut ???"},
        {"\x80 \xc0\x80 \xed\xa0\x80 \xff", "? ?? ??? ?"},
        {"\xe2\x82\xc3\xa4", "??\xc3\xa4"},
};

static void test_mend(void **) {
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                char text[64];
                memcpy(text, texts[i].text, strlen(texts[i].text) + 1);
                utf8_mend(text);
                assert_string_equal(text, texts[i].mended);
        }
}

static void test_length(void **) {
        assert_int_equal(utf8_length(""), 0);
        assert_int_equal(utf8_length("plain"), 5);
        assert_int_equal(utf8_length("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"), 5);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_code_point_in_every_size),
                cmocka_unit_test(test_every_cut_and_every_second_byte),
                cmocka_unit_test(test_mend),
                cmocka_unit_test(test_length),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
