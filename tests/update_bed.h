#ifndef DG_TESTS_UPDATE_BED_H
#define DG_TESTS_UPDATE_BED_H
/* A tiny run up to its updates. */
#include "tiny_run.h"

#include <math.h>

/* Scores without a pattern, the same in every test. */
static void give_scores(TinyRun *t)
{
    const Rollout *r = t->rollout;

    for (int64_t i = 0; i < r->N * r->K; i++)
        r->scores[i] =
            (RewardScore) { (float)sin(1.7 * (double)(i * i + 1)), NAN, 0 };
}

static void open_update(TinyRun *t, int threads, const char *const *sets)
{
    tiny_open(t, threads, sets);
    tiny_experience(t, 0);
    give_scores(t);
    MUST(dg_update_prepare(t->update, &t->session, t->rollout));
}

#endif
