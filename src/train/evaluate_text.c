#include "train/evaluate.h"

#include "base/error.h"
#include "base/philox.h"
#include "base/text_out.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int dg_bootstrap(Interval *out, const double *value, int64_t n,
                 int64_t resamplings, uint64_t seed)
{
    double *valid = malloc(sizeof *valid * (size_t)(n + 1));
    double *means = malloc(sizeof *means * (size_t)(resamplings + 1));
    int64_t m = 0;
    double sum = 0;
    int err = DG_OK;

    *out = (Interval) { NAN, NAN, NAN };
    if (valid == NULL || means == NULL) {
        err = dg_fail(DG_ENOMEM, "evaluation: %lld resamplings",
                      (long long)resamplings);
        goto done;
    }
    for (int64_t i = 0; i < n; i++)
        if (!isnan(value[i])) {
            valid[m++] = value[i];
            sum += value[i];
        }
    if (m == 0 || resamplings < 1)
        goto done;
    out->mean = sum / (double)m;
    if (m == 1) /* which says nothing of another choice */
        goto done;
    for (int64_t r = 0; r < resamplings; r++) {
        const RngKey key = { .seed = seed,
                             .purpose = DG_RNG_BOOTSTRAP,
                             .iteration = (uint32_t)r };
        double s = 0;

        for (int64_t i = 0; i < m; i++)
            s += valid[dg_rng_below((uint32_t)m, i, &key)];
        means[r] = s / (double)m;
    }
    qsort(means, (size_t)resamplings, sizeof *means, by_value);
    out->low = means[(int64_t)(0.025 * (double)(resamplings - 1))];
    out->high = means[(int64_t)ceil(0.975 * (double)(resamplings - 1))];
done:
    free(valid);
    free(means);
    return err;
}

void dg_evaluation_average(Evaluation *out)
{
    EvaluateTag *m = &out->mean_of_tags;

    strcpy(m->tag, "mean of tasks");
    for (int strict = 0; strict < 2; strict++) {
        Interval *to = strict ? &m->strict : &m->reward;
        double variance = 0;

        for (int i = 0; i < out->num_tags; i++) {
            const Interval *from =
                strict ? &out->tags[i].strict : &out->tags[i].reward;
            const double half = (from->high - from->low) / 2;

            to->mean += from->mean / out->num_tags;
            variance += half * half / (out->num_tags * out->num_tags);
        }
        to->low = to->mean - sqrt(variance);
        to->high = to->mean + sqrt(variance);
        m->pictures = out->all.pictures;
    }
}

/* A text that grows; ok becomes 0 when memory is gone. */
typedef struct Text {
    char *bytes;
    size_t used, cap;
    int ok;
} Text;

static void put(Text *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void put(Text *t, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (!t->ok || n < 0 || n >= (int)sizeof line) {
        t->ok = 0;
        return;
    }
    if (t->used + (size_t)n + 1 > t->cap) {
        char *more = realloc(t->bytes, t->cap * 2 + sizeof line);

        if (more == NULL) {
            t->ok = 0;
            return;
        }
        t->bytes = more;
        t->cap = t->cap * 2 + sizeof line;
    }
    snprintf(t->bytes + t->used, t->cap - t->used, "%s", line);
    t->used += (size_t)n;
}

static int finish(Text *t, char **text)
{
    if (!t->ok) {
        free(t->bytes);
        return dg_fail(DG_ENOMEM, "text of the evaluation");
    }
    *text = t->bytes;
    return DG_OK;
}

void dg_interval_text(char text[DG_INTERVAL_BYTES], const Interval *v,
                      int digits)
{
    if (isnan(v->mean))
        snprintf(text, DG_INTERVAL_BYTES, "none");
    else if (isnan(v->low))
        snprintf(text, DG_INTERVAL_BYTES, "%.*f [none]", digits, v->mean);
    else
        snprintf(text, DG_INTERVAL_BYTES, "%.*f [%.*f, %.*f]", digits, v->mean,
                 digits, v->low, digits, v->high);
}

/* A line of any of the tables; a score may have a sign and two places. */
static void line(Text *t, const char *name, int64_t count, const Interval *a,
                 const Interval *b)
{
    char text[2][DG_INTERVAL_BYTES];

    dg_interval_text(text[0], a, 3);
    dg_interval_text(text[1], b, 3);
    put(t, "%-14s %8lld   %-23s  %s\n", name, (long long)count, text[0],
        text[1]);
}

static void head(Text *t, const char *name, const char *count, const char *mean)
{
    put(t, "%-14s %8s   %-23s  %s\n", name, count, mean, "strict [95 %]");
}

/* The same number, or none of both? */
static int same(const Interval *a, const Interval *b)
{
    return a->mean == b->mean || (isnan(a->mean) && isnan(b->mean));
}

static void row(Text *t, const EvaluateTag *e)
{
    line(t, e->tag, e->pictures, &e->reward, &e->strict);
}

int dg_evaluation_text(char **text, const Evaluation *e)
{
    char mean[32] = "reward [95 %]";
    Text t = { .ok = 1 };

    if (e->num_rewards > 1) /* the first one's, with the name that is below */
        snprintf(mean, sizeof mean, "%.14s [95 %%]", e->rewards[0].name);
    head(&t, "task", "pictures", mean);
    for (int i = 0; i < e->num_tags; i++)
        row(&t, &e->tags[i]);
    row(&t, &e->all);
    if (e->num_tags > 0)
        row(&t, &e->mean_of_tags);
    if (e->missing > 0)
        put(&t, "%lld score%s missing\n", (long long)e->missing,
            e->missing == 1 ? " is" : "s are");
    if (e->num_rewards > 1) { /* over all pictures */
        put(&t, "\n");
        head(&t, "reward", "missing", "mean [95 %]");
        for (int i = 0; i < e->num_rewards; i++)
            line(&t, e->rewards[i].name, e->rewards[i].missing,
                 &e->rewards[i].reward, &e->rewards[i].strict);
    }
    /* what training raises, where the first reward as scored is not that */
    if (e->num_rewards > 0 && !same(&e->sum, &e->all.reward))
        put(&t, "\nweighted sum of the rewards: %.4f [%.4f, %.4f]\n",
            e->sum.mean, e->sum.low, e->sum.high);
    return finish(&t, text);
}

static void number(Text *t, double v)
{
    if (isfinite(v))
        put(t, "%.9g", v);
    else
        put(t, "null");
}

static void interval(Text *t, const char *name, const Interval *v)
{
    put(t, "\"%s\":{\"mean\":", name);
    number(t, v->mean);
    put(t, ",\"low\":");
    number(t, v->low);
    put(t, ",\"high\":");
    number(t, v->high);
    put(t, "}");
}

/* A string of JSON: tasks are what a prompts file calls them. */
static void quoted(Text *t, const char *text)
{
    char room[DG_JSON_CHAR];

    put(t, "\"");
    while (*text != '\0')
        put(t, "%s", dg_json_char(room, &text));
    put(t, "\"");
}

static void entry(Text *t, const EvaluateTag *e, const char *before)
{
    put(t, "%s{\"task\":", before);
    quoted(t, e->tag);
    put(t, ",\"pictures\":%lld,", (long long)e->pictures);
    interval(t, "reward", &e->reward);
    put(t, ",");
    interval(t, "strict", &e->strict);
    put(t, "}");
}

int dg_evaluation_json(char **text, const Evaluation *e)
{
    Text t = { .ok = 1 };

    put(&t, "{\"prompts\":%lld,\"seeds\":%lld,\"missing\":%lld,",
        (long long)e->prompts, (long long)e->seeds, (long long)e->missing);
    entry(&t, &e->all, "\"all\":");
    put(&t, ",");
    interval(&t, "sum", &e->sum);
    if (e->num_tags > 0)
        entry(&t, &e->mean_of_tags, ",\"mean_of_tasks\":");
    put(&t, ",\"tasks\":[");
    for (int i = 0; i < e->num_tags; i++)
        entry(&t, &e->tags[i], i > 0 ? "," : "");
    put(&t, "],\"rewards\":[");
    for (int i = 0; i < e->num_rewards; i++) {
        const EvaluateReward *r = &e->rewards[i];

        put(&t, "%s{\"name\":\"%s\",\"missing\":%lld,", i > 0 ? "," : "",
            r->name, (long long)r->missing);
        interval(&t, "reward", &r->reward);
        put(&t, ",");
        interval(&t, "strict", &r->strict);
        put(&t, "}");
    }
    put(&t, "]}\n");
    return finish(&t, text);
}
