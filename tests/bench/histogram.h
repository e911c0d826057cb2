// Counts of durations in nanoseconds, in buckets less than 2 % wide.
#pragma once

#include <stdint.h>

enum {
        HISTOGRAM_SHIFT = 6,
        HISTOGRAM_SUB = 1 << HISTOGRAM_SHIFT,
        HISTOGRAM_BUCKETS = (65 - HISTOGRAM_SHIFT) * HISTOGRAM_SUB
};

struct histogram {
        uint64_t counts[HISTOGRAM_BUCKETS], total;
};

// Up to 2 × HISTOGRAM_SUB a bucket for each value; above, HISTOGRAM_SUB of them for each power of two.
static inline unsigned histogram_bucket(uint64_t value) {
        unsigned shift = 63 - (unsigned)__builtin_clzll(value | (2 * HISTOGRAM_SUB - 1)) - HISTOGRAM_SHIFT;
        return shift * HISTOGRAM_SUB + (unsigned)(value >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value) {
        unsigned bucket = histogram_bucket(value);
        histogram->counts[bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1]++;
        histogram->total++;
}

// The duration that a fraction (0 to 1) of all took at most.
static inline uint64_t histogram_quantile(const struct histogram *histogram, double fraction) {
        uint64_t wanted = (uint64_t)(fraction * (double)histogram->total), seen = 0;
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
                seen += histogram->counts[i];
                if (seen > wanted || seen == histogram->total) {
                        unsigned shift = i < 2 * HISTOGRAM_SUB ? 0 : i / HISTOGRAM_SUB - 1;
                        return (uint64_t)(i - shift * HISTOGRAM_SUB) << shift;
                }
        }
        return 0;
}
