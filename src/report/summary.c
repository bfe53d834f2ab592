#include "sections.h"

#include "base/clock.h"
#include "base/version.h"
#include "trend.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static double sum(const Run *run, Column c)
{
    double s = 0;

    for (int64_t i = 0; i < run->n; i++)
        s += isfinite(run->col[c][i]) ? run->col[c][i] : 0;
    return s;
}

static void put_from_to(Page *p, const char *what, const Trend *t)
{
    char from[DG_VALUE_BYTES], to[DG_VALUE_BYTES];

    dg_value_text(from, t->first);
    dg_value_text(to, t->last);
    if (strcmp(from, to) == 0)
        dg_page_put(p, "%s stayed at <b>%s</b>", what, from);
    else
        dg_page_put(p, "%s went from <b>%s</b> to <b>%s</b>", what, from, to);
}

static void put_span(Page *p, const Span *s)
{
    char mean[DG_VALUE_BYTES], low[DG_VALUE_BYTES], high[DG_VALUE_BYTES];

    dg_value_text(mean, s->mean);
    dg_value_text(low, s->low);
    dg_value_text(high, s->high);
    dg_page_put(p, "<b>%s</b>", mean);
    if (isfinite(s->low) && isfinite(s->high))
        dg_page_put(p, " [%s, %s]", low, high);
}

/* The score an evaluation is told by: strict where there is one. */
static const Span *main_score(const EvalFile *e)
{
    return isnan(e->all.strict.mean) ? &e->sum : &e->all.strict;
}

static void put_held_out(Page *p, const Run *run)
{
    const Span *a = main_score(&run->before), *b = main_score(&run->after);
    const char *what =
        isnan(run->after.all.strict.mean) ? "reward" : "strict score";
    char by[DG_VALUE_BYTES], prompts[DG_VALUE_BYTES];

    if (!run->after.present)
        return;
    dg_count_text(prompts, run->after.prompts);
    dg_page_put(p, " On %s held-out prompt%s the %s ", prompts,
                run->after.prompts == 1 ? "" : "s", what);
    if (!run->before.present) {
        dg_page_put(p, "is ");
        put_span(p, b);
        dg_page_put(p, " (95\u202f%% interval).");
        return;
    }
    dg_signed_text(by, b->mean - a->mean);
    dg_page_put(p, "went from ");
    put_span(p, a);
    dg_page_put(p, " to ");
    put_span(p, b);
    if (!isfinite(a->low) || !isfinite(b->low))
        dg_page_put(p, "; <b>%s</b>.", by);
    else
        dg_page_put(p, "; <b>%s</b>, and the 95\u202f%% intervals %s.", by,
                    b->low > a->high || b->high < a->low ? "do not overlap"
                                                         : "overlap");
}

static void put_sentence(Page *p, const Run *run)
{
    const double *it = run->col[COL_ITERATION];
    char time[DG_DURATION_BYTES], n[DG_VALUE_BYTES], samples[DG_VALUE_BYTES];
    Trend t;

    dg_count_text(n, (double)run->n);
    dg_count_text(samples, sum(run, COL_SAMPLES));
    dg_clock_duration(time, sum(run, COL_TOTAL_S));
    dg_page_put(p, "<p class=\"lead\">In %s iteration%s (%s, %s picture%s) ", n,
                run->n == 1 ? "" : "s", time, samples,
                sum(run, COL_SAMPLES) == 1 ? "" : "s");
    p->failed |= !dg_trend_find(
        &t, it, run->col[run->tuned ? COL_REWARD : COL_LOSS], run->n);
    put_from_to(p, run->tuned ? "the reward" : "the loss", &t);
    if (run->tuned && dg_run_has(run, COL_STRICT)) {
        Trend s;

        p->failed |= !dg_trend_find(&s, it, run->col[COL_STRICT], run->n);
        put_from_to(p, " and the strict score of the training pictures", &s);
    }
    dg_page_put(p, ".");
    put_held_out(p, run);
    dg_page_put(p, "</p>\n");
    if (t.ends > 1)
        dg_page_put(p,
                    "<p class=\"under\">Values are medians of the first "
                    "and the last %lld iterations.</p>\n",
                    (long long)t.ends);
}

static void put_tile(Page *p, const char *name, const char *value,
                     const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void put_tile(Page *p, const char *name, const char *value,
                     const char *fmt, ...)
{
    char small[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    dg_page_put(p, "<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>\n", name,
                value, small);
}

static void put_ratio_tile(Page *p, const Run *run)
{
    const RatioFinding r = dg_health_ratio(run);

    if (r.measured == 0)
        return;
    if (r.first_bad < 0)
        put_tile(p, "Ratio before the first update",
                 "<span class=\"badge good\">\u2713 exactly 1</span>",
                 r.measured == 1 ? "in the one iteration"
                                 : "in all %lld iterations",
                 (long long)r.measured);
    else
        put_tile(p, "Ratio before the first update",
                 "<span class=\"badge wrong\">\u2717 not 1</span>",
                 "first in iteration %lld", (long long)r.first_bad);
}

static void put_health_tile(Page *p, const Health *h)
{
    const int wrong = h->count[LEVEL_WRONG], look = h->count[LEVEL_LOOK];
    char text[128];

    if (wrong > 0)
        snprintf(text, sizeof text,
                 "<span class=\"badge wrong\">\u2717 %d wrong</span>", wrong);
    else if (look > 0)
        snprintf(text, sizeof text,
                 "<span class=\"badge look\">! %d to look at</span>", look);
    else if (h->early)
        snprintf(text, sizeof text,
                 "<span class=\"badge unknown\">? too early</span>");
    else
        snprintf(text, sizeof text,
                 "<span class=\"badge good\">\u2713 looks right</span>");
    put_tile(p, "Health", text, "%d of %d checks good", h->count[LEVEL_GOOD],
             h->num);
}

static void put_tiles(Page *p, const Run *run, const Health *h)
{
    const double seconds = sum(run, COL_TOTAL_S);
    char value[DG_VALUE_BYTES], more[DG_VALUE_BYTES];
    char time[DG_DURATION_BYTES];
    Trend t = { .slope = NAN };

    dg_page_put(p, "<dl class=\"tiles\">\n");
    put_health_tile(p, h);
    p->failed |=
        !dg_trend_find(&t, run->col[COL_ITERATION],
                       run->col[run->tuned ? COL_REWARD : COL_LOSS], run->n);
    dg_value_text(value, t.last);
    dg_signed_text(more, t.last - t.first);
    put_tile(p, run->tuned ? "Reward at the end" : "Loss at the end", value,
             "%s since the start", more);
    if (run->after.present) {
        const Span *b = main_score(&run->after);

        dg_value_text(value, b->mean);
        dg_signed_text(more, b->mean - main_score(&run->before)->mean);
        put_tile(p,
                 isnan(run->after.all.strict.mean) ? "Held-out reward"
                                                   : "Held-out strict score",
                 value, run->before.present ? "%s over the base" : "%.0s",
                 more);
    }
    put_ratio_tile(p, run);
    if (seconds > 0) {
        dg_clock_duration(time, seconds);
        dg_value_text(value, seconds / (double)run->n);
        if (run->evaluating_s > 0) {
            dg_clock_duration(more, run->evaluating_s);
            put_tile(p, "Time", time, "%s s per iteration; evaluations %s",
                     value, more);
        } else {
            put_tile(p, "Time", time, "%s s per iteration", value);
        }
    }
    if (dg_run_has(run, COL_GFLOPS)) {
        double weighted = 0;

        for (int64_t i = 0; i < run->n; i++)
            if (isfinite(run->col[COL_GFLOPS][i] * run->col[COL_TOTAL_S][i]))
                weighted += run->col[COL_GFLOPS][i] * run->col[COL_TOTAL_S][i];
        dg_value_text(value, weighted / seconds);
        put_tile(p, "Speed, GFLOP/s", value, "all ranks, over the whole run");
    }
    dg_page_put(p, "</dl>\n");
}

void dg_section_summary(Page *p, const Run *run, const Health *h)
{
    char date[DG_DATE_BYTES];

    dg_clock_date(date);
    dg_page_put(p,
                "<header>\n<p class=\"eyebrow\">dancegrpo %s \u00b7 %s</p>"
                "\n<h1>",
                dg_version(), run->tuned ? "tuning" : "pretraining");
    dg_page_text(p, run->dir);
    dg_page_put(p, "</h1>\n");
    put_sentence(p, run);
    put_tiles(p, run, h);
    dg_page_put(p, "</header>\n");
}

void dg_section_health(Page *p, const Health *h)
{
    static const char *const class[] = { "good", "unknown", "look", "wrong" };
    static const char *const word[] = { "\u2713 good", "? not known", "! look",
                                        "\u2717 wrong" };

    int order[DG_FINDINGS] = { 0 };

    dg_health_order(order, h);
    dg_page_put(p,
                "<section>\n<h2>Is this run right?</h2>\n"
                "<p class=\"under\">%s</p>\n<ul class=\"health\">\n",
                dg_health_verdict(h));
    for (int i = 0; i < h->num; i++) {
        const Finding *f = &h->finding[order[i]];

        dg_page_put(p,
                    "<li><span><span class=\"badge %s\">%s</span></span>"
                    "<b>",
                    class[f->level], word[f->level]);
        dg_page_text(p, f->question);
        dg_page_put(p, "</b><div><p>");
        dg_page_text(p, f->answer);
        dg_page_put(p, "</p>");
        if (*f->advice) {
            dg_page_put(p, "<p class=\"advice\">");
            dg_page_text(p, f->advice);
            dg_page_put(p, "</p>");
        }
        dg_page_put(p, "</div></li>\n");
    }
    dg_page_put(p, "</ul>\n</section>\n");
}

void dg_section_end(Page *p, const Run *run)
{
    char date[DG_DATE_BYTES];

    dg_clock_date(date);
    if (run->config_text != NULL) {
        dg_page_put(p, "<section>\n<h2>Configuration</h2>\n<details><summary>"
                       "All keys, with defaults: config.cfg"
                       "</summary>\n<pre>");
        dg_page_text(p, run->config_text);
        dg_page_put(p, "</pre></details>\n</section>\n");
    }
    dg_page_put(p,
                "<footer>Written %s by dancegrpo %s (commit %s). Every number "
                "is from <code>metrics.jsonl</code> in the run folder",
                date, dg_version(), dg_git_commit());
    if (run->before.present || run->after.present)
        dg_page_put(p, " and its <code>evaluation_*.json</code>");
    dg_page_put(p, ". This file needs no network and runs no "
                   "scripts.</footer>\n</main>\n</body>\n</html>\n");
}
