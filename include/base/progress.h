#ifndef DG_BASE_PROGRESS_H
#define DG_BASE_PROGRESS_H
/*
 * One progress bar on the last line of a terminal:
 *   rollout  [=========>          ]  45%  54/120  ETA 12.3 s
 * Silent when stderr is no terminal, or when switched off. The log wipes the
 * bar before it writes a line; the next step draws it again.
 */
#include <stdint.h>

/** Bars are shown from now on if wanted and stderr is a terminal. */
void dg_progress_enable(int wanted);

/** Starts a bar of total units; what is borrowed until dg_progress_end. */
void dg_progress_start(const char *what, int64_t total);

/** num more units are done. Thread-safe, cheap; draws 10 times a second. */
void dg_progress_add(int64_t num);

/** Ends and wipes the bar. */
void dg_progress_end(void);

/** Wipes the bar if one stands on the screen. */
void dg_progress_hide(void);

/** The bar's text for 'done' of 'total' after 'seconds' (for tests). */
void dg_progress_text(char *text, int size, const char *what, int64_t done,
                      int64_t total, double seconds);

#endif
