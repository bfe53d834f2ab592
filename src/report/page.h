#ifndef DG_REPORT_PAGE_H
#define DG_REPORT_PAGE_H
/*
 * A growing text and the few ways in which something gets into a page.
 * A failed allocation is remembered; the last user asks for it.
 */
#include <stddef.h>

enum { DG_VALUE_BYTES = 40 };

typedef struct Page {
    char *bytes; /* NULL while empty; ends with a zero byte else */
    size_t used, cap;
    int failed;
} Page;

/** Mark-up of the program's own; no text from outside may come in here. */
void dg_page_put(Page *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/** Text from outside: what means something in HTML is escaped, what is not
 *  UTF-8 or a control character becomes U+FFFD. NULL: nothing. */
void dg_page_text(Page *p, const char *text);

void dg_page_base64(Page *p, const void *data, size_t bytes);
void dg_page_free(Page *p);

/** A number for people, three or so digits: "0.731", "12.5", "1.5e-5";
 *  an en dash when it is NaN. Plain text, a true minus sign. */
void dg_value_text(char out[DG_VALUE_BYTES], double value);

/** The same as a power of ten with at most so many decimals: "1.05e-4". */
void dg_power_text(char out[DG_VALUE_BYTES], double value, int decimals);

/** As dg_value_text() with its sign always there. */
void dg_signed_text(char out[DG_VALUE_BYTES], double value);

/** A share in percent: "12 %", "0.4 %". */
void dg_percent_text(char out[DG_VALUE_BYTES], double share);

/** A whole number in groups of three: "28 800" (narrow spaces). */
void dg_count_text(char out[DG_VALUE_BYTES], double count);

#endif
