// What passes the look at the wire format unpacks, or meets the arena's cap; what protobuf-c would take wrong does not
// pass.
#include "server/rpc/prescan.h"
#include "storage/arena.h"
#include "tests/unit/cmocka_all.h"

#include <google/protobuf/any.pb-c.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <google/protobuf/duration.pb-c.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CAP = 1 << 20 };

#define BYTES(text) (text), sizeof(text) - 1
#define STATUS &google__rpc__status__descriptor          // int32 code = 1; string message = 2; repeated Any details = 3
#define ANY &google__protobuf__any__descriptor           // string type_url = 1; bytes value = 2
#define INFO &google__rpc__error_info__descriptor        // string reason = 1; string domain = 2; map metadata = 3
#define DURATION &google__protobuf__duration__descriptor // int64 seconds = 1; int32 nanos = 2

static const char *look(
        const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t size, const char **ret_field) {
        // A copy of just that size, so that a look beyond it is seen.
        unsigned char *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, size);
        const char *problem = prescan(descriptor, copy, size, ret_field);
        free(copy);
        return problem;
}

static bool unpacks(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t size, size_t cap) {
        struct arena arena;
        arena_init(&arena, cap);
        bool good = protobuf_c_message_unpack(descriptor, arena_protobuf_allocator(&arena), size, bytes) != NULL;
        arena_drop(&arena, false);
        return good;
}

static const struct {
        const ProtobufCMessageDescriptor *descriptor;
        const char *bytes;
        size_t size;
} good[] = {
        {STATUS, BYTES("")}, {STATUS, BYTES("\x08\x03\x12\x02ok")},
        {STATUS, BYTES("\x12\x00\x1a\x00\x1a\x04\x0a\x02xy")},
        {STATUS, BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")}, // -1 in ten bytes
        {STATUS, BYTES("\x12\x0a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z")},
        {STATUS, BYTES("\x12\x04\xf4\x8f\xbf\xbf\x12\x03\xee\x80\x80")},       // U+10FFFF; the last one counts
        {ANY, BYTES("\x12\x04\x00\xff\xc0\x80")},                              // bytes may be anything
        {INFO, BYTES("\x1a\x06\x0a\x01k\x12\x01v\x1a\x06\x0a\x01k\x12\x01w")}, // a key twice
        {DURATION, BYTES("\x08\x01\x10\x02\x08\x03")},
        // Fields that it does not know, of every kind that there is.
        {DURATION, BYTES("\x28\x01\x31\x01\x02\x03\x04\x05\x06\x07\x08\x3a\x02\xff\x00\x45\x01\x02\x03\x04")},
        {DURATION, BYTES("\xf8\xff\xff\xff\x0f\x01")}, // the largest field number
};

static void test_good_messages_unpack(void **) {
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
                const char *field, *problem = look(good[i].descriptor, good[i].bytes, good[i].size, &field);
                if (problem)
                        fail_msg("message %zu: %s %s", i, field, problem);
                assert_null(field);
                assert_true(unpacks(good[i].descriptor, good[i].bytes, good[i].size, CAP));
        }
}

#define NO_TEXT "is not UTF-8 text, or contains NUL"
#define CUT "is cut short"
#define GROUPS "uses groups, which proto3 does not have"
#define NO_MESSAGE "is not a protobuf message"
#define UNKNOWN "a field unknown here"

static const struct {
        const ProtobufCMessageDescriptor *descriptor;
        const char *bytes;
        size_t size;
        const char *field, *problem;
} bad[] = {
        // Text.
        {STATUS, BYTES("\x12\x01\x00"), "message", NO_TEXT},
        {STATUS,
                BYTES("\x12\x03"
                      "a\0b"),
                "message", NO_TEXT},
        {STATUS, BYTES("\x12\x02\xc0\xaf"), "message", NO_TEXT},         // overlong
        {STATUS, BYTES("\x12\x03\xe0\x80\xaf"), "message", NO_TEXT},     // overlong
        {STATUS, BYTES("\x12\x04\xf0\x80\x80\xaf"), "message", NO_TEXT}, // overlong
        {STATUS, BYTES("\x12\x02\xc0\x80"), "message", NO_TEXT},         // NUL in disguise
        {STATUS, BYTES("\x12\x03\xed\xa0\x80"), "message", NO_TEXT},     // a surrogate
        {STATUS, BYTES("\x12\x03\xed\xbf\xbf"), "message", NO_TEXT},     // the last one
        {STATUS, BYTES("\x12\x04\xf4\x90\x80\x80"), "message", NO_TEXT}, // U+110000
        {STATUS, BYTES("\x12\x04\xf5\x80\x80\x80"), "message", NO_TEXT},
        {STATUS, BYTES("\x12\x05\xf8\x88\x80\x80\x80"), "message", NO_TEXT}, // five bytes
        {STATUS, BYTES("\x12\x01\xff"), "message", NO_TEXT},
        {STATUS, BYTES("\x12\x01\x80"), "message", NO_TEXT},
        {STATUS, BYTES("\x12\x03\xe2\x82\x41"), "message", NO_TEXT},
        {STATUS, BYTES("\x12\x02\xe2\x82\x08\xac"), "message", NO_TEXT}, // the sequence leaves the field
        {STATUS, BYTES("\x1a\x03\x0a\x01\xff"), "details.type_url", NO_TEXT},
        {INFO, BYTES("\x1a\x03\x0a\x01\xff"), "metadata.key", NO_TEXT},
        {INFO, BYTES("\x1a\x03\x12\x01\x00"), "metadata.value", NO_TEXT},
        // What ends too soon.
        {STATUS, BYTES("\x08"), "code", CUT},
        {STATUS, BYTES("\x08\xff\xff"), "code", CUT},
        {STATUS, BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "code", CUT}, // eleven bytes
        {STATUS, BYTES("\x12"), "message", CUT},
        {STATUS,
                BYTES("\x12\x05"
                      "abcd"),
                "message", CUT},
        {STATUS, BYTES("\x12\xff\xff\xff\xff\x07"), "message", CUT},                     // 2 GiB
        {STATUS, BYTES("\x12\x80\x80\x80\x80\x10"), "message", CUT},                     // 4 GiB: 0 in 32 bits
        {STATUS, BYTES("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "message", CUT}, // 2^64 - 1
        {STATUS, BYTES("\x12\x81\x80\x80\x80\x80\x00x"), "message", CUT},                // 1 in six bytes
        {STATUS, BYTES("\x1a\x02\x0a\x05"), "details.type_url", CUT},                    // longer than what holds it
        {STATUS, BYTES("\x1a\x02\x0a\x02\x08\x01"), "details.type_url", CUT},
        {STATUS, BYTES("\x31\x01\x02\x03\x04\x05\x06\x07"), UNKNOWN, CUT},
        {STATUS, BYTES("\x35\x01\x02\x03"), UNKNOWN, CUT},
        {STATUS, BYTES("\x3a\x05\x01"), UNKNOWN, CUT},
        // Tags.
        {STATUS, BYTES("\x00\x00"), NULL, NO_MESSAGE},
        {STATUS, BYTES("\x02\x00"), NULL, NO_MESSAGE},
        {STATUS, BYTES("\x80"), NULL, NO_MESSAGE},
        {STATUS, BYTES("\x80\x80\x80\x80\x10\x01"), NULL, NO_MESSAGE},                             // number 2^29
        {STATUS, BYTES("\x88\x80\x80\x80\x80\x80\x80\x80\x80\x02\x01"), NULL, NO_MESSAGE},         // 1 and bit 64
        {STATUS, BYTES("\x88\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01"), NULL, NO_MESSAGE}, // no end
        {STATUS, BYTES("\x1a\x01\x00"), "details", NO_MESSAGE},
        // Groups, which nest without a length; and wire types that nobody has.
        {STATUS, BYTES("\x2b\x2c"), UNKNOWN, GROUPS},
        {STATUS, BYTES("\x0b\x0c"), "code", GROUPS},
        {STATUS, BYTES("\x0c"), "code", GROUPS},
        {STATUS, BYTES("\x0e"), "code", GROUPS},
        {STATUS, BYTES("\x0f"), "code", GROUPS},
};

static void test_bad_messages(void **) {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                const char *field, *problem = look(bad[i].descriptor, bad[i].bytes, bad[i].size, &field);
                if (!problem || strcmp(problem, bad[i].problem))
                        fail_msg("message %zu: %s", i, problem ? problem : "passed");
                if (bad[i].field && (!field || strcmp(field, bad[i].field)))
                        fail_msg("message %zu: the field is %s", i, field);
                assert_true(bad[i].field || !field);
        }
}

// `depth` messages in the outermost one, each the other's nested_type. Written from the inside out.
static size_t nest(unsigned depth, unsigned char ret_bytes[1000]) {
        size_t size = 0;
        for (unsigned i = 0; i < depth; i++) {
                unsigned char header[3] = {0x1a, (unsigned char)(size & 0x7f)};
                size_t header_size = 2;
                if (size > 0x7f) {
                        header[1] |= 0x80;
                        header[2] = (unsigned char)(size >> 7);
                        header_size = 3;
                }
                memmove(ret_bytes + header_size, ret_bytes, size);
                memcpy(ret_bytes, header, header_size);
                size += header_size;
        }
        return size;
}

static void test_depth(void **) {
        unsigned char bytes[1000];
        const char *field;
        size_t size = nest(PRESCAN_DEPTH, bytes);
        assert_null(look(&google__protobuf__descriptor_proto__descriptor, bytes, size, &field));
        assert_true(unpacks(&google__protobuf__descriptor_proto__descriptor, bytes, size, CAP));
        size = nest(PRESCAN_DEPTH + 1, bytes);
        const char *problem = look(&google__protobuf__descriptor_proto__descriptor, bytes, size, &field);
        assert_string_equal(problem, "is nested too deep");
        assert_string_equal(field, "nested_type");
}

// 34 kB that would overflow the stack: the look itself goes no deeper than the limit.
static void test_far_too_deep(void **) {
        enum { SIZE = 34000 };
        static unsigned char bytes[SIZE];
        const char *field;
        for (size_t at = 0; at + 4 <= SIZE; at += 4) {
                size_t rest = SIZE - at - 4;
                bytes[at] = 0x1a;
                bytes[at + 1] = (unsigned char)(0x80 | (rest & 0x7f));
                bytes[at + 2] = (unsigned char)(0x80 | (rest >> 7 & 0x7f));
                bytes[at + 3] = (unsigned char)(rest >> 14);
        }
        assert_string_equal(
                look(&google__protobuf__descriptor_proto__descriptor, bytes, SIZE, &field), "is nested too deep");
}

// Two bytes on the wire become a hundred in memory: what passes the look is held by the arena's cap.
static void test_amplification_meets_the_cap(void **) {
        enum { COUNT = 100000 };
        unsigned char *bytes = malloc(2 * COUNT);
        const char *field;
        assert_non_null(bytes);
        for (size_t i = 0; i < COUNT; i++) {
                bytes[2 * i] = 0x1a;
                bytes[2 * i + 1] = 0;
        }
        assert_null(look(STATUS, bytes, 2 * COUNT, &field));
        assert_false(unpacks(STATUS, bytes, 2 * COUNT, CAP));
        assert_true(unpacks(STATUS, bytes, 2 * COUNT, 100 * CAP));
        free(bytes);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good_messages_unpack),
                cmocka_unit_test(test_bad_messages),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_far_too_deep),
                cmocka_unit_test(test_amplification_meets_the_cap),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
