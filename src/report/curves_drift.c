#include "sections.h"

#include "chart.h"

#include <math.h>
#include <stdlib.h>

static void put_diversity(Page *p, const Run *run)
{
    const Chart c = {
        .title = "Diversity",
        .unit = "range of a pixel",
        .note = "How far pictures of one group differ. A fall to near 0 is "
                "a collapse.",
        .x = run->col[COL_ITERATION],
        .n = run->n,
        .num_lines = 1,
        .line = { { .y = run->col[COL_DIVERSITY], .label = "", .colour = 1 } },
        .from_zero = 1,
        .smooth = 1,
    };

    dg_chart_put(p, &c);
}

static void put_approx_kl(Page *p, const Run *run)
{
    const Chart c = {
        .title = "Approximate KL",
        .unit = "",
        .note = "From the rollout's policy, in updates after the first: "
                "mean of ratio \u2212 1 \u2212 log ratio.",
        .x = run->col[COL_ITERATION],
        .n = run->n,
        .num_lines = 1,
        .line = { { .y = run->col[COL_APPROX_KL], .label = "", .colour = 5 } },
        .from_zero = 1,
        .smooth = 1,
        .maybe_log = 1,
    };

    dg_chart_put(p, &c);
}

/* How far ratios lie from 1, below and above it. */
static void put_ratios(Page *p, const Run *run)
{
    const size_t n = (size_t)run->n;
    double *below = malloc((2 * n + 1) * sizeof *below), *above;

    if (below == NULL) {
        p->failed = 1;
        return;
    }
    above = below + n;
    for (size_t i = 0; i < n; i++) {
        below[i] = 1 - run->col[COL_RATIO_MIN][i];
        above[i] = run->col[COL_RATIO_MAX][i] - 1;
    }
    const Chart c = {
        .title = "Ratio of later updates",
        .unit = "furthest from 1",
        .note = "Should be alike on both sides. Far below 1 and hardly above "
                "it: updates are too large.",
        .x = run->col[COL_ITERATION],
        .n = run->n,
        .num_lines = 2,
        .line = { { .y = below, .label = "below", .colour = 0 },
                  { .y = above, .label = "above", .colour = 2 } },
        .from_zero = 1,
        .smooth = 1,
        .maybe_log = 1,
    };
    dg_chart_put(p, &c);
    free(below);
}

void dg_curves_drift(Page *p, const Run *run)
{
    put_diversity(p, run);
    if (!dg_run_has(run, COL_APPROX_KL))
        return;
    put_approx_kl(p, run);
    put_ratios(p, run);
}
