#include "page.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int reserve(Page *p, size_t more)
{
    size_t cap = p->cap > 0 ? p->cap : 1 << 16;

    if (p->failed)
        return 0;
    while (cap < p->used + more + 1)
        cap *= 2;
    if (cap == p->cap)
        return 1;
    char *bytes = realloc(p->bytes, cap);
    if (bytes == NULL) {
        p->failed = 1;
        return 0;
    }
    p->bytes = bytes;
    p->cap = cap;
    return 1;
}

static void append(Page *p, const char *bytes, size_t num)
{
    if (!reserve(p, num))
        return;
    memcpy(p->bytes + p->used, bytes, num);
    p->used += num;
    p->bytes[p->used] = '\0';
}

void dg_page_put(Page *p, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !reserve(p, (size_t)n)) {
        p->failed = 1;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(p->bytes + p->used, (size_t)n + 1, fmt, ap);
    va_end(ap);
    p->used += (size_t)n;
}

void dg_page_text(Page *p, const char *text)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;

    while (at != NULL && *at != '\0') {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate(at, -1, &c);

        if (n <= 0 || c == 0x7f || (c < 0x20 && c != '\n' && c != '\t'))
            append(p, "\xef\xbf\xbd", 3);
        else if (c == '&')
            append(p, "&amp;", 5);
        else if (c == '<')
            append(p, "&lt;", 4);
        else if (c == '>')
            append(p, "&gt;", 4);
        else if (c == '"')
            append(p, "&quot;", 6);
        else if (c == '\'')
            append(p, "&#39;", 5);
        else
            append(p, (const char *)at, (size_t)n);
        at += n > 0 ? n : 1;
    }
}

void dg_page_base64(Page *p, const void *data, size_t bytes)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = data;

    if (!reserve(p, (bytes + 2) / 3 * 4))
        return;
    for (size_t i = 0; i < bytes; i += 3) {
        const size_t left = bytes - i;
        const unsigned v = (unsigned)in[i] << 16 |
                           (left > 1 ? (unsigned)in[i + 1] << 8 : 0u) |
                           (left > 2 ? (unsigned)in[i + 2] : 0u);
        const char four[4] = {
            digit[v >> 18],
            digit[v >> 12 & 63],
            left > 1 ? digit[v >> 6 & 63] : '=',
            left > 2 ? digit[v & 63] : '=',
        };
        append(p, four, 4);
    }
}

void dg_page_free(Page *p)
{
    free(p->bytes);
    *p = (Page) { 0 };
}

/* "-1.50e-05" as "−1.5e−5": what %e adds helps nobody. */
static void tidy(char out[DG_VALUE_BYTES], const char *plain, int small)
{
    const char *e = strchr(plain, 'e');
    const size_t head = e != NULL ? (size_t)(e - plain) : strlen(plain);
    size_t keep = head, at = 0;

    if (small && memchr(plain, '.', head) != NULL) {
        while (plain[keep - 1] == '0')
            keep--;
        keep -= plain[keep - 1] == '.';
    }
    for (size_t i = 0; i < keep; i++)
        if (plain[i] == '-')
            at += (size_t)sprintf(out + at, "\u2212");
        else
            out[at++] = plain[i];
    out[at] = '\0';
    if (e != NULL)
        sprintf(out + at, "e%s%d", e[1] == '-' ? "\u2212" : "",
                abs(atoi(e + 1)));
}

static void value_text(char out[DG_VALUE_BYTES], double v, const char *sign)
{
    const double size = fabs(v);
    char plain[32];

    if (isnan(v)) {
        strcpy(out, "\u2013");
        return;
    }
    if (size == 0 || isinf(v))
        snprintf(plain, sizeof plain, "%.0f", v == 0 ? 0.0 : v);
    else if (size >= 99999.5 || size < 0.000995)
        snprintf(plain, sizeof plain, *sign ? "%+.2e" : "%.2e", v);
    else if (size < 0.00995)
        snprintf(plain, sizeof plain, *sign ? "%+.4f" : "%.4f", v);
    else
        snprintf(plain, sizeof plain, *sign ? "%+.*f" : "%.*f",
                 size >= 99.95 ? 0
                 : size >= 10  ? 1
                 : size >= 1   ? 2
                               : 3,
                 v);
    tidy(out, plain, size < 0.00995 || size >= 99999.5);
}

void dg_value_text(char out[DG_VALUE_BYTES], double value)
{
    value_text(out, value, "");
}

void dg_power_text(char out[DG_VALUE_BYTES], double value, int decimals)
{
    char plain[64];

    snprintf(plain, sizeof plain, "%.*e", decimals, value);
    tidy(out, plain, 1);
}

void dg_signed_text(char out[DG_VALUE_BYTES], double value)
{
    value_text(out, value, "+");
}

void dg_percent_text(char out[DG_VALUE_BYTES], double share)
{
    const double p = 100 * share;

    if (isnan(p))
        strcpy(out, "\u2013");
    else if (p > 0 && p < 0.05)
        strcpy(out, "< 0.1\u202f%");
    else
        snprintf(out, DG_VALUE_BYTES, "%.*f\u202f%%",
                 p > 0 && p < 9.95 && p != rint(p) ? 1 : 0, p);
}

void dg_count_text(char out[DG_VALUE_BYTES], double count)
{
    char plain[32];
    size_t at = 0;

    if (!(fabs(count) < 1e12)) {
        dg_value_text(out, count);
        return;
    }
    const int digits = snprintf(plain, sizeof plain, "%.0f", count);
    for (int i = 0; i < digits; i++) {
        out[at++] = plain[i];
        const int left = digits - 1 - i;
        if (plain[i] != '-' && left > 0 && left % 3 == 0)
            at += (size_t)sprintf(out + at, "\u202f");
    }
    out[at] = '\0';
}
