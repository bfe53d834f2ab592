#include "sections.h"

#include <math.h>
#include <string.h>

static const EvalRow *find_task(const EvalFile *e, const char *task)
{
    for (int i = 0; i < e->num_tasks; i++)
        if (strcmp(e->task[i].task, task) == 0)
            return &e->task[i];
    return NULL;
}

static void put_span(Page *p, const Span *s)
{
    char mean[DG_VALUE_BYTES], low[DG_VALUE_BYTES], high[DG_VALUE_BYTES];

    dg_page_put(p, "<td>");
    if (s != NULL && isfinite(s->mean)) {
        dg_value_text(mean, s->mean);
        dg_page_put(p, "%s", mean);
        if (isfinite(s->low) && isfinite(s->high)) {
            dg_value_text(low, s->low);
            dg_value_text(high, s->high);
            dg_page_put(p, " <small>[%s, %s]</small>", low, high);
        }
    } else {
        dg_page_put(p, "\u2013");
    }
    dg_page_put(p, "</td>");
}

static void put_change(Page *p, const Span *a, const Span *b)
{
    const double by = a != NULL && b != NULL ? b->mean - a->mean : NAN;
    char text[DG_VALUE_BYTES];

    if (isnan(by)) {
        dg_page_put(p, "<td>\u2013</td>");
        return;
    }
    dg_signed_text(text, by);
    dg_page_put(p, "<td class=\"%s\">%s</td>",
                b->low > a->high   ? "up"
                : b->high < a->low ? "down"
                                   : "",
                text);
}

/* Place of a share in the drawing of intervals. */
static double across(double share)
{
    return 10 + 200 * fmin(fmax(share, 0), 1);
}

/* Both intervals on a scale from 0 to 1: before hollow, after full. */
static void put_intervals(Page *page, const Span *before, const Span *after)
{
    const Span *const row[2] = { before, after };

    dg_page_put(page, "<svg class=\"iv\" viewBox=\"0 0 220 24\" "
                      "role=\"img\" aria-label=\"before and after\">"
                      "<path class=\"g\" d=\"M10 0v24M60 0v24M110 0v24M160 "
                      "0v24M210 0v24\"/>");
    for (int i = 0; i < 2; i++) {
        const Span *v = row[i];
        const int y = i == 0 ? 8 : 16, colour = i == 0 ? 4 : 0;

        if (v == NULL || !isfinite(v->mean))
            continue;
        if (isfinite(v->low) && isfinite(v->high))
            dg_page_put(page, "<path class=\"l c%d\" d=\"M%.1f %dH%.1f\"/>",
                        colour, across(v->low), y, across(v->high));
        dg_page_put(page,
                    "<circle class=\"%s c%d\" cx=\"%.1f\" cy=\"%d\" "
                    "r=\"3.6\"/>",
                    i == 0 ? "p" : "d", colour, across(v->mean), y);
    }
    dg_page_put(page, "</svg>");
}

/* The numbers over a column of those. */
static void put_scale(Page *page)
{
    dg_page_put(page, "<svg class=\"iv\" viewBox=\"0 0 220 24\" "
                      "aria-hidden=\"true\"><g text-anchor=\"middle\">"
                      "<text x=\"10\" y=\"17\">0</text>"
                      "<text x=\"110\" y=\"17\">0.5</text>"
                      "<text x=\"210\" y=\"17\">1</text></g></svg>");
}

/* One row; a or b is NULL where that evaluation does not have the task. */
static void put_row(Page *p, const EvalRow *a, const EvalRow *b, int strict,
                    const char *name, const char *class)
{
    const EvalRow *any = b != NULL ? b : a;
    const Span *x = a == NULL ? NULL : strict ? &a->strict : &a->reward;
    const Span *y = b == NULL ? NULL : strict ? &b->strict : &b->reward;
    char pictures[DG_VALUE_BYTES];

    dg_count_text(pictures, any->pictures);
    dg_page_put(p, "<tr class=\"%s\"><th>", class);
    dg_page_text(p, name);
    dg_page_put(p, "</th><td>%s</td>", pictures);
    put_span(p, x);
    put_span(p, y);
    put_change(p, x, y);
    dg_page_put(p, "<td>");
    put_intervals(p, x, y);
    dg_page_put(p, "</td></tr>\n");
}

/* Tasks are told by the first reward as scored. Is what training raises, the
 * weighted sum, something else? */
static int sum_is_other(const EvalFile *e)
{
    return e != NULL && isfinite(e->sum.mean) &&
           e->sum.mean != e->all.reward.mean;
}

static void put_sum(Page *p, const EvalFile *a, const EvalFile *b)
{
    EvalRow x = { .pictures = NAN }, y = x;

    if (a != NULL) {
        x = a->all;
        x.reward = a->sum;
    }
    if (b != NULL) {
        y = b->all;
        y.reward = b->sum;
    }
    put_row(p, a ? &x : NULL, b ? &y : NULL, 0, "weighted sum of the rewards",
            "sum");
}

static void put_table(Page *p, const Run *run, int strict)
{
    const EvalFile *a = run->before.present ? &run->before : NULL;
    const EvalFile *b = run->after.present ? &run->after : NULL;
    const EvalFile *any = b != NULL ? b : a;
    const int other = !strict && (sum_is_other(a) || sum_is_other(b));

    dg_page_put(p,
                "<h3>%s</h3>\n<div class=\"wide\"><table class=\"scores\">\n"
                "<thead><tr><th>task</th><th>pictures</th><th>before</th>"
                "<th>after</th><th>change</th><th>",
                strict  ? "Strict score: everything the prompt asks for, and "
                          "nothing else"
                : other ? "First reward, as it scores"
                        : "Reward: what was trained on");
    put_scale(p);
    dg_page_put(p, "</th></tr></thead>\n<tbody>\n");
    for (int i = 0; i < any->num_tasks; i++) {
        const char *task = any->task[i].task;

        put_row(p, a ? find_task(a, task) : NULL, b ? find_task(b, task) : NULL,
                strict, task, "");
    }
    if (isfinite(any->mean_of_tasks.reward.mean) ||
        isfinite(any->mean_of_tasks.strict.mean))
        put_row(p, a ? &a->mean_of_tasks : NULL, b ? &b->mean_of_tasks : NULL,
                strict, "mean of the tasks", "sum");
    put_row(p, a ? &a->all : NULL, b ? &b->all : NULL, strict, "all pictures",
            "sum");
    if (other)
        put_sum(p, a, b);
    dg_page_put(p, "</tbody></table></div>\n");
}

static int has(const EvalFile *e, int strict)
{
    return e->present &&
           isfinite(strict ? e->all.strict.mean : e->all.reward.mean);
}

void dg_section_evaluation(Page *p, const Run *run)
{
    const EvalFile *any = run->after.present ? &run->after : &run->before;
    char prompts[DG_VALUE_BYTES], seeds[DG_VALUE_BYTES];

    if (!any->present)
        return;
    dg_count_text(prompts, any->prompts);
    dg_count_text(seeds, any->seeds);
    dg_page_put(p,
                "<section>\n<h2>Held-out prompts</h2>\n<p class=\"under\">%s "
                "prompts, %s seed%s each, never trained on. In brackets 95"
                "\u202f%% bootstrap intervals; a change in colour is one "
                "whose intervals do not overlap. <span class=\"key\"></span>"
                "before <span class=\"key full\"></span>after",
                prompts, seeds, any->seeds == 1 ? "" : "s");
    if (any->missing > 0)
        dg_page_put(p, ". %.0f scores are missing", any->missing);
    dg_page_put(p, "</p>\n");
    for (int strict = 1; strict >= 0; strict--)
        if (has(&run->before, strict) || has(&run->after, strict))
            put_table(p, run, strict);
    dg_page_put(p, "</section>\n");
}
