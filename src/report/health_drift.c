#include "health.h"

#include "base/plural.h"
#include "page.h"
#include "trend.h"

#include <math.h>

/* Below this share of its beginning diversity is little; below that, none. */
static const double LITTLE = 0.5, NONE = 0.25;
/* So many times further below 1 than above it ratios are not spread around 1:
 * a step's density then fell in nearly every sample, see dg_health_drift(). */
static const double LOPSIDED = 5;
/* What the rounding of log-densities alone may make of a ratio. */
static const double ROUNDING = 1e-6;
/* Fewer iterations are a beginning: to look at, not to judge. */
enum { FEWEST = 8 };

void dg_health_diversity(Health *h, const Run *run)
{
    static const char question[] = "Are the pictures of a group still diverse?";
    static const char advice[] =
        "The policy may come to paint one picture for each prompt, whatever "
        "the seed: look at the strips, go back to a checkpoint before the "
        "fall, lower optim.lr, or stay near the base by grpo.kl_beta.";
    const double *v = run->col[COL_DIVERSITY];
    Trend t = { .points = 0 };
    char a[DG_VALUE_BYTES], b[DG_VALUE_BYTES];

    if (!dg_trend_find(&t, run->col[COL_ITERATION], v, run->n))
        h->failed = 1;
    if (t.points < 2)
        return;
    dg_value_text(a, t.first);
    dg_value_text(b, t.last);
    /* a network that paints grey at first may only gain */
    const double share = t.first > 0 ? t.last / t.first : t.last > 0;
    dg_health_say(
        h,
        share >= LITTLE ? LEVEL_GOOD
        : share >= NONE ? LEVEL_LOOK
                        : LEVEL_WRONG,
        question, advice,
        "%s: the spread of a pixel between them went from %s to %s (below "
        "half of its start is little, below a quarter is wrong).",
        share >= LITTLE ? "Yes"
        : share >= NONE ? "Less and less"
                        : "Hardly",
        a, b);
}

/* The log of a ratio has mean -KL / D and spread sqrt(2 KL) / D, where KL is
 * how far an update moved a step, in nats, and D the elements of a latent, which
 * a run folder does not tell. Three spreads out, below 1 is 5 times as far as
 * above it where (3 s + KL) = 5 (3 s - KL), s^2 = 2 KL: at KL = 8. */
static int is_lopsided(double least, double most)
{
    const double below = -log(least), above = log(most);

    return below > ROUNDING && below > LOPSIDED * above;
}

/* What the ratios of a run come to. */
typedef struct Drift {
    int64_t measured, lopsided;
    double least, most, kl;
} Drift;

static Drift drift_of(const Run *run)
{
    Drift d = { .least = INFINITY };

    for (int64_t i = 0; i < run->n; i++) {
        const double least = run->col[COL_RATIO_MIN][i];
        const double most = run->col[COL_RATIO_MAX][i];

        if (!(least > 0 && most >= least)) /* not measured, or no ratios */
            continue;
        d.measured++;
        d.lopsided += is_lopsided(least, most);
        d.least = fmin(d.least, least);
        d.most = fmax(d.most, most);
        d.kl = fmax(d.kl, run->col[COL_APPROX_KL][i]);
    }
    return d;
}

void dg_health_drift(Health *h, const Run *run)
{
    static const char question[] = "Do updates stay near the rollout's policy?";
    static const char advice[] =
        "The policy moved so far in one update that it would hardly paint the "
        "iteration's samples any more, and the clip stops only those of one "
        "sign: lower optim.lr or grpo.updates_per_iteration, or raise "
        "optim.warmup.";
    const Drift d = drift_of(run);
    const double share = (double)d.lopsided / (double)d.measured;
    char below[DG_VALUE_BYTES], above[DG_VALUE_BYTES], kl[DG_VALUE_BYTES];

    if (d.measured == 0)
        return;
    dg_value_text(below, 1 - d.least);
    dg_value_text(above, fmax(d.most - 1, 0)); /* if none rose */
    dg_value_text(kl, d.kl);
    dg_health_say(
        h,
        share <= 0.1                          ? LEVEL_GOOD
        : share <= 0.5 || d.measured < FEWEST ? LEVEL_LOOK
                                              : LEVEL_WRONG,
        question, advice,
        "%s: in %lld of %lld iteration%s ratios fell more than 5 times as far "
        "below 1 as they rose above it, as happens when an update moves "
        "log-probabilities by several nats (up to a tenth of the iterations is "
        "usual, more than half is wrong). Furthest: "
        "%s below, %s above; approx_kl up to %s.",
        share <= 0.1   ? "Yes"
        : share <= 0.5 ? "Not always"
                       : "No",
        (long long)d.lopsided, (long long)d.measured, dg_plural(d.measured),
        below, above, kl);
}
