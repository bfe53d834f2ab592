#include "text/misread.h"

#include "base/legible.h"

#include <stddef.h>

#include <utf8proc.h>

/* What code page 1252 has where Latin-1 has control characters; 0: nothing. */
static const utf8proc_int32_t page_1252[32] = {
    0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021,
    0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,      0x017d, 0,
    0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
    0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178
};

/* The byte that was taken for this character; -1: none. */
static int byte_of(utf8proc_int32_t c)
{
    if (c < 0x100)
        return (int)c;
    for (int i = 0; i < 32; i++)
        if (page_1252[i] == c)
            return 0x80 + i;
    return -1;
}

/* Characters beyond ASCII of a text; 0 if it is not legible as UTF-8. */
static int beyond_ascii(const char *text)
{
    int num = 0;

    while (*text != '\0') {
        const unsigned char *s = (const unsigned char *)text;
        const int bytes = dg_utf8_bytes(text);

        if (bytes == 0 || (s[0] == 0xc2 && s[1] < 0xa0))
            return 0;
        num += bytes > 1;
        text += bytes;
    }
    return num;
}

int dg_misread(char *out, const char *text)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    size_t used = 0;

    while (*at != '\0') {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate(at, -1, &c);
        const int byte = n > 0 ? byte_of(c) : -1;

        if (byte < 0)
            return 0;
        out[used++] = (char)byte;
        at += n;
    }
    out[used] = '\0';
    return beyond_ascii(out);
}
