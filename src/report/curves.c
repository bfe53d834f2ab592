#include "sections.h"

#include "chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A chart of one column; the caller fills in what is special. */
static Chart chart_of(const Run *run, Column c, int colour, const char *title,
                      const char *unit, const char *note)
{
    return (Chart) {
        .title = title,
        .unit = unit,
        .note = note,
        .x = run->col[COL_ITERATION],
        .n = run->n,
        .num_lines = 1,
        .line = { { .y = run->col[c], .label = "", .colour = colour } }
    };
}

/* Evaluations inside metrics.jsonl as points over a chart. */
static void put_with_points(Page *p, const Run *run, Chart *c, int strict)
{
    ChartPoint *point = calloc((size_t)run->num_points + 1, sizeof *point);

    if (point == NULL) {
        p->failed = 1;
        return;
    }
    for (int64_t i = 0; i < run->num_points; i++) {
        const EvalPoint *e = &run->point[i];
        const Span *s = strict ? &e->strict : &e->reward;

        point[i] = (ChartPoint) { e->iteration, s->mean, s->low, s->high };
    }
    c->point = point;
    c->num_points = (int)run->num_points;
    dg_chart_put(p, c);
    free(point);
}

static void put_reward(Page *p, const Run *run)
{
    Chart c = chart_of(run, COL_REWARD, 0, "Reward", "mean of all pictures",
                       "Band: \u00b1 the spread inside a group.");

    c.line[0].spread = run->col[COL_SPREAD];
    c.smooth = 1;
    if (!dg_run_has(run, COL_SPREAD))
        c.note = "";
    if (run->num_points > 0)
        c.note = "Band: \u00b1 the spread inside a group. Points: held-out "
                 "prompts, painted without noise, with 95\u202f% intervals.";
    c.point_colour = 3;
    put_with_points(p, run, &c, 0);
}

static void put_each_reward(Page *p, const Run *run)
{
    Chart c = chart_of(run, COL_REWARD, 0, "Each reward", "mean",
                       "Before weights and group normalisation.");

    if (run->num_rewards < 2)
        return;
    c.num_lines = run->num_rewards;
    for (int k = 0; k < run->num_rewards; k++)
        c.line[k] = (ChartLine) { .y = run->reward[k],
                                  .label = run->reward_name[k],
                                  .colour = k % 6 };
    c.smooth = 1;
    dg_chart_put(p, &c);
}

static void put_strict(Page *p, const Run *run)
{
    Chart c = chart_of(run, COL_STRICT, 1, "Strict score", "share of pictures",
                       "Pictures with everything right. Not trained on.");

    c.from_zero = c.percent = c.smooth = 1;
    c.point_colour = 1;
    if (!run->tuned) {
        c.title = "Strict score, held out";
        c.note = "Evaluations during the run, with 95\u202f% intervals.";
    } else if (run->num_points > 0) {
        c.note = "Pictures with everything right. Not trained on. Points: "
                 "held-out prompts, with 95\u202f% intervals.";
        c.point_colour = 3;
    }
    put_with_points(p, run, &c, 1);
}

static void put_ratio(Page *p, const Run *run)
{
    const RatioFinding r = dg_health_ratio(run);
    char badge[96];
    Chart c = chart_of(run, COL_RATIO, 0, "Ratio", "largest |ratio \u2212 1|",
                       "Before the first update of an iteration. Must be 0, "
                       "to the last bit.");

    if (r.measured == 0)
        return;
    if (r.first_bad < 0)
        snprintf(badge, sizeof badge, "\u2713 exactly 1");
    else
        snprintf(badge, sizeof badge, "\u2717 not 1 in iteration %lld",
                 (long long)r.first_bad);
    c.badge = badge;
    c.badge_good = r.first_bad < 0;
    c.line[0].colour = c.badge_good ? 1 : 5;
    c.from_zero = c.peaks = 1;
    dg_chart_put(p, &c);
}

static void put_shares(Page *p, const Run *run)
{
    Chart clip = chart_of(run, COL_CLIP, 2, "Clipped terms", "share",
                          "Terms whose ratio left the clip range where that "
                          "stops their gradient.");
    Chart zero =
        chart_of(run, COL_ZERO, 2, "Groups without a gradient", "per iteration",
                 "All rewards of such a group are equal.");
    Chart skip = chart_of(run, COL_SKIPPED, 2, "Groups skipped",
                          "per iteration", "Fewer than two valid scores.");
    Chart lost = chart_of(run, COL_MISSING, 5, "Missing scores",
                          "per iteration", "Left out, never counted as 0.");
    Chart bad = chart_of(run, COL_SET_ASIDE, 5, "Samples set aside",
                         "per iteration", "They held a NaN or an Inf.");
    Chart *only_if_any[] = { &zero, &skip, &lost, &bad };
    const Column column[] = { COL_ZERO, COL_SKIPPED, COL_MISSING,
                              COL_SET_ASIDE };

    clip.from_zero = clip.percent = clip.smooth = 1;
    if (dg_run_has(run, COL_CLIP_LOW)) {
        clip.line[0].label = "all";
        clip.line[1] = (ChartLine) { run->col[COL_CLIP_LOW], NULL, "low", 0 };
        clip.line[2] = (ChartLine) { run->col[COL_CLIP_HIGH], NULL, "high", 1 };
        clip.num_lines = 3;
    }
    dg_chart_put(p, &clip);
    for (int k = 0; k < 4; k++) {
        int any = 0;

        for (int64_t i = 0; i < run->n; i++)
            any |= run->col[column[k]][i] > 0;
        only_if_any[k]->from_zero = 1;
        only_if_any[k]->peaks = k > 0;
        only_if_any[k]->smooth = k == 0;
        if (any)
            dg_chart_put(p, only_if_any[k]);
    }
}

/* What pretraining's loss is an error of. */
static const char *loss_note(const Run *run)
{
    if (!run->config_known)
        return "Mean squared error of the prediction.";
    if (run->config.policy.prediction != DG_PREDICT_EPSILON)
        return "Mean squared error of the velocity.";
    return run->config.pretrain.loss_power > 0
               ? "Mean squared error of the noise, weighted by noise level."
               : "Mean squared error of the noise.";
}

static void put_optimizer(Page *p, const Run *run)
{
    Chart grad = chart_of(run, COL_GRAD, 3, "Gradient norm", "",
                          "Before it is clipped to optim.max_grad_norm.");
    Chart lr = chart_of(run, COL_LR, 4, "Learning rate", "", "");
    Chart loss = chart_of(run, COL_LOSS, 0, "Loss", "",
                          run->tuned ? "Near 0 by design, as advantages of a "
                                       "group sum to 0: it does not measure "
                                       "progress."
                                     : loss_note(run));
    Chart kl = chart_of(run, COL_KL, 5, "KL to the base", "nats per element",
                        "How far the policy has moved from where it began.");

    if (!run->tuned) {
        loss.smooth = loss.maybe_log = 1;
        dg_chart_put(p, &loss);
        put_strict(p, run);
    }
    grad.from_zero = grad.smooth = grad.maybe_log = 1;
    dg_chart_put(p, &grad);
    lr.from_zero = 1;
    dg_chart_put(p, &lr);
    kl.from_zero = kl.smooth = 1;
    dg_chart_put(p, &kl);
    if (run->tuned) {
        loss.smooth = 1;
        dg_chart_put(p, &loss);
    }
}

/* v [n] in a unit of which the largest of all has one to three digits before its
 * point: "kB" ... "PB". to: of num * n, for the result. */
static const char *scale_bytes(double *to, const double *const *v, int num,
                               int64_t n)
{
    static const char *const unit[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    double most = 0, one = 1;
    int u = 0;

    for (int64_t i = 0; i < num * n; i++)
        most = fmax(most, v[i / n][i % n]);
    for (; u < 5 && most >= 1000 * one; u++)
        one *= 1000;
    for (int64_t i = 0; i < num * n; i++)
        to[i] = v[i / n][i % n] / one;
    return unit[u];
}

/* Of runs on several ranks. */
static void put_traffic(Page *p, const Run *run)
{
    const double *const bytes[] = { run->col[COL_SUMS], run->col[COL_WEIGHTS] };
    double *scaled = malloc(2 * (size_t)run->n * sizeof *scaled);
    char unit[48];
    Chart c = chart_of(run, COL_SUMS, 2, "Traffic", unit,
                       "Between ranks: sums of gradients, and weights from "
                       "their owners.");

    if (scaled == NULL) {
        p->failed = 1;
        return;
    }
    snprintf(unit, sizeof unit, "%s per iteration, of each rank",
             scale_bytes(scaled, bytes, 2, run->n));
    c.num_lines = 2;
    c.line[0] = (ChartLine) { scaled, NULL, "sums", 2 };
    c.line[1] = (ChartLine) { scaled + run->n, NULL, "weights", 0 };
    c.from_zero = 1;
    dg_chart_put(p, &c);
    free(scaled);
}

static void put_time(Page *p, const Run *run)
{
    Chart phases =
        chart_of(run, COL_ROLLOUT_S, 0, "Time per phase", "s per iteration",
                 "At the right: shares of the whole run.");
    Chart total = chart_of(run, COL_TOTAL_S, 0, "Time", "s per iteration", "");
    Chart speed =
        chart_of(run, COL_GFLOPS, 4, "Speed", "GFLOP/s, all ranks",
                 "Operations of matrix products over the whole time.");

    phases.kind = CHART_STACK;
    phases.num_lines = 4;
    phases.from_zero = total.from_zero = speed.from_zero = 1;
    phases.line[0].label = "rollout";
    phases.line[1] = (ChartLine) { run->col[COL_REWARD_S], NULL, "reward", 1 };
    phases.line[2] = (ChartLine) { run->col[COL_UPDATE_S], NULL, "update", 2 };
    phases.line[3] = (ChartLine) { run->col[COL_IO_S], NULL, "io", 3 };
    if (dg_run_has(run, COL_ROLLOUT_S))
        dg_chart_put(p, &phases);
    else
        dg_chart_put(p, &total);
    put_traffic(p, run);
    dg_chart_put(p, &speed);
}

void dg_section_curves(Page *p, const Run *run)
{
    const long long block = dg_chart_block(run->n);

    dg_page_put(p, "<section>\n<h2>Curves</h2>\n<p class=\"under\">Faint: ");
    if (block > 1)
        dg_page_put(p, "means of %lld iterations", block);
    else
        dg_page_put(p, "every iteration");
    dg_page_put(p, "; strong: the moving average, with its last value at the "
                   "right. Point at a chart for the values.</p>\n"
                   "<div class=\"charts\">\n");
    if (run->tuned) {
        put_reward(p, run);
        put_strict(p, run);
        put_each_reward(p, run);
        put_ratio(p, run);
        dg_curves_drift(p, run);
        put_shares(p, run);
    }
    put_optimizer(p, run);
    put_time(p, run);
    dg_page_put(p, "</div>\n</section>\n");
}
