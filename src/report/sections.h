#ifndef DG_REPORT_SECTIONS_H
#define DG_REPORT_SECTIONS_H
/*
 * The parts of report.html, in the order in which they stand in it.
 */
#include "health.h"
#include "page.h"
#include "run.h"

/** The head of the file with its style sheet. */
void dg_section_head(Page *p, const Run *run);

/** Title, the run in one sentence, its main figures. */
void dg_section_summary(Page *p, const Run *run, const Health *h);

void dg_section_health(Page *p, const Health *h);
void dg_section_pictures(Page *p, const Run *run);
void dg_section_evaluation(Page *p, const Run *run);
void dg_section_curves(Page *p, const Run *run);

/** Charts within the curves: diversity, and what updates after the first see. */
void dg_curves_drift(Page *p, const Run *run);

/** Configuration, where the rest stands, the end of the file. */
void dg_section_end(Page *p, const Run *run);

#endif
