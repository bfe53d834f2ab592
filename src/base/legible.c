#include "base/legible.h"

/* Whether so many bytes go on a character. */
static int goes_on(const unsigned char *s, int num)
{
    for (int i = 0; i < num; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return 1;
}

int dg_utf8_bytes(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    const int more = s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : s[0] >= 0xc2 ? 1 : 0;

    if (s[0] < 0x80)
        return s[0] != '\0';
    if (more == 0 || s[0] > 0xf4 || !goes_on(s + 1, more))
        return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return more + 1;
}

/* Bytes of a character that people can read; 0: none, or one that steers. */
static int character(const char *text, int lines)
{
    const unsigned char *s = (const unsigned char *)text;

    if (s[0] == '\n' || s[0] == '\t')
        return lines;
    if (s[0] < ' ' || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0))
        return 0;
    return dg_utf8_bytes(text);
}

void dg_legible(char *text)
{
    while (*text != '\0') {
        const int bytes = character(text, 1);

        if (bytes == 0)
            *text = '?';
        text += bytes > 0 ? bytes : 1;
    }
}

void dg_legible_line(char *text)
{
    dg_legible(text);
    for (; *text != '\0'; text++)
        if (*text == '\n' || *text == '\t')
            *text = ' ';
}

static void put(FILE *out, const char *text, size_t most, int lines)
{
    while (*text != '\0') {
        const int bytes = character(text, lines);
        const size_t used = bytes > 0 ? (size_t)bytes : 1;

        if (used > most)
            break;
        fwrite(bytes > 0 ? text : "?", 1, used, out);
        text += used;
        most -= used;
    }
}

void dg_legible_put(FILE *out, const char *text, size_t most)
{
    put(out, text, most, 1);
}

void dg_legible_put_line(FILE *out, const char *text, size_t most)
{
    put(out, text, most, 0);
}
