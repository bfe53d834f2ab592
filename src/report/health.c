#include "health.h"

#include "held_out.h"
#include "page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SURE = 0.01;  /* p below which a trend is one */
static const double LIKELY = 0.1; /* p below which one is not to be denied */

static Trend trend_of(Health *h, const Run *run, Column c)
{
    Trend t = { .slope = NAN, .p = 1 };

    if (!dg_trend_find(&t, run->col[COL_ITERATION], run->col[c], run->n))
        h->failed = 1;
    return t;
}

static double sum(const double *v, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += isfinite(v[i]) ? v[i] : 0;
    return s;
}

static double mean(const double *v, int64_t n)
{
    int64_t num = 0;

    for (int64_t i = 0; i < n; i++)
        num += isfinite(v[i]);
    return num > 0 ? sum(v, n) / (double)num : NAN;
}

static double median(Health *h, const double *v, int64_t n)
{
    double *copy = malloc((size_t)(n > 0 ? n : 1) * sizeof *copy);

    if (copy == NULL) {
        h->failed = 1;
        return NAN;
    }
    memcpy(copy, v, (size_t)n * sizeof *copy);
    const double m = dg_median(copy, n);
    free(copy);
    return m;
}

/* The last quarter, at least 5 and at most all: where it starts. */
static int64_t late(const Run *run)
{
    const int64_t quarter = run->n / 4 > 5 ? run->n / 4 : 5;

    return run->n > quarter ? run->n - quarter : 0;
}

/* The same in words. */
static const char *late_text(const Run *run)
{
    return run->n >= 20 ? "the last quarter"
           : run->n > 5 ? "the last 5 iterations"
                        : "all iterations";
}

static int64_t iteration_at(const Run *run, int64_t i)
{
    return (int64_t)run->col[COL_ITERATION][i];
}

RatioFinding dg_health_ratio(const Run *run)
{
    const double *v = run->col[COL_RATIO];
    RatioFinding r = { .first_bad = -1 };

    for (int64_t i = 0; i < run->n; i++) {
        if (isnan(v[i]))
            continue;
        r.measured++;
        if (v[i] == 0)
            continue;
        if (r.first_bad < 0)
            r.first_bad = iteration_at(run, i);
        if (fabs(v[i]) > r.worst) {
            r.worst = fabs(v[i]);
            r.worst_iteration = iteration_at(run, i);
        }
    }
    return r;
}

static void ratio(Health *h, const Run *run)
{
    static const char question[] = "Is the ratio exactly 1 at first?";
    static const char advice[] =
        "The update does not see the policy that made the pictures: its "
        "gradient is not the one of the method. Do not trust this run; "
        "replay a trajectory file to find the step.";
    const RatioFinding r = dg_health_ratio(run);
    char worst[DG_VALUE_BYTES], measured[80] = "the one iteration";

    dg_value_text(worst, r.worst);
    if (r.measured > 1)
        snprintf(measured, sizeof measured,
                 r.measured < run->n
                     ? "the %lld iterations that trained a sample"
                     : "all %lld iterations",
                 (long long)r.measured);
    if (r.measured == 0)
        dg_health_say(h, LEVEL_UNKNOWN, question, "",
                      "No iteration measured it.");
    else if (r.first_bad < 0)
        dg_health_say(
            h, LEVEL_GOOD, question, advice,
            "Yes: before the first update of %s the replayed probabilities "
            "equalled those of the rollout, bit for bit.",
            measured);
    else
        dg_health_say(h, LEVEL_WRONG, question, advice,
                      "No: it first differed in iteration %lld; the largest "
                      "|ratio \u2212 1| is %s, in iteration %lld. It must be 0 "
                      "exactly.",
                      (long long)r.first_bad, worst,
                      (long long)r.worst_iteration);
}

/* A curve that should go one way: +1 up, -1 down. */
static void direction(Health *h, const Run *run, Column c, int wanted,
                      const char *question, const char *what,
                      const char *advice, const char *if_worse)
{
    const Trend t = trend_of(h, run, c);
    const int seen = t.p < SURE ? (t.slope > 0) - (t.slope < 0) : 0;
    char first[DG_VALUE_BYTES], last[DG_VALUE_BYTES], p[DG_VALUE_BYTES],
        slope[DG_VALUE_BYTES];

    dg_value_text(first, t.first);
    dg_value_text(last, t.last);
    dg_value_text(p, t.p);
    dg_signed_text(slope, 100 * t.slope);
    if (t.points < 8) {
        h->early = 1;
        dg_health_say(
            h, LEVEL_UNKNOWN, question, "",
            "Too few iterations to tell noise from a trend: %lld, at least "
            "8 are needed.",
            (long long)t.points);
        return;
    }
    dg_health_say(
        h,
        seen == wanted ? LEVEL_GOOD
        : seen == 0    ? LEVEL_LOOK
                       : LEVEL_WRONG,
        question, seen == 0 ? advice : if_worse,
        "%s: %s from %s to %s, by %s per 100 iterations (Theil\u2013Sen "
        "slope; Mann\u2013Kendall p = %s, a trend needs p below 0.01).",
        seen == wanted ? "Yes"
        : seen == 0    ? "Not beyond its noise"
                       : "No, it goes the wrong way",
        what, first, last, slope, t.p < 1e-6 ? "10\u207b\u2076 or less" : p);
}

/* Groups x rewards of one iteration; NaN when the configuration is gone. */
static double groups(const Run *run)
{
    if (!run->config_known)
        return NAN;
    return (double)run->config.grpo.prompts_per_iteration *
           (double)(run->num_rewards > 0 ? run->num_rewards : 1);
}

static void idle_groups(Health *h, const Run *run)
{
    static const char question[] = "Do the groups teach something?";
    static const char advice[] =
        "A group whose rewards are all equal has no gradient. Prompts that "
        "are too easy or too hard, too small an eta, or a coarse reward do "
        "this; more samples per prompt help.";
    const int64_t at = late(run);
    const double skipped = mean(run->col[COL_SKIPPED] + at, run->n - at);
    const double each = mean(run->col[COL_ZERO] + at, run->n - at) +
                        (skipped > 0 ? skipped : 0);
    const double share = each / groups(run);
    const char *few = skipped > 0 ? ", or fewer than two," : "";
    char text[DG_VALUE_BYTES];

    if (isnan(each))
        return;
    if (isnan(share)) {
        dg_value_text(text, each);
        dg_health_say(
            h, LEVEL_UNKNOWN, question, "",
            "%s group%s of equal rewards%s per iteration; how many groups "
            "there are is not known without config.cfg.",
            text, each == 1 ? "" : "s", few);
        return;
    }
    dg_percent_text(text, share);
    dg_health_say(
        h,
        share <= 0.5   ? LEVEL_GOOD
        : share <= 0.9 ? LEVEL_LOOK
                       : LEVEL_WRONG,
        question, advice,
        "%s%s of the groups in %s had equal rewards%s and so no "
        "gradient (up to 50\u202f%% is usual, above 90\u202f%% is wrong).",
        share <= 0.5   ? "Yes: "
        : share <= 0.9 ? "Only in part: "
                       : "Hardly: ",
        share == 0 ? "none" : text, late_text(run), few);
}

static void clipping(Health *h, const Run *run)
{
    static const char question[] = "Is the clipping in range?";
    static const char advice[] =
        "Almost every term is cut off, so the gradient is near nothing: "
        "lower optim.lr or raise grpo.clip_range.";
    const int64_t at = late(run);
    const double share = mean(run->col[COL_CLIP] + at, run->n - at);
    const int none = run->config_known && share == 0;
    const int one = run->config.grpo.updates_per_iteration == 1 &&
                    run->config.grpo.epochs == 1;
    char text[DG_VALUE_BYTES];

    if (isnan(share))
        return;
    dg_percent_text(text, share);
    dg_health_say(
        h,
        share <= 0.9    ? LEVEL_GOOD
        : share <= 0.98 ? LEVEL_LOOK
                        : LEVEL_WRONG,
        question, advice,
        "%s: %s of the terms were clipped in %s (above "
        "90\u202f%% is too much)%s.",
        share <= 0.9 ? "Yes" : "No", text, late_text(run),
        !none ? ""
        : one
            ? "; with one update per iteration none ever is"
            : "; that none are, in spite of several updates, means that these "
              "move the policy little");
}

static void gradient(Health *h, const Run *run)
{
    static const char question[] = "Is the gradient calm?";
    static const char advice[] =
        "A single spike is cut to optim.max_grad_norm, if that is not 0, and "
        "does little harm; if there are many, lower optim.lr.";
    const double *v = run->col[COL_GRAD];
    const int64_t at = late(run), half = (run->n + 1) / 2;
    const double before = median(h, v, half);
    const double after = median(h, v + at, run->n - at);
    char a[DG_VALUE_BYTES], b[DG_VALUE_BYTES], top[DG_VALUE_BYTES];
    int64_t peak = -1;

    for (int64_t i = 0; i < run->n; i++)
        if (isfinite(v[i]) && (peak < 0 || v[i] > v[peak]))
            peak = i;
    if (peak < 0) {
        dg_health_say(h, LEVEL_UNKNOWN, question, "",
                      "No gradient norm was finite.");
        return;
    }
    dg_value_text(a, before);
    dg_value_text(b, after);
    dg_value_text(top, v[peak]);
    if (v[peak] == 0)
        dg_health_say(h, LEVEL_WRONG, question,
                      "Nothing can be learnt: look at the rewards and at "
                      "grpo.timestep_fraction.",
                      "It is 0 in every iteration.");
    else if (before > 0 && after > 10 * before)
        dg_health_say(
            h, LEVEL_WRONG, question,
            "Go back to an earlier checkpoint, and lower optim.lr.",
            "No, it explodes: its median was %s in the first half and is %s "
            "in %s (10 times is too much).",
            a, b, late_text(run));
    else if (after > 3 * before || v[peak] > 30 * median(h, v, run->n))
        dg_health_say(h, LEVEL_LOOK, question, advice,
                      "Not quite: median %s in the first half, %s in %s; "
                      "largest %s in iteration %lld.",
                      a, b, late_text(run), top,
                      (long long)iteration_at(run, peak));
    else
        dg_health_say(h, LEVEL_GOOD, question, advice,
                      "Yes: median %s in the first half, %s in %s; "
                      "largest %s in iteration %lld.",
                      a, b, late_text(run), top,
                      (long long)iteration_at(run, peak));
}

static void not_finite(Health *h, const Run *run)
{
    static const char question[] = "Are all numbers finite?";
    static const char advice[] =
        "log.txt names tensor, layer and sample of each NaN or Inf. An update "
        "that holds one is never applied.";
    const double samples = sum(run->col[COL_SET_ASIDE], run->n);
    const double updates = sum(run->col[COL_SKIPPED_UPDATES], run->n);
    int64_t first = -1;

    if (!dg_run_has(run, COL_SET_ASIDE) &&
        !dg_run_has(run, COL_SKIPPED_UPDATES))
        return;
    for (int64_t i = 0; i < run->n && first < 0; i++)
        if (run->col[COL_SET_ASIDE][i] > 0 ||
            run->col[COL_SKIPPED_UPDATES][i] > 0)
            first = iteration_at(run, i);
    if (first < 0)
        dg_health_say(h, LEVEL_GOOD, question, advice,
                      "Yes: no sample was set aside, no update skipped.");
    else if (updates > 0)
        dg_health_say(
            h, LEVEL_LOOK, question, advice,
            "No: %.0f samples set aside and %.0f updates skipped, first in "
            "iteration %lld.",
            samples, updates, (long long)first);
    else
        dg_health_say(
            h, LEVEL_LOOK, question,
            "log.txt names tensor, layer and sample of a NaN or Inf, or says "
            "why the reward failed.",
            "All of the updates, but not all of the pictures or scores: %.0f "
            "samples were set aside that no reward has scored, first in "
            "iteration %lld.",
            samples, (long long)first);
}

static void spread(Health *h, const Run *run)
{
    static const char question[] = "Do the samples of a group still differ?";
    static const char advice[] =
        "Groups that become alike stop teaching, and may mean that the "
        "policy paints one picture for every seed: look at the strips.";
    const Trend t = trend_of(h, run, COL_SPREAD);
    char a[DG_VALUE_BYTES], b[DG_VALUE_BYTES];

    if (t.points == 0)
        return;
    dg_value_text(a, t.first);
    dg_value_text(b, t.last);
    dg_health_say(
        h, t.last > 0.1 * t.first ? LEVEL_GOOD : LEVEL_LOOK, question, advice,
        "%s: the spread of rewards inside a group went from %s to %s (below "
        "a tenth of the start is little).",
        t.last > 0.1 * t.first ? "Yes" : "Hardly", a, b);
}

static int64_t significant(const Trend *t)
{
    return t->p < SURE ? (t->slope > 0) - (t->slope < 0) : 0;
}

static const char hacking[] = "Is the reward hacked?";
static const char hacking_advice[] =
    "The policy may have learnt to please the reward and not its purpose: "
    "look at the pictures, stop earlier, add a second reward or grpo.kl_beta.";
static const char by_eye[] = "Only your eyes can tell: compare the pictures.";

/* By held-out evaluations, which know the same pictures by both scores. */
static int hacked_by_evaluation(Health *h, const Run *run)
{
    const EvalRow *a = &run->before.all, *b = &run->after.all;
    const double strict = b->strict.mean - a->strict.mean;
    const double reward = run->after.sum.mean - run->before.sum.mean;
    char s[DG_VALUE_BYTES], r[DG_VALUE_BYTES];

    if (!run->before.present || !run->after.present || isnan(strict) ||
        isnan(reward))
        return 0;
    dg_signed_text(s, strict);
    dg_signed_text(r, reward);
    const int fell = b->strict.high < a->strict.low;
    const int apart = reward > 0 && strict <= 0;
    dg_health_say(
        h,
        apart && fell ? LEVEL_WRONG
        : apart       ? LEVEL_LOOK
                      : LEVEL_GOOD,
        hacking, hacking_advice,
        "%s: on held-out prompts the reward changed by %s and the strict "
        "score, which is not trained on, by %s.",
        apart && fell ? "It looks so"
        : apart       ? "Perhaps"
                      : "No sign of it",
        r, s);
    return 1;
}

/* The same while the run goes on. */
static int hacked_by_points(Health *h, const Run *run)
{
    const Trend r = trend_of(h, run, COL_REWARD);
    Finding f;

    if (!dg_held_out_find(&f, run, &r, significant(&r) > 0))
        return 0;
    dg_health_say(h, f.level, hacking,
                  f.level == LEVEL_UNKNOWN ? by_eye : hacking_advice, "%s",
                  f.answer);
    return 1;
}

static void hacked(Health *h, const Run *run)
{
    if (hacked_by_points(h, run) || hacked_by_evaluation(h, run))
        return;
    if (!dg_run_has(run, COL_STRICT)) {
        dg_health_say(h, LEVEL_UNKNOWN, hacking, by_eye,
                      "No reward here has a strict score to compare with.");
        return;
    }
    const Trend r = trend_of(h, run, COL_REWARD);
    const Trend s = trend_of(h, run, COL_STRICT);
    const int64_t up = significant(&r);
    /* what rises, if less surely than a trend has to, does not stand still */
    const int64_t gold = s.slope > 0 && s.p < LIKELY ? 1 : significant(&s);
    char from[DG_VALUE_BYTES], to[DG_VALUE_BYTES];
    char moved[3 * DG_VALUE_BYTES];

    if (s.points < 8)
        return;
    dg_value_text(from, s.first);
    dg_value_text(to, s.last);
    snprintf(moved, sizeof moved,
             strcmp(from, to) == 0 ? "stayed at %s"
             : up > 0 && gold == 0 ? "did not clearly rise from %s to %s"
                                   : "went from %s to %s",
             from, to);
    dg_health_say(h,
                  up > 0 && gold < 0    ? LEVEL_WRONG
                  : up > 0 && gold == 0 ? LEVEL_LOOK
                                        : LEVEL_GOOD,
                  hacking, hacking_advice,
                  "%s: the strict score of the training pictures %s%s.",
                  up > 0 && gold < 0    ? "It looks so"
                  : up > 0 && gold == 0 ? "Perhaps"
                                        : "No sign of it",
                  moved,
                  up <= 0    ? "; the reward did not rise"
                  : gold > 0 ? ", along with the reward"
                             : " while the reward rose");
}

static void held_out(Health *h, const Run *run)
{
    static const char question[] = "Is it better on held-out prompts?";
    const EvalRow *a = &run->before.all, *b = &run->after.all;

    if (!run->before.present || !run->after.present)
        return;
    const int strict = !isnan(a->strict.mean) && !isnan(b->strict.mean);
    const Span x = strict ? a->strict : run->before.sum;
    const Span y = strict ? b->strict : run->after.sum;
    const int better = y.low > x.high, worse = y.high < x.low;
    const int spans = isfinite(x.low) && isfinite(y.low);
    char from[DG_VALUE_BYTES], to[DG_VALUE_BYTES], by[DG_VALUE_BYTES];

    dg_value_text(from, x.mean);
    dg_value_text(to, y.mean);
    dg_signed_text(by, y.mean - x.mean);
    dg_health_say(
        h,
        better  ? LEVEL_GOOD
        : worse ? LEVEL_WRONG
                : LEVEL_LOOK,
        question,
        worse ? "Go back to an earlier checkpoint, and lower optim.lr."
              : "More prompts or seeds narrow the intervals; more iterations "
                "widen the gain.",
        "%s: the %s went from %s to %s (%s); %s.",
        better  ? "Yes"
        : worse ? "No, worse"
                : "Not certainly",
        strict ? "strict score" : "reward", from, to, by,
        !spans            ? "of one prompt there is no interval"
        : better || worse ? "the 95\u202f% intervals do not overlap"
                          : "the 95\u202f% intervals overlap");
}

static void whole(Health *h, const Run *run)
{
    static const char question[] = "Is the record whole?";
    const int64_t last = iteration_at(run, run->n - 1);
    const int64_t all = !run->config_known ? 0
                        : run->tuned       ? run->config.run.iterations
                                           : run->config.pretrain.steps;
    const int ended = all <= 0 || last >= all;
    char of[64] = "";

    if (all > 0)
        snprintf(of, sizeof of, " of %lld", (long long)all);
    dg_health_say(
        h,
        run->torn || run->disorder > 0 ? LEVEL_LOOK
        : ended                        ? LEVEL_GOOD
                                       : LEVEL_UNKNOWN,
        question,
        run->disorder > 0 ? "metrics.jsonl was edited, or two runs wrote into "
                            "this folder at once: the answers above use all "
                            "its lines."
        : ended           ? "metrics.jsonl was cut: start the run again and it "
                            "repairs its last line."
                          : "Start the same command again to go on.",
        "%s: iteration %lld%s is the last%s%s.",
        run->torn || run->disorder > 0 ? "No"
        : ended                        ? "Yes"
                                       : "Not yet finished",
        (long long)last, of,
        run->torn ? "; the line after it is not whole and left out" : "",
        run->disorder > 0 ? "; some iterations are missing or twice" : "");
}

static void memory(Health *h, const Run *run)
{
    static const char question[] = "Is memory as planned?";
    double peak = 0, plan = 0;

    if (!dg_run_has(run, COL_PEAK) || !dg_run_has(run, COL_PLAN))
        return;
    for (int64_t i = 0; i < run->n; i++) {
        peak = fmax(peak, run->col[COL_PEAK][i]);
        plan = fmax(plan, run->col[COL_PLAN][i]);
    }
    dg_health_say(
        h, peak <= plan ? LEVEL_GOOD : LEVEL_LOOK, question,
        "The plan should be an upper bound: this is a fault of the program.",
        "%s: the activations of a worker took at most %.1f MB of %.1f MB "
        "planned.",
        peak <= plan ? "Yes" : "No", 1e-6 * peak, 1e-6 * plan);
}

void dg_health_find(Health *h, const Run *run)
{
    memset(h, 0, sizeof *h);
    if (run->tuned) {
        ratio(h, run);
        direction(h, run, COL_REWARD, 1, "Does the reward rise?",
                  "the reward went",
                  "Give it more iterations, more samples per prompt, or a "
                  "higher optim.lr.",
                  "Go back to a checkpoint before the fall, and lower "
                  "optim.lr.");
        held_out(h, run);
        hacked(h, run);
        idle_groups(h, run);
        spread(h, run);
        dg_health_diversity(h, run);
        clipping(h, run);
        dg_health_drift(h, run);
    } else {
        direction(h, run, COL_LOSS, -1, "Does the loss fall?", "the loss went",
                  "Late in training a loss is nearly flat, and that is right.",
                  "Lower optim.lr.");
    }
    gradient(h, run);
    dg_health_scores(h, run);
    not_finite(h, run);
    memory(h, run);
    whole(h, run);
}
