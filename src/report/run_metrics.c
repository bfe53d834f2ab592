#include "run.h"

#include "base/error.h"
#include "store/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>

/* Where a column stands in a line. */
typedef struct Key {
    Column column;
    const char *object; /* NULL: the line itself */
    const char *key;
} Key;

static const Key keys[] = {
    { COL_ITERATION, NULL, "iteration" },
    { COL_REWARD, NULL, "reward_mean" },
    { COL_SPREAD, NULL, "reward_std" },
    { COL_STRICT, NULL, "strict_mean" },
    { COL_ZERO, NULL, "zero_std_groups" },
    { COL_SKIPPED, NULL, "skipped_groups" },
    { COL_RATIO, NULL, "ratio_max_deviation" },
    { COL_CLIP, NULL, "clip_fraction" },
    { COL_CLIP_LOW, NULL, "clip_fraction_low" },
    { COL_CLIP_HIGH, NULL, "clip_fraction_high" },
    { COL_APPROX_KL, NULL, "approx_kl" },
    { COL_RATIO_MIN, NULL, "ratio_min" },
    { COL_RATIO_MAX, NULL, "ratio_max" },
    { COL_DIVERSITY, NULL, "diversity" },
    { COL_GRAD, NULL, "grad_norm" },
    { COL_LR, NULL, "lr" },
    { COL_LOSS, NULL, "loss" },
    { COL_KL, NULL, "kl" },
    { COL_SAMPLES, NULL, "samples" },
    { COL_SET_ASIDE, NULL, "set_aside" },
    { COL_SET_ASIDE, NULL, "nonfinite" },
    { COL_SKIPPED_UPDATES, NULL, "skipped_updates" },
    { COL_GFLOPS, NULL, "gflops" },
    { COL_PEAK, NULL, "peak_bytes" },
    { COL_PLAN, NULL, "plan_bytes" },
    { COL_ROLLOUT_S, "seconds", "rollout" },
    { COL_REWARD_S, "seconds", "reward" },
    { COL_UPDATE_S, "seconds", "update" },
    { COL_IO_S, "seconds", "io" },
    { COL_TOTAL_S, "seconds", "total" },
    { COL_TOTAL_S, NULL, "seconds" },
    { COL_SUMS, "traffic", "sums" },
    { COL_WEIGHTS, "traffic", "weights" },
};

enum { NUM_KEYS = sizeof keys / sizeof *keys };

/* The line being read, for messages. */
typedef struct Place {
    const char *path;
    long line;
} Place;

static int malformed(const Place *at, const char *what, const char *key)
{
    return dg_fail(DG_EFORMAT, "%s:%ld: %s%s%s", at->path, at->line, what,
                   *key ? " " : "", key);
}

static int grow(Run *run)
{
    if (run->n < run->cap)
        return DG_OK;
    const int64_t cap = run->cap > 0 ? 2 * run->cap : 256;
    for (int k = 0; k < NUM_COLUMNS + DG_RUN_REWARDS; k++) {
        double **p =
            k < NUM_COLUMNS ? &run->col[k] : &run->reward[k - NUM_COLUMNS];
        double *more = realloc(*p, (size_t)cap * sizeof **p);

        if (more == NULL)
            return dg_fail(DG_ENOMEM, "metrics of %lld iterations",
                           (long long)cap);
        for (int64_t i = run->cap; i < cap; i++)
            more[i] = NAN;
        *p = more;
    }
    run->cap = cap;
    return DG_OK;
}

static int take_keys(Run *run, const cJSON *line, const Place *at)
{
    for (int k = 0; k < NUM_KEYS; k++) {
        const Key *key = &keys[k];
        const cJSON *from =
            key->object != NULL
                ? cJSON_GetObjectItemCaseSensitive(line, key->object)
                : line;
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(from, key->key);

        /* "seconds" is one number or an object of them */
        if (v == NULL || cJSON_IsNull(v) || cJSON_IsObject(v))
            continue;
        if (!cJSON_IsNumber(v))
            return malformed(at, "not a number:", key->key);
        run->col[key->column][run->n] = dg_json_value(v);
    }
    return DG_OK;
}

static int reward_index(Run *run, const char *name)
{
    for (int k = 0; k < run->num_rewards; k++)
        if (strncmp(run->reward_name[k], name, DG_RUN_NAME - 1) == 0)
            return k;
    if (run->num_rewards == DG_RUN_REWARDS)
        return -1;
    snprintf(run->reward_name[run->num_rewards], DG_RUN_NAME, "%s", name);
    return run->num_rewards++;
}

static void take_rewards(Run *run, const cJSON *line)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(line, "rewards");
    const cJSON *one;

    cJSON_ArrayForEach(one, all)
    {
        const int k = one->string ? reward_index(run, one->string) : -1;
        const double missing = dg_json_number(one, "missing");
        const double declined = dg_json_number(one, "declined");
        double *sum = &run->col[COL_MISSING][run->n];

        if (k >= 0)
            run->reward[k][run->n] = dg_json_number(one, "mean");
        if (!isnan(missing))
            *sum = (isnan(*sum) ? 0 : *sum) + missing;
        if (!isnan(missing) && k >= 0)
            run->missing[k] += missing;
        if (!isnan(declined) && k >= 0)
            run->declined[k] += declined;
    }
}

static int add_point(Run *run, const EvalPoint *point)
{
    if (run->num_points == run->cap_points) {
        const int64_t cap = run->cap_points > 0 ? 2 * run->cap_points : 64;
        EvalPoint *more = realloc(run->point, (size_t)cap * sizeof *more);

        if (more == NULL)
            return dg_fail(DG_ENOMEM, "evaluations of a run");
        run->point = more;
        run->cap_points = cap;
    }
    run->point[run->num_points++] = *point;
    return DG_OK;
}

/* The figures of an evaluation, as `evaluate` writes it or only its "all". */
static int take_evaluation(Run *run, const cJSON *line, const cJSON *e)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(e, "all");

    all = cJSON_IsObject(all) ? all : e;
    return add_point(run, &(EvalPoint) {
                              .iteration = dg_json_number(line, "iteration"),
                              .reward = dg_json_span(all, "reward"),
                              .strict = dg_json_span(all, "strict"),
                              .prompts = NAN,
                              .pictures = NAN,
                              .missing = NAN,
                          });
}

/* The same of evaluate.every: the strict score of the first reward that has
 * one. */
static int take_held_out(Run *run, const cJSON *line, const cJSON *e)
{
    const cJSON *rewards = cJSON_GetObjectItemCaseSensitive(e, "rewards");
    const double seconds = dg_json_number(
        cJSON_GetObjectItemCaseSensitive(line, "seconds"), "evaluate");
    const cJSON *one;
    EvalPoint p = {
        .iteration = dg_json_number(line, "iteration"),
        .reward = { dg_json_number(e, "reward_mean"),
                    dg_json_number(e, "reward_low"),
                    dg_json_number(e, "reward_high") },
        .strict = { NAN, NAN, NAN },
        .prompts = dg_json_number(e, "prompts"),
        .pictures = dg_json_number(e, "pictures"),
    };

    cJSON_ArrayForEach(one, rewards)
    {
        const double missing = dg_json_number(one, "missing");

        p.missing += isnan(missing) ? 0 : missing;
        if (isnan(p.strict.mean))
            p.strict = (Span) { dg_json_number(one, "strict_mean"),
                                dg_json_number(one, "strict_low"),
                                dg_json_number(one, "strict_high") };
    }
    run->evaluating_s += isnan(seconds) ? 0 : seconds;
    return add_point(run, &p);
}

static int is_iteration(double x)
{
    return x >= 0 && x <= 1e15 && x == floor(x);
}

static int take_object(Run *run, const cJSON *line, const Place *at)
{
    const cJSON *e = cJSON_GetObjectItemCaseSensitive(line, "evaluation");
    const cJSON *held_out = cJSON_GetObjectItemCaseSensitive(line, "held_out");
    int err = DG_OK;

    if (!cJSON_IsObject(line))
        return malformed(at, "not a JSON object", "");
    if (!is_iteration(dg_json_number(line, "iteration")))
        return malformed(at, "no number \"iteration\"", "");
    if (cJSON_IsObject(e))
        err = take_evaluation(run, line, e);
    if (!err && cJSON_IsObject(held_out))
        err = take_held_out(run, line, held_out);
    /* a line that holds an evaluation and no step is no iteration */
    if (err || ((e != NULL || held_out != NULL) &&
                cJSON_GetObjectItemCaseSensitive(line, "grad_norm") == NULL))
        return err;
    err = grow(run);
    if (!err)
        err = take_keys(run, line, at);
    if (err)
        return err;
    take_rewards(run, line);
    const double *it = run->col[COL_ITERATION];
    run->disorder += run->n > 0 && it[run->n] != it[run->n - 1] + 1;
    run->tuned |= cJSON_HasObjectItem(line, "reward_mean");
    run->n++;
    return DG_OK;
}

/* The last line without a newline may be one half written. */
static int take_line(Run *run, char *text, size_t bytes, int whole,
                     const Place *at)
{
    cJSON *json;
    int err;

    text[bytes] = '\0';
    if (strspn(text, " \t\r") == bytes)
        return DG_OK;
    json = strlen(text) == bytes ? cJSON_ParseWithOpts(text, NULL, 1) : NULL;
    if (json == NULL && !whole) {
        run->torn = 1;
        return DG_OK;
    }
    err = json != NULL ? take_object(run, json, at)
                       : malformed(at, "not JSON", "");
    cJSON_Delete(json);
    return err;
}

int dg_run_read_metrics(Run *run, const char *path)
{
    Place at = { path, 0 };
    char *text, *p, *end;
    size_t bytes;
    int err = dg_file_read(path, &text, &bytes);

    if (err)
        return err;
    end = text + bytes;
    for (p = text; !err && p < end;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        const int whole = stop != NULL;

        stop = whole ? stop : end;
        at.line++;
        err = take_line(run, p, (size_t)(stop - p), whole, &at);
        p = stop + 1;
    }
    free(text);
    return err;
}
