/* Several runs beside each other: a table, what differs, curves together. */
#include "report/report.h"

#include "base/error.h"
#include "base/text_out.h"
#include "base/version.h"
#include "chart.h"
#include "sections.h"
#include "store/file.h"
#include "trend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 160 };

typedef enum Figure {
    FIG_RUN,
    FIG_ITERATIONS,
    FIG_MAIN, /* reward, or the loss of pretraining */
    FIG_COMMON,
    FIG_STRICT,
    FIG_HELD_OUT,
    FIG_KL,
    FIG_SECONDS,
    FIG_HEALTH,
    NUM_FIGURES
} Figure;

/* The table: a row of texts for each run, and which columns there are. */
typedef struct Compared {
    const Run *runs;
    int num;
    int64_t common; /* iteration that all have; 0: all end there */
    int shown[NUM_FIGURES];
    char head[NUM_FIGURES][CELL];
    char cell[DG_REPORT_RUNS][NUM_FIGURES][CELL];
    char *differs; /* of their configurations; to free */
} Compared;

static Column main_column(const Run *run)
{
    return run->tuned ? COL_REWARD : COL_LOSS;
}

static int64_t last_iteration(const Run *run)
{
    return (int64_t)run->col[COL_ITERATION][run->n - 1];
}

/* Medians of the first and the last tenth of the first n lines. */
static int from_to(char cell[CELL], const Run *run, Column c, int64_t n,
                   int only_last)
{
    char from[DG_VALUE_BYTES], to[DG_VALUE_BYTES];
    Trend t;

    if (!dg_trend_find(&t, run->col[COL_ITERATION], run->col[c], n))
        return dg_fail(DG_ENOMEM, "comparison of runs");
    if (t.points == 0)
        return DG_OK;
    dg_value_text(from, t.first);
    dg_value_text(to, t.last);
    if (only_last)
        snprintf(cell, CELL, "%s", to);
    else
        snprintf(cell, CELL, "%s \u2192 %s", from, to);
    return DG_OK;
}

static void put_iterations(char cell[CELL], const Run *run)
{
    const int64_t aim = !run->config_known ? 0
                        : run->tuned       ? run->config.run.iterations
                                           : run->config.pretrain.steps;

    if (aim > 0)
        snprintf(cell, CELL, "%lld of %lld", (long long)last_iteration(run),
                 (long long)aim);
    else
        snprintf(cell, CELL, "%lld", (long long)last_iteration(run));
}

static void put_held_out(char cell[CELL], const EvalFile *e)
{
    const int strict = !isnan(e->all.strict.mean);
    const Span *s = strict ? &e->all.strict : &e->sum;
    char mean[DG_VALUE_BYTES], low[DG_VALUE_BYTES], high[DG_VALUE_BYTES];

    if (!e->present)
        return;
    dg_value_text(mean, s->mean);
    dg_value_text(low, s->low);
    dg_value_text(high, s->high);
    snprintf(cell, CELL, "%s %s", strict ? "strict" : "reward", mean);
    if (isfinite(s->low) && isfinite(s->high))
        snprintf(cell + strlen(cell), CELL - strlen(cell), " [%s, %s]", low,
                 high);
}

static void put_seconds(char cell[CELL], const Run *run)
{
    char text[DG_VALUE_BYTES];
    double s = 0;
    int64_t num = 0;

    for (int64_t i = 0; i < run->n; i++)
        if (isfinite(run->col[COL_TOTAL_S][i])) {
            s += run->col[COL_TOTAL_S][i];
            num++;
        }
    if (num == 0)
        return;
    dg_value_text(text, s / (double)num);
    snprintf(cell, CELL, "%s", text);
}

static int put_health(char cell[CELL], const Run *run)
{
    Health *h = calloc(1, sizeof *h);

    if (h == NULL)
        return dg_fail(DG_ENOMEM, "comparison of runs");
    dg_health_find(h, run);
    if (h->count[LEVEL_WRONG] > 0)
        snprintf(cell, CELL, "%d wrong", h->count[LEVEL_WRONG]);
    else if (h->count[LEVEL_LOOK] > 0)
        snprintf(cell, CELL, "%d to look at", h->count[LEVEL_LOOK]);
    else
        snprintf(cell, CELL, "%s", h->early ? "too early" : "looks right");
    const int failed = h->failed;
    free(h);
    return failed ? dg_fail(DG_ENOMEM, "comparison of runs") : DG_OK;
}

static int fill_row(Compared *c, int i)
{
    const Run *run = &c->runs[i];
    char(*cell)[CELL] = c->cell[i];
    int64_t n = 0;
    int err;

    while (n < run->n && run->col[COL_ITERATION][n] <= (double)c->common)
        n++;
    snprintf(cell[FIG_RUN], CELL, "%d  %.100s", i + 1, run->dir);
    put_iterations(cell[FIG_ITERATIONS], run);
    err = from_to(cell[FIG_MAIN], run, main_column(run), run->n, 0);
    if (!err && c->common > 0)
        err = from_to(cell[FIG_COMMON], run, main_column(run), n, 1);
    if (!err)
        err = from_to(cell[FIG_STRICT], run, COL_STRICT, run->n, 0);
    if (!err)
        err = from_to(cell[FIG_KL], run, COL_KL, run->n, 1);
    put_held_out(cell[FIG_HELD_OUT], &run->after);
    put_seconds(cell[FIG_SECONDS], run);
    return err ? err : put_health(cell[FIG_HEALTH], run);
}

/* The last iteration of the shortest run, 0 where all are as long. */
static int64_t common_end(const Run *runs, int num)
{
    int64_t least = INT64_MAX, most = 0;

    for (int i = 0; i < num; i++) {
        const int64_t last = last_iteration(&runs[i]);

        least = last < least ? last : least;
        most = last > most ? last : most;
    }
    return least < most ? least : 0;
}

static void put_heads(Compared *c)
{
    static const char *const head[NUM_FIGURES] = {
        "run", "iterations",  "",      "", "strict", "held out",
        "KL",  "s/iteration", "health"
    };
    int tuned = 0;

    for (int f = 0; f < NUM_FIGURES; f++)
        snprintf(c->head[f], CELL, "%s", head[f]);
    for (int i = 0; i < c->num; i++)
        tuned += c->runs[i].tuned;
    snprintf(c->head[FIG_MAIN], CELL, "%s",
             tuned == c->num ? "reward"
             : tuned == 0    ? "loss"
                             : "reward, or loss");
    snprintf(c->head[FIG_COMMON], CELL, "at iteration %lld",
             (long long)c->common);
}

/* A config.cfg that is not there, or another version's, is no reason to refuse
 * the rest. */
static int find_differences(Compared *c)
{
    const Config *configs[DG_REPORT_RUNS];
    int number[DG_REPORT_RUNS], known = 0;

    for (int i = 0; i < c->num; i++)
        if (c->runs[i].config_known) {
            number[known] = i + 1;
            configs[known++] = &c->runs[i].config;
        }
    return dg_config_differences(&c->differs, configs, number, known);
}

static int compare(Compared *c)
{
    int err = DG_OK;

    c->common = common_end(c->runs, c->num);
    put_heads(c);
    for (int i = 0; i < c->num && !err; i++)
        err = fill_row(c, i);
    for (int i = 0; i < c->num; i++)
        for (int f = 0; f < NUM_FIGURES; f++)
            c->shown[f] |= c->cell[i][f][0] != '\0';
    return err ? err : find_differences(c);
}

static int num_unknown(const Compared *c)
{
    int num = 0;

    for (int i = 0; i < c->num; i++)
        num += !c->runs[i].config_known;
    return num;
}

/* --- as text ------------------------------------------------------------- */

/* Characters, not bytes. */
static int width_of(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

static void tell_row(FILE *out, const Compared *c, const int *width,
                     const char (*cell)[CELL])
{
    int pending = 0; /* blanks, of which a line has none at its end */

    for (int f = 0; f < NUM_FIGURES; f++) {
        if (!c->shown[f])
            continue;
        fprintf(out, "%*s%s", pending, "", cell[f]);
        pending = width[f] + 3 - width_of(cell[f]);
    }
    fputc('\n', out);
}

static void tell(FILE *out, const Compared *c)
{
    int width[NUM_FIGURES];

    for (int f = 0; f < NUM_FIGURES; f++) {
        width[f] = width_of(c->head[f]);
        for (int i = 0; i < c->num; i++)
            if (width_of(c->cell[i][f]) > width[f])
                width[f] = width_of(c->cell[i][f]);
    }
    tell_row(out, c, width, c->head);
    for (int i = 0; i < c->num; i++)
        tell_row(out, c, width, c->cell[i]);
    fprintf(out,
            "\nAn arrow goes from the median of the first tenth of the "
            "iterations to that of the\nlast (of 1 to 10 iterations "
            "each).\n\nWhat differs:\n%s",
            *c->differs ? c->differs : "  nothing but run.dir\n");
    if (num_unknown(c) > 0)
        fprintf(out, "  (not known of %d: no config.cfg that can be read)\n",
                num_unknown(c));
}

/* --- as a page ------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Iterations that any run has, sorted, each once; to free. */
static int64_t all_iterations(double **out, const Compared *c)
{
    int64_t all = 0, n = 0;

    for (int i = 0; i < c->num; i++)
        all += c->runs[i].n;
    *out = malloc((size_t)all * sizeof **out);
    if (*out == NULL)
        return 0;
    for (int i = 0; i < c->num; i++) {
        memcpy(*out + n, c->runs[i].col[COL_ITERATION],
               (size_t)c->runs[i].n * sizeof **out);
        n += c->runs[i].n;
    }
    qsort(*out, (size_t)all, sizeof **out, ascending);
    n = 1;
    for (int64_t i = 1; i < all; i++)
        if ((*out)[i] != (*out)[n - 1])
            (*out)[n++] = (*out)[i];
    return n;
}

/* A run's values at the iterations x [n]; NaN where it has none. */
static void spread_out(double *y, const double *x, int64_t n, const Run *run,
                       Column column)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = NAN;
    for (int64_t i = 0; i < run->n; i++) {
        const double *at = bsearch(&run->col[COL_ITERATION][i], x, (size_t)n,
                                   sizeof *x, ascending);

        if (at != NULL)
            y[at - x] = run->col[column][i];
    }
}

/* Of a path, with the slashes behind it. */
static const char *last_name(const char *path)
{
    const char *name = path;

    for (const char *s = path; s[0] && s[1]; s++)
        if (s[0] == '/' && s[1] != '/')
            name = s + 1;
    return name;
}

/* One column of all runs; y [num, n] is scratch. */
static void put_chart(Page *p, const Compared *c, const Chart *like,
                      Column column, double *y)
{
    char label[DG_REPORT_PAGE_RUNS][CELL];
    Chart chart = *like;

    chart.num_lines = c->num;
    for (int i = 0; i < c->num; i++) {
        const Run *run = &c->runs[i];

        snprintf(label[i], CELL, "%d %.100s", i + 1, last_name(run->dir));
        spread_out(y + i * like->n, like->x, like->n, run, column);
        chart.line[i] = (ChartLine) { .y = y + i * like->n,
                                      .label = label[i],
                                      .colour = i % 6 };
    }
    dg_chart_put(p, &chart);
}

static void put_charts(Page *p, const Compared *c)
{
    static const struct {
        Column column;
        const char *title, *unit;
        int percent, from_zero, maybe_log;
    } charts[] = {
        { COL_REWARD, "Reward", "mean of all pictures", 0, 0, 0 },
        { COL_STRICT, "Strict score", "share of pictures", 1, 1, 0 },
        { COL_SPREAD, "Spread of rewards", "inside a group", 0, 1, 0 },
        { COL_LOSS, "Loss", "", 0, 0, 1 },
        { COL_KL, "KL to the base", "nats per element", 0, 1, 0 },
        { COL_GRAD, "Gradient norm", "", 0, 1, 1 },
        { COL_CLIP, "Clipped terms", "share", 1, 1, 0 },
        { COL_ZERO, "Groups without a gradient", "per iteration", 0, 1, 0 },
        { COL_LR, "Learning rate", "", 0, 1, 0 },
        { COL_TOTAL_S, "Time", "s per iteration", 0, 1, 0 },
    };
    double *x, *y;
    const int64_t n = all_iterations(&x, c);

    y = malloc((size_t)(n * c->num) * sizeof *y);
    p->failed |= n == 0 || y == NULL;
    dg_page_put(p, "<section>\n<h2>Curves</h2>\n<div class=\"charts\">\n");
    for (size_t k = 0; k < sizeof charts / sizeof *charts && !p->failed; k++) {
        const Chart like = { .title = charts[k].title,
                             .unit = charts[k].unit,
                             .note = "",
                             .x = x,
                             .n = n,
                             .from_zero = charts[k].from_zero,
                             .percent = charts[k].percent,
                             .smooth = 1,
                             .maybe_log = charts[k].maybe_log };

        put_chart(p, c, &like, charts[k].column, y);
    }
    dg_page_put(p, "</div>\n</section>\n");
    free(x);
    free(y);
}

static void put_row(Page *p, const Compared *c, const char (*cell)[CELL],
                    const char *first, const char *other)
{
    dg_page_put(p, "<tr>");
    for (int f = 0; f < NUM_FIGURES; f++) {
        if (!c->shown[f])
            continue;
        dg_page_put(p, "<%s>", f == 0 ? first : other);
        dg_page_text(p, cell[f]);
        dg_page_put(p, "</%s>", f == 0 ? first : other);
    }
    dg_page_put(p, "</tr>\n");
}

static int make_page(Page *p, const Compared *c)
{
    const Run title = { .dir = "Comparison of runs" };

    dg_section_head(p, &title);
    dg_page_put(p,
                "<header>\n<p class=\"eyebrow\">dancegrpo %s</p>\n<h1>%s"
                "</h1>\n<div class=\"wide\"><table class=\"scores runs\">"
                "<thead>",
                dg_version(), title.dir);
    put_row(p, c, c->head, "th", "th");
    dg_page_put(p, "</thead>\n<tbody>\n");
    for (int i = 0; i < c->num; i++)
        put_row(p, c, c->cell[i], "th", "td");
    dg_page_put(p, "</tbody></table></div>\n<p class=\"under\">An arrow "
                   "goes from the median of the first tenth of the iterations "
                   "to that of the last (of 1 to 10 iterations "
                   "each).</p>\n</header>\n<section>\n<h2>What differs"
                   "</h2>\n<pre>");
    dg_page_text(p, *c->differs ? c->differs : "nothing but run.dir\n");
    dg_page_put(p, "</pre>\n</section>\n");
    put_charts(p, c);
    dg_page_put(p, "</main>\n</body>\n</html>\n");
    return p->failed ? dg_fail(DG_ENOMEM, "comparison of runs") : DG_OK;
}

int dg_report_compare(FILE *out, const char *html, const char *const *dirs,
                      int num)
{
    Run *runs = calloc((size_t)num, sizeof *runs);
    Compared *c = calloc(1, sizeof *c);
    Page page = { 0 };
    int err =
        runs == NULL || c == NULL ? dg_fail(DG_ENOMEM, "comparison of runs")
        : num > DG_REPORT_RUNS || (html != NULL && num > DG_REPORT_PAGE_RUNS)
            ? dg_fail(DG_EINVAL,
                      "%d runs: at most %d can be compared, %d "
                      "in a page",
                      num, DG_REPORT_RUNS, DG_REPORT_PAGE_RUNS)
            : DG_OK;

    for (int i = 0; i < num && !err; i++)
        err = dg_run_read(&runs[i], dirs[i]);
    if (!err) {
        c->runs = runs;
        c->num = num;
        err = compare(c);
    }
    if (!err && html != NULL)
        err = make_page(&page, c);
    if (!err && html != NULL)
        err = dg_file_write(html, page.bytes, page.used);
    if (!err)
        tell(out, c);
    dg_page_free(&page);
    for (int i = 0; i < num && runs != NULL; i++)
        dg_run_release(&runs[i]);
    if (c != NULL)
        free(c->differs);
    free(c);
    free(runs);
    return err;
}
