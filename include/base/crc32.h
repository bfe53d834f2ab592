#ifndef DG_BASE_CRC32_H
#define DG_BASE_CRC32_H
/*
 * CRC-32 of zip and PNG files: polynomial 0x04C11DB7, bits reflected, begun
 * and ended by all ones. Of "123456789" it is 0xCBF43926.
 */
#include <stddef.h>
#include <stdint.h>

/** Goes on from the CRC of what came before; 0 at the beginning. Any thread. */
uint32_t dg_crc32(uint32_t before, const void *data, size_t bytes);

#endif
