/* CRC-32C (Castagnoli; RFC 3720 appendix B.4): finds corruption on disk, authenticates nothing. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Continues a checksum: start with 0, pass the result on with the next bytes. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);
