#include "unicode.h"

#include <stdlib.h>

#include <utf8proc.h>

#include "base/error.h"

size_t dg_unicode_valid(const char *text, size_t size)
{
    size_t at = 0;

    while (at < size) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n;

        if ((unsigned char)text[at] < 0x80) {
            at++;
            continue;
        }
        n = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                             (utf8proc_ssize_t)(size - at), &c);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return at;
}

int32_t dg_unicode_next(const char *text, size_t size, size_t *width)
{
    utf8proc_int32_t c = (unsigned char)text[0];
    utf8proc_ssize_t n = 1;

    if (c >= 0x80)
        n = utf8proc_iterate((const utf8proc_uint8_t *)text,
                             (utf8proc_ssize_t)size, &c);
    *width = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : 0xFFFD;
}

int dg_unicode_is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

CharClass dg_unicode_class(int32_t c)
{
    utf8proc_category_t category;

    if (dg_unicode_is_space(c))
        return CHAR_SPACE;
    category = utf8proc_category(c);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO)
        return CHAR_LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
        return CHAR_NUMBER;
    return CHAR_OTHER;
}

int dg_unicode_is_word(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);

    return (category >= UTF8PROC_CATEGORY_LU &&
            category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D;
}

int dg_unicode_is_control(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);

    return category == UTF8PROC_CATEGORY_CN ||
           (category >= UTF8PROC_CATEGORY_CC &&
            category <= UTF8PROC_CATEGORY_CO);
}

int dg_unicode_is_nonspacing(int32_t c)
{
    return utf8proc_category(c) == UTF8PROC_CATEGORY_MN;
}

int dg_unicode_is_punctuation(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);

    if (c > 0x20 && c < 0x7F)
        return dg_unicode_class(c) == CHAR_OTHER;
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

static int normalise(Bytes *out, const char *text, size_t size,
                     utf8proc_option_t form)
{
    utf8proc_uint8_t *formed = NULL;
    utf8proc_ssize_t n;
    size_t ascii = 0;
    int err;

    while (ascii < size && (unsigned char)text[ascii] < 0x80)
        ascii++;
    if (ascii == size)
        return dg_bytes_add(out, text, size);
    n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size,
                     &formed, UTF8PROC_STABLE | form);
    if (n == UTF8PROC_ERROR_NOMEM)
        return dg_fail(DG_ENOMEM, "tokenizer: %zu bytes of text", size);
    if (n < 0)
        return dg_fail(DG_EINVAL, "tokenizer: %s",
                       utf8proc_errmsg((utf8proc_ssize_t)n));
    err = dg_bytes_add(out, formed, (size_t)n);
    free(formed);
    return err;
}

int dg_unicode_nfc(Bytes *out, const char *text, size_t size)
{
    return normalise(out, text, size, UTF8PROC_COMPOSE);
}

int dg_unicode_nfd(Bytes *out, const char *text, size_t size)
{
    return normalise(out, text, size, UTF8PROC_DECOMPOSE);
}

int dg_unicode_lower(Bytes *out, int32_t c)
{
    utf8proc_uint8_t to[4];
    utf8proc_ssize_t n;

    if (c == 0x130) /* capital I with a dot: the one that becomes two */
        return dg_bytes_add(out, "i\xCC\x87", 3);
    n = utf8proc_encode_char(utf8proc_tolower(c), to);
    return dg_bytes_add(out, to, (size_t)n);
}

int dg_unicode_usual_width(Bytes *out, int32_t c)
{
    utf8proc_int32_t part[8];
    utf8proc_uint8_t to[4];
    const utf8proc_ssize_t num = utf8proc_decompose_char(
        c, part, sizeof part / sizeof *part,
        UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, NULL);
    int err = DG_OK;

    for (utf8proc_ssize_t i = 0; i < num && i < 8 && !err; i++)
        err = dg_bytes_add(out, to, (size_t)utf8proc_encode_char(part[i], to));
    return err;
}

size_t dg_unicode_cluster(const char *text, size_t size)
{
    utf8proc_int32_t state = 0;
    size_t width, at;
    int32_t c = dg_unicode_next(text, size, &width);

    at = width;
    while (at < size) {
        const int32_t next = dg_unicode_next(text + at, size - at, &width);

        if (utf8proc_grapheme_break_stateful(c, next, &state))
            break;
        c = next;
        at += width;
    }
    return at;
}
