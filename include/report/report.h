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

#endif
