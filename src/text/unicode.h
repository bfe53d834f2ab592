#ifndef DG_SRC_TEXT_UNICODE_H
#define DG_SRC_TEXT_UNICODE_H
/*
 * What the tokenizers need to know of Unicode, over utf8proc.
 */
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

typedef enum CharClass {
    CHAR_OTHER,  /* marks, punctuation, symbols, controls, unassigned */
    CHAR_LETTER, /* L* */
    CHAR_NUMBER, /* N* */
    CHAR_SPACE   /* White_Space */
} CharClass;

/** Byte at which text stops to be UTF-8, or size if it is all well. */
size_t dg_unicode_valid(const char *text, size_t size);

/** The code point at the start of valid UTF-8 (size > 0); *width its bytes. */
int32_t dg_unicode_next(const char *text, size_t size, size_t *width);

CharClass dg_unicode_class(int32_t c);
int dg_unicode_is_space(int32_t c);

/** What regular expressions call \w: letters, marks, digits, connectors. */
int dg_unicode_is_word(int32_t c);

/** Controls, formats, private and unassigned code points (C*). */
int dg_unicode_is_control(int32_t c);

/** Marks that stand on another letter (Mn). */
int dg_unicode_is_nonspacing(int32_t c);

/** P*, and all of ASCII that is neither letter, number, space nor control. */
int dg_unicode_is_punctuation(int32_t c);

/** Appends what a half- or full-width form, U+FF01 to U+FFEE, is a form of.
 *  Errors: DG_ENOMEM. */
int dg_unicode_usual_width(Bytes *out, int32_t c);

/** Appends text in normalisation form C. Errors: DG_ENOMEM, DG_EINVAL. */
int dg_unicode_nfc(Bytes *out, const char *text, size_t size);

/** Appends text in normalisation form D. Errors: DG_ENOMEM, DG_EINVAL. */
int dg_unicode_nfd(Bytes *out, const char *text, size_t size);

/** Appends c in lower case, each letter by itself (no final sigma).
 *  Errors: DG_ENOMEM. */
int dg_unicode_lower(Bytes *out, int32_t c);

/** Bytes of the first extended grapheme cluster (size > 0). */
size_t dg_unicode_cluster(const char *text, size_t size);

#endif
