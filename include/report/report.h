#ifndef DG_REPORT_REPORT_H
#define DG_REPORT_REPORT_H
/*
 * report.html: what a run did and whether it is right, as one page that
 * needs no network and no scripts.
 *
 * Read from the run folder, nothing else:
 *   metrics.jsonl                needed; of `train` or of `pretrain`
 *   config.cfg                   optional; shown, and read for group counts
 *   pictures/iter_NNNNNN.png     optional; one row of square pictures each,
 *   pictures/prompts.json        {"prompts": [...], "height", "width": pixels}
 *   evaluation_before.json, evaluation_after.json
 *                                optional; as written by `evaluate`
 * Numbers that are null, absent or beyond 1e100 count as not measured.
 */
#include <stdio.h>

enum {
    DG_REPORT_RUNS = 16, /* most runs that are compared */
    DG_REPORT_PAGE_RUNS = 8
};

/**
 * Writes RUN_DIR/report.html, whole or not at all.
 * Not collective: one rank calls it. May be called while a run is going on;
 * a last line of metrics.jsonl that is not whole is then left out and said.
 * Errors: DG_EIO: no such folder, no metrics.jsonl, report.html cannot be
 * written; DG_EFORMAT: a malformed line, naming file and line, or a damaged
 * picture or evaluation file, naming it; DG_ENOMEM. An older report.html is
 * then untouched.
 */
int dg_report_write(const char *run_dir);

/**
 * The page's section "Is this run right?" as plain text, for a terminal: a line
 * of each finding, and of advice below it, in the page's order.
 * Not collective. Errors: as dg_report_write(); nothing is told then.
 */
int dg_report_tell(FILE *out, const char *run_dir);

/**
 * Several runs beside each other, as text: how far each is and what it reached,
 * at the last iteration that all have too where they are not as long; then the
 * keys in which their configurations differ (run.dir aside). With html not NULL
 * a page of that name is written besides, with their curves together, whole or
 * not at all. dirs [num], at most DG_REPORT_RUNS, DG_REPORT_PAGE_RUNS of a page.
 * Not collective. Errors: as dg_report_write(); nothing is told then.
 */
int dg_report_compare(FILE *out, const char *html, const char *const *dirs,
                      int num);

#endif
