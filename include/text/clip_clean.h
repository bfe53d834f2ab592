#ifndef DG_TEXT_CLIP_CLEAN_H
#define DG_TEXT_CLIP_CLEAN_H
/*
 * What OpenAI's and OpenCLIP's code does to a text before the steps that
 * transformers' tokenizer has too (see text/clip_bpe.h).
 */

/**
 * HTML entities are decoded, three times over, the first time only where there
 * is no '<'; between, curly quotes become straight, ligatures letters, and
 * half- and full-width forms usual ones; control characters and byte order marks
 * go. Of names, the common ones are known (amp, lt, gt,
 * quot, apos, nbsp, dashes, quotes, accented letters of Latin-1 as eacute);
 * others stay. Text in a wrong encoding, which the originals try to guess, is
 * left as it is.
 * text  UTF-8; what is not is left alone
 * *out  to free. Errors: DG_ENOMEM.
 */
int dg_clip_clean(char **out, const char *text);

#endif
