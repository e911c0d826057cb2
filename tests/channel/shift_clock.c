// A wall clock that a test sets, for a program that is started with this library in LD_PRELOAD: CLOCK_REALTIME is so
// many seconds ahead of the machine's as the file $CLOCK_SHIFT has in its first eight bytes. As with a clock that an
// operator sets, waits for a time of day end earlier or later, and everything else stays as it is.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long (*really)(long number, ...);
static const volatile int64_t *shift_s;

__attribute__((constructor)) static void prepare(void) {
        static const int64_t none;
        const char *path = getenv("CLOCK_SHIFT");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift_s, PROT_READ, MAP_SHARED, file, 0);
        really = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
        shift_s = mapped == MAP_FAILED ? &none : mapped;
        if (file >= 0)
                close(file);
}

int clock_gettime(clockid_t clock, struct timespec *ret) {
        if (!really)
                prepare();
        long status = really(SYS_clock_gettime, clock, ret);
        if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
                ret->tv_sec += *shift_s;
        return (int)status;
}

int gettimeofday(struct timeval *ret, void *zone) {
        struct timespec now;
        (void)zone;
        clock_gettime(CLOCK_REALTIME, &now);
        *ret = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
        return 0;
}

time_t time(time_t *ret) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (ret)
                *ret = now.tv_sec;
        return now.tv_sec;
}

// What waits for a time of day in gRPC is a futex of abseil's.
long syscall(long number, ...) {
        long a[6];
        va_list list;
        va_start(list, number);
        for (int i = 0; i < 6; i++)
                a[i] = va_arg(list, long);
        va_end(list);
        if (!really)
                prepare();
        const struct timespec *until = (const struct timespec *)a[3];
        if (number != SYS_futex || !until || !(a[1] & FUTEX_CLOCK_REALTIME))
                return really(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        for (;;) { // in slices, for the clock may be set meanwhile
                enum { SLICE_NS = 20000000, SECOND_NS = 1000000000 };
                struct timespec now, slice;
                clock_gettime(CLOCK_REALTIME, &now);
                int64_t left = (until->tv_sec - now.tv_sec) * SECOND_NS + until->tv_nsec - now.tv_nsec;
                if (left <= 0) {
                        errno = ETIMEDOUT;
                        return -1;
                }
                really(SYS_clock_gettime, CLOCK_REALTIME, &slice);
                slice.tv_nsec += left < SLICE_NS ? left : SLICE_NS;
                slice.tv_sec += slice.tv_nsec / SECOND_NS;
                slice.tv_nsec %= SECOND_NS;
                long status = really(SYS_futex, a[0], a[1], a[2], &slice, a[4], a[5]);
                if (status == 0 || errno != ETIMEDOUT)
                        return status;
        }
}
