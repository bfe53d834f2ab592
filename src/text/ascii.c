#include "text/ascii.h"

#include "base/error.h"
#include "base/text_out.h"

#include <string.h>
#include <utf8proc.h>

enum { MOST = 32 }; /* characters that one is made of: Unicode's have 18 */

/* What Unicode does not decompose. */
static const struct {
    utf8proc_int32_t c;
    const char *ascii;
} known[] = {
    { 0x00c6, "AE" }, { 0x00d0, "D" },  { 0x00d7, "x" },  { 0x00d8, "O" },
    { 0x00de, "Th" }, { 0x00df, "ss" }, { 0x00e6, "ae" }, { 0x00f0, "d" },
    { 0x00f7, "/" },  { 0x00f8, "o" },  { 0x00fe, "th" }, { 0x0110, "D" },
    { 0x0111, "d" },  { 0x0131, "i" },  { 0x0141, "L" },  { 0x0142, "l" },
    { 0x0152, "OE" }, { 0x0153, "oe" }, { 0x1e9e, "SS" }, { 0x00ab, "\"" },
    { 0x00bb, "\"" }, { 0x2010, "-" },  { 0x2012, "-" },  { 0x2013, "-" },
    { 0x2014, "-" },  { 0x2015, "-" },  { 0x2018, "'" },  { 0x2019, "'" },
    { 0x201a, "'" },  { 0x201b, "'" },  { 0x201c, "\"" }, { 0x201d, "\"" },
    { 0x201e, "\"" }, { 0x201f, "\"" }, { 0x2032, "'" },  { 0x2033, "\"" },
    { 0x2039, "'" },  { 0x203a, "'" },  { 0x2044, "/" },  { 0x2212, "-" },
};

static int is_space(utf8proc_int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);

    return category == UTF8PROC_CATEGORY_ZS ||
           category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP || category == UTF8PROC_CATEGORY_CC;
}

/* Of one that is not decomposed any more; NULL: there is none. */
static const char *letters_of(utf8proc_int32_t c, char room[2])
{
    if (is_space(c))
        return " ";
    if (c < 0x7f) {
        room[0] = (char)c;
        room[1] = '\0';
        return room;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].c == c)
            return known[i].ascii;
    return NULL;
}

static void put(FILE *f, utf8proc_int32_t c)
{
    utf8proc_int32_t parts[MOST];
    char room[2], letters[4 * MOST] = "";
    int last = 0;
    const utf8proc_ssize_t num =
        utf8proc_decompose_char(c, parts, MOST,
                                UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT |
                                    UTF8PROC_STRIPMARK | UTF8PROC_IGNORE,
                                &last);

    for (utf8proc_ssize_t i = 0; i < num && num <= MOST; i++) {
        const char *s = letters_of(parts[i], room);

        if (s == NULL) { /* one for all of it */
            strcpy(letters, "?");
            break;
        }
        strcat(letters, s);
    }
    fputs(num >= 0 && num <= MOST ? letters : "?", f);
}

int dg_ascii_of(char **out, const char *text)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    TextOut t;
    const int err = dg_text_open(&t, "a text in ASCII");

    if (err)
        return err;
    while (*at != '\0') {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate(at, -1, &c);

        if (n > 0)
            put(t.file, c);
        else
            fputc('?', t.file);
        at += n > 0 ? n : 1;
    }
    return dg_text_close(&t, out);
}
