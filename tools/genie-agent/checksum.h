// CRC-32C (Castagnoli, RFC 3720), as everyone else writes it. libisal leaves both inversions to its caller.
#pragma once

#include <isa-l/crc.h>
#include <stddef.h>
#include <stdint.h>

static inline uint32_t checksum_crc32c(const void *data, size_t size) {
        return ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size, ~0U);
}
