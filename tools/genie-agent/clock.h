// The agent's time: milliseconds that also pass while the machine sleeps or the process is stopped, and that nobody
// sets.
#pragma once

#include <stdint.h>
#include <time.h>

static inline int64_t clock_now_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_BOOTTIME, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
