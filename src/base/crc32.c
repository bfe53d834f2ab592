#include "base/crc32.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "eight bytes are taken at once, the first in the lowest bits");

/* table[k][b]: what byte b leaves behind when k bytes of zero follow it */
typedef uint32_t Table[8][256];

static void fill(Table table)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t rest = b;

        for (int bit = 0; bit < 8; bit++)
            rest = rest >> 1 ^ ((rest & 1) ? 0xEDB88320U : 0);
        table[0][b] = rest;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            table[k][b] =
                table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xFF];
}

uint32_t dg_crc32(uint32_t before, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint32_t c = ~before;
    Table table; /* made in microseconds */

    fill(table);
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint64_t eight;

        memcpy(&eight, p, sizeof eight);
        eight ^= c;
        c = 0;
        for (int k = 0; k < 8; k++)
            c ^= table[7 - k][eight >> 8 * k & 0xFF];
    }
    for (; bytes > 0; bytes--, p++)
        c = c >> 8 ^ table[0][(c ^ *p) & 0xFF];
    return ~c;
}
