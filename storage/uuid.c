#include "storage/uuid.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { RANDOM_PER_UUID = 8, RANDOM_BUFFER = 32 * RANDOM_PER_UUID, FRACTION_BITS = 12 };

// How far the clock may go back and the UUIDs of a thread still ascend: a second, in 1/4096 ms.
#define BACKWARD_LIMIT (UINT64_C(1000) << FRACTION_BITS)

static _Thread_local struct {
        uint64_t last;
        size_t left; // bytes of `random` that are not used yet
        unsigned char random[RANDOM_BUFFER];
} source;

static void take_random(unsigned char ret_bytes[RANDOM_PER_UUID]) {
        while (source.left < RANDOM_PER_UUID) {
                // So few bytes always come whole, unless the kernel has no such call.
                ssize_t size = getrandom(source.random, sizeof source.random, 0);
                if (size < 0 && errno != EINTR)
                        abort();
                source.left = size > 0 ? (size_t)size : 0;
        }
        source.left -= RANDOM_PER_UUID;
        memcpy(ret_bytes, source.random + source.left, RANDOM_PER_UUID);
}

// The time in 1/4096 ms, made to ascend.
static uint64_t take_time(void) {
        struct timespec time;
        clock_gettime(CLOCK_REALTIME, &time);
        uint64_t nanoseconds = (uint64_t)time.tv_nsec;
        uint64_t milliseconds = (uint64_t)time.tv_sec * 1000 + nanoseconds / 1000000;
        uint64_t stamp = milliseconds << FRACTION_BITS | (nanoseconds % 1000000 << FRACTION_BITS) / 1000000;
        if (stamp <= source.last && source.last - stamp < BACKWARD_LIMIT)
                stamp = source.last + 1;
        source.last = stamp;
        return stamp;
}

void uuid_v7(unsigned char ret_uuid[UUID_BYTES]) {
        unsigned char random[RANDOM_PER_UUID];
        take_random(random);
        uint64_t stamp = take_time();
        for (int i = 0; i < 6; i++)
                ret_uuid[i] = (unsigned char)(stamp >> (52 - 8 * i));
        ret_uuid[6] = (unsigned char)(0x70 | (stamp >> 8 & 0x0f));
        ret_uuid[7] = (unsigned char)stamp;
        memcpy(ret_uuid + 8, random, sizeof random);
        ret_uuid[8] = (unsigned char)(0x80 | (ret_uuid[8] & 0x3f));
}

static bool has_dash(size_t position) { return position == 8 || position == 13 || position == 18 || position == 23; }

void uuid_to_text(const unsigned char uuid[UUID_BYTES], char ret_text[UUID_TEXT_SIZE]) {
        static const char digits[] = "0123456789abcdef";
        size_t at = 0;
        for (size_t i = 0; i < UUID_BYTES; i++) {
                if (has_dash(at))
                        ret_text[at++] = '-';
                ret_text[at++] = digits[uuid[i] >> 4];
                ret_text[at++] = digits[uuid[i] & 15];
        }
        ret_text[at] = '\0';
}

void uuid_v7_text(char ret_text[UUID_TEXT_SIZE]) {
        unsigned char uuid[UUID_BYTES];
        uuid_v7(uuid);
        uuid_to_text(uuid, ret_text);
}

static int digit_value(char digit) {
        if (digit >= '0' && digit <= '9')
                return digit - '0';
        if (digit >= 'a' && digit <= 'f')
                return digit - 'a' + 10;
        if (digit >= 'A' && digit <= 'F')
                return digit - 'A' + 10;
        return -1;
}

bool uuid_from_text(const char *text, size_t size, unsigned char ret_uuid[UUID_BYTES]) {
        unsigned char uuid[UUID_BYTES];
        if (size != UUID_TEXT_SIZE - 1)
                return false;
        for (size_t i = 0, at = 0; i < UUID_BYTES; i++) {
                if (has_dash(at) && text[at++] != '-')
                        return false;
                int high = digit_value(text[at++]), low = digit_value(text[at++]);
                if (high < 0 || low < 0)
                        return false;
                uuid[i] = (unsigned char)(high << 4 | low);
        }
        memcpy(ret_uuid, uuid, sizeof uuid);
        return true;
}
