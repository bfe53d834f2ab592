#include "text/clip_clean.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "buffer.h"
#include "unicode.h"

/* --- entities ----------------------------------------------------------- */

typedef struct Entity {
    const char *name;
    int32_t c;
    int bare; /* known without its semicolon too */
} Entity;

static const Entity entities[] = {
    { "amp", '&', 1 },      { "lt", '<', 1 },       { "gt", '>', 1 },
    { "quot", '"', 1 },     { "apos", '\'', 0 },    { "nbsp", 0xA0, 1 },
    { "iexcl", 0xA1, 1 },   { "cent", 0xA2, 1 },    { "pound", 0xA3, 1 },
    { "yen", 0xA5, 1 },     { "copy", 0xA9, 1 },    { "laquo", 0xAB, 1 },
    { "reg", 0xAE, 1 },     { "deg", 0xB0, 1 },     { "plusmn", 0xB1, 1 },
    { "middot", 0xB7, 1 },  { "raquo", 0xBB, 1 },   { "frac12", 0xBD, 1 },
    { "iquest", 0xBF, 1 },  { "Agrave", 0xC0, 1 },  { "Aacute", 0xC1, 1 },
    { "Acirc", 0xC2, 1 },   { "Atilde", 0xC3, 1 },  { "Auml", 0xC4, 1 },
    { "Aring", 0xC5, 1 },   { "AElig", 0xC6, 1 },   { "Ccedil", 0xC7, 1 },
    { "Egrave", 0xC8, 1 },  { "Eacute", 0xC9, 1 },  { "Ecirc", 0xCA, 1 },
    { "Euml", 0xCB, 1 },    { "Igrave", 0xCC, 1 },  { "Iacute", 0xCD, 1 },
    { "Icirc", 0xCE, 1 },   { "Iuml", 0xCF, 1 },    { "Ntilde", 0xD1, 1 },
    { "Ograve", 0xD2, 1 },  { "Oacute", 0xD3, 1 },  { "Ocirc", 0xD4, 1 },
    { "Otilde", 0xD5, 1 },  { "Ouml", 0xD6, 1 },    { "times", 0xD7, 1 },
    { "Oslash", 0xD8, 1 },  { "Ugrave", 0xD9, 1 },  { "Uacute", 0xDA, 1 },
    { "Ucirc", 0xDB, 1 },   { "Uuml", 0xDC, 1 },    { "szlig", 0xDF, 1 },
    { "agrave", 0xE0, 1 },  { "aacute", 0xE1, 1 },  { "acirc", 0xE2, 1 },
    { "atilde", 0xE3, 1 },  { "auml", 0xE4, 1 },    { "aring", 0xE5, 1 },
    { "aelig", 0xE6, 1 },   { "ccedil", 0xE7, 1 },  { "egrave", 0xE8, 1 },
    { "eacute", 0xE9, 1 },  { "ecirc", 0xEA, 1 },   { "euml", 0xEB, 1 },
    { "igrave", 0xEC, 1 },  { "iacute", 0xED, 1 },  { "icirc", 0xEE, 1 },
    { "iuml", 0xEF, 1 },    { "ntilde", 0xF1, 1 },  { "ograve", 0xF2, 1 },
    { "oacute", 0xF3, 1 },  { "ocirc", 0xF4, 1 },   { "otilde", 0xF5, 1 },
    { "ouml", 0xF6, 1 },    { "divide", 0xF7, 1 },  { "oslash", 0xF8, 1 },
    { "ugrave", 0xF9, 1 },  { "uacute", 0xFA, 1 },  { "ucirc", 0xFB, 1 },
    { "uuml", 0xFC, 1 },    { "ndash", 0x2013, 0 }, { "mdash", 0x2014, 0 },
    { "lsquo", 0x2018, 0 }, { "rsquo", 0x2019, 0 }, { "ldquo", 0x201C, 0 },
    { "rdquo", 0x201D, 0 }, { "bull", 0x2022, 0 },  { "hellip", 0x2026, 0 },
    { "euro", 0x20AC, 0 },  { "trade", 0x2122, 0 },
};

/* What numbers 128 to 159 stand for on the web: Windows-1252. */
static const int32_t windows[32] = {
    0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021,
    0x2C6,  0x2030, 0x160,  0x2039, 0x152,  0x8D,   0x17D,  0x8F,
    0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
    0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178
};

static int put(Bytes *out, int32_t c)
{
    char s[4];
    size_t n = 0;

    if (c < 0x80) {
        s[n++] = (char)c;
    } else if (c < 0x800) {
        s[n++] = (char)(0xC0 | c >> 6);
        s[n++] = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        s[n++] = (char)(0xE0 | c >> 12);
        s[n++] = (char)(0x80 | (c >> 6 & 0x3F));
        s[n++] = (char)(0x80 | (c & 0x3F));
    } else {
        s[n++] = (char)(0xF0 | c >> 18);
        s[n++] = (char)(0x80 | (c >> 12 & 0x3F));
        s[n++] = (char)(0x80 | (c >> 6 & 0x3F));
        s[n++] = (char)(0x80 | (c & 0x3F));
    }
    return dg_bytes_add(out, s, n);
}

static int digit(char c, int base)
{
    const int value = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;

    return value < base ? value : -1;
}

/* Bytes of "&#233;" at s, 0 if it is none; *c what it stands for. */
static size_t number_at(const char *s, int32_t *c)
{
    /* the text may end behind the "&" */
    const int there = s[1] == '#';
    const int base = there && (s[2] == 'x' || s[2] == 'X') ? 16 : 10;
    const size_t first = base == 16 ? 3 : 2;
    size_t n = first;
    int32_t value = 0;

    if (!there)
        return 0;
    for (; digit(s[n], base) >= 0; n++)
        if (value <= 0x10FFFF)
            value = value * base + digit(s[n], base);
    if (n == first)
        return 0;
    if (value >= 0x80 && value < 0xA0)
        value = windows[value - 0x80];
    else if (value == 0 || value > 0x10FFFF ||
             (value >= 0xD800 && value < 0xE000))
        value = 0xFFFD;
    *c = value;
    return n + (s[n] == ';');
}

/* The same of "&eacute;". */
static size_t name_at(const char *s, int32_t *c)
{
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        const Entity *e = &entities[i];
        const size_t n = 1 + strlen(e->name);

        if (strncmp(s + 1, e->name, n - 1) != 0 || (s[n] != ';' && !e->bare))
            continue;
        *c = e->c;
        return n + (s[n] == ';');
    }
    return 0;
}

static int decode(Bytes *out, const char *s)
{
    int err = DG_OK;

    while (*s != '\0' && !err) {
        int32_t c;
        size_t n = *s == '&' ? number_at(s, &c) : 0;

        if (n == 0 && *s == '&')
            n = name_at(s, &c);
        err = n > 0 ? put(out, c) : dg_bytes_add(out, s, 1);
        s += n > 0 ? n : 1;
    }
    return err ? err : dg_bytes_add(out, "", 1);
}

/* --- letters ------------------------------------------------------------ */

/* What stands for nothing that is seen: controls but for white space, a byte
 * order mark, what Unicode deprecates. */
static int is_control(int32_t c)
{
    return (c < 0x20 && (c < 0x09 || c == 0x0B || c > 0x0D)) || c == 0x7F ||
           (c >= 0x206A && c <= 0x206F) || c == 0xFEFF ||
           (c >= 0xFFF9 && c <= 0xFFFC);
}

static const char *ligature(int32_t c)
{
    static const char *const latin[] = { "D\u017D", "D\u017E", "d\u017E",
                                         "LJ",      "Lj",      "lj",
                                         "NJ",      "Nj",      "nj" };
    static const char *const dz[] = { "DZ", "Dz", "dz" };
    static const char *const forms[] = { "ff",  "fi",      "fl", "ffi",
                                         "ffl", "\u017Ft", "st" };

    if (c >= 0xFB00 && c <= 0xFB06)
        return forms[c - 0xFB00];
    if (c >= 0x1C4 && c <= 0x1CC)
        return latin[c - 0x1C4];
    if (c >= 0x1F1 && c <= 0x1F3)
        return dz[c - 0x1F1];
    if (c == 0x132 || c == 0x133)
        return c == 0x132 ? "IJ" : "ij";
    return c == 0x149 ? "'n" : NULL;
}

static int put_plain(Bytes *out, int32_t c)
{
    const char *text = ligature(c);

    if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B))
        text = "'";
    else if (c >= 0x201C && c <= 0x201F)
        text = "\"";
    else if (c == 0x3000)
        text = " ";
    else if (is_control(c))
        text = "";
    else if (c >= 0xFF01 && c <= 0xFFEE)
        return dg_unicode_usual_width(out, c);
    return text != NULL ? dg_bytes_add(out, text, strlen(text)) : put(out, c);
}

static int straighten(Bytes *out, const char *s)
{
    const size_t size = strlen(s);
    int err = DG_OK;

    for (size_t at = 0, width; at < size && !err; at += width)
        err = put_plain(out, dg_unicode_next(s + at, size - at, &width));
    return err ? err : dg_bytes_add(out, "", 1);
}

/* One step from *text into new memory, which takes its place. */
static int step(char **text, int (*fn)(Bytes *out, const char *s))
{
    Bytes out = { 0 };
    const int err = fn(&out, *text);

    if (err) {
        dg_bytes_free(&out);
        return err;
    }
    free(*text);
    *text = out.at;
    return DG_OK;
}

int dg_clip_clean(char **out, const char *text)
{
    const size_t size = strlen(text);
    char *work = malloc(size + 1);
    int err = DG_OK;

    if (work == NULL)
        return dg_fail(DG_ENOMEM, "text of %zu bytes", size);
    memcpy(work, text, size + 1);
    if (dg_unicode_valid(text, size) == size) {
        if (strchr(text, '<') == NULL)
            err = step(&work, decode);
        if (!err)
            err = step(&work, straighten);
        for (int i = 0; i < 2 && !err; i++)
            err = step(&work, decode);
    }
    if (err)
        free(work);
    else
        *out = work;
    return err;
}
