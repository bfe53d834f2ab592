#ifndef DG_REPORT_HEALTH_H
#define DG_REPORT_HEALTH_H
/*
 * Is this run right? One finding per question, each with its threshold in
 * the sentence, so that a reader can judge the judge.
 */
#include "run.h"

typedef enum Level {
    LEVEL_GOOD,
    LEVEL_UNKNOWN, /* cannot be told from what there is */
    LEVEL_LOOK,    /* may be right: look at it */
    LEVEL_WRONG
} Level;

enum { DG_FINDINGS = 20, DG_FINDING_BYTES = 512 };

typedef struct Finding {
    Level level;
    const char *question;
    char answer[DG_FINDING_BYTES]; /* plain text */
    const char *advice;            /* plain text; "" */
} Finding;

typedef struct Health {
    int num;
    int count[4]; /* per level */
    Finding finding[DG_FINDINGS];
    int early;  /* too few iterations to tell the main thing */
    int failed; /* memory was short */
} Health;

void dg_health_find(Health *h, const Run *run);

/** Findings in the order of their telling, worst first, good ones before what
 *  is not known: order [h->num] of indices. */
void dg_health_order(int order[DG_FINDINGS], const Health *h);

/** What all of them come to, a sentence. */
const char *dg_health_verdict(const Health *h);

/* What charts show too. */
typedef struct RatioFinding {
    int64_t measured;  /* iterations */
    int64_t first_bad; /* iteration; -1: none */
    double worst;      /* largest |ratio - 1| */
    int64_t worst_iteration;
} RatioFinding;

RatioFinding dg_health_ratio(const Run *run);

/** Adds a finding, its answer as printf() would write it; advice of a good one
 *  is left out. */
void dg_health_say(Health *h, Level level, const char *question,
                   const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/** Do the pictures of a group still differ, by the run's own beginning? */
void dg_health_diversity(Health *h, const Run *run);

/** Are all scores there? Judged by the reward that lacks most. */
void dg_health_scores(Health *h, const Run *run);

/** Are the updates after an iteration's first near the rollout's policy? */
void dg_health_drift(Health *h, const Run *run);

#endif
