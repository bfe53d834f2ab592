#include "held_out.h"

#include "page.h"

#include <math.h>
#include <stdio.h>

/* One score over the evaluations that have it. */
typedef struct Course {
    const char *name;
    int64_t num;
    Span first, best, last;
    double first_at, best_at, last_at; /* iterations */
} Course;

static Course course_of(const Run *run, int strict)
{
    Course c = { .name = strict ? "the strict score" : "the reward" };

    for (int64_t i = 0; i < run->num_points; i++) {
        const EvalPoint *e = &run->point[i];
        const Span s = strict ? e->strict : e->reward;

        if (isnan(s.mean))
            continue;
        if (c.num++ == 0) {
            c.first = c.best = s;
            c.first_at = c.best_at = e->iteration;
        }
        if (s.mean > c.best.mean) {
            c.best = s;
            c.best_at = e->iteration;
        }
        c.last = s;
        c.last_at = e->iteration;
    }
    return c;
}

/* Below where it began, beyond both intervals. */
static int fell(const Course *c)
{
    return c->num > 1 && c->last.high < c->first.low;
}

/* Below where it was best, the same. */
static int past(const Course *c)
{
    return c->num > 1 && c->last.high < c->best.low;
}

static int rose(const Course *c)
{
    return c->num > 1 && c->last.mean > c->first.mean;
}

/* Above where it began, beyond both intervals: a few iterations scatter. */
static int grew(const Course *c)
{
    return c->num > 1 && c->last.low > c->first.high;
}

/* The strict score is to follow both rewards, the held-out reward that of
 * training. */
static Level judge(const Course *c, int should)
{
    if (c->num < 2 || !should)
        return LEVEL_GOOD;
    return fell(c)               ? LEVEL_WRONG
           : past(c) || !rose(c) ? LEVEL_LOOK
                                 : LEVEL_GOOD;
}

static void tell_trouble(Finding *out, const Course *c, const Trend *reward)
{
    char from[DG_VALUE_BYTES], to[DG_VALUE_BYTES], best[DG_VALUE_BYTES];
    char r[DG_VALUE_BYTES], s[DG_VALUE_BYTES], peak[160] = "";

    dg_value_text(from, c->first.mean);
    dg_value_text(to, c->last.mean);
    dg_value_text(best, c->best.mean);
    dg_value_text(r, reward->first);
    dg_value_text(s, reward->last);
    if (c->best_at != c->first_at && c->best_at != c->last_at)
        snprintf(peak, sizeof peak, "; it was best after iteration %.0f, %s",
                 c->best_at, best);
    snprintf(out->answer, sizeof out->answer,
             "%s: in training the reward went from %s to %s, on held-out "
             "prompts %s from %s to %s (iterations %.0f to %.0f)%s.",
             out->level == LEVEL_WRONG ? "It looks so" : "Perhaps", r, s,
             c->name, from, to, c->first_at, c->last_at, peak);
}

static void tell_good(Finding *out, const Course *reward, const Course *strict,
                      int should)
{
    char r[DG_VALUE_BYTES], s[DG_VALUE_BYTES], more[160] = "";

    dg_signed_text(r, reward->last.mean - reward->first.mean);
    dg_signed_text(s, strict->last.mean - strict->first.mean);
    if (strict->num > 1)
        snprintf(more, sizeof more, " and the strict score by %s", s);
    snprintf(out->answer, sizeof out->answer,
             "No sign of it: on held-out prompts the reward changed by %s%s "
             "(iterations %.0f to %.0f)%s.",
             r, more, reward->first_at, reward->last_at,
             should ? "" : "; in training it did not rise");
}

/* A reward that is hacked rises on all prompts: it is no witness of itself. */
static void tell_unknown(Finding *out, const Course *reward)
{
    char r[DG_VALUE_BYTES];

    dg_signed_text(r, reward->last.mean - reward->first.mean);
    snprintf(out->answer, sizeof out->answer,
             "On held-out prompts the reward changed by %s (iterations %.0f to "
             "%.0f), as it does when it is hacked too. No reward here has a "
             "strict score to compare with.",
             r, reward->first_at, reward->last_at);
}

int dg_held_out_find(Finding *out, const Run *run, const Trend *reward,
                     int rises)
{
    const Course plain = course_of(run, 0), strict = course_of(run, 1);
    const int should = rises || grew(&plain);
    const Level by_reward = judge(&plain, rises);
    const Level by_strict = judge(&strict, should);

    if (plain.num < 2)
        return 0;
    out->level = by_strict > by_reward ? by_strict : by_reward;
    if (out->level == LEVEL_GOOD && should && strict.num < 2)
        out->level = LEVEL_UNKNOWN;
    if (out->level == LEVEL_UNKNOWN)
        tell_unknown(out, &plain);
    else if (out->level == LEVEL_GOOD)
        tell_good(out, &plain, &strict, should);
    else
        tell_trouble(out, out->level == by_strict ? &strict : &plain, reward);
    return 1;
}
