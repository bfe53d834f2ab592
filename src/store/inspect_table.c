/* The items of trajectory files as one table, for whoever reads tables. */
#include "store/inspect.h"

#include "base/error.h"
#include "base/legible.h"
#include "store/checkpoint.h"
#include "store/h5.h"
#include "store/trajectory.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_COLUMNS = 12, PATH_BYTES = 1200 };

/* What a row says of an item that was trained on. */
typedef struct Terms {
    int32_t update; /* -1: it was not */
    int64_t clipped;
    double low, high; /* of its ratios */
} Terms;

typedef struct Table {
    H5File *file;
    int64_t iteration, N, P, K;
    char **names, **prompts; /* names NULL: of before the file had them */
    int64_t *prompt_index;
    float *reward, *strict, *advantage, *total;
    Terms *terms;
    void *columns[MAX_COLUMNS]; /* what is to be freed */
    int num_columns;
} Table;

static void close_table(Table *t)
{
    for (int i = 0; i < t->num_columns; i++)
        free(t->columns[i]);
    dg_h5_free_texts(t->names);
    dg_h5_free_texts(t->prompts);
    dg_h5_close(t->file);
}

/* num elements, kept until the table is closed. */
static void *new_column(Table *t, int64_t num, size_t size, int *err)
{
    void *c = *err ? NULL : calloc((size_t)num + 1, size);

    if (c != NULL)
        t->columns[t->num_columns++] = c;
    else if (!*err)
        *err =
            dg_fail(DG_ENOMEM, "%s: a table of its items", dg_h5_path(t->file));
    return c;
}

static void *read_column(Table *t, const char *name, H5Type type, int64_t a,
                         int64_t b, int *err)
{
    const int64_t dims[] = { a, b };
    void *c = new_column(t, a * (b > 0 ? b : 1), dg_h5_type_bytes(type), err);

    if (c != NULL)
        *err = dg_h5_read(t->file, name, type, b > 0 ? 2 : 1, dims, c);
    return c;
}

/* A column that is not kept. */
static void drop_column(Table *t)
{
    free(t->columns[--t->num_columns]);
}

static void take_terms(Table *t, const H5Shape *s, const int64_t *kept,
                       const int32_t *update, const float *ratio,
                       const int32_t *clipped)
{
    for (int64_t i = 0; i < s->dims[0]; i++) {
        Terms *e = &t->terms[kept[i]];

        e->update = update[i];
        for (int64_t j = 0; j < s->dims[1]; j++) {
            const double r = (double)ratio[i * s->dims[1] + j];

            e->clipped += clipped[i * s->dims[1] + j] != 0;
            e->low = fmin(e->low, r); /* of a number and NaN the number */
            e->high = fmax(e->high, r);
        }
    }
}

static int read_terms(Table *t)
{
    const int before = t->num_columns;
    H5Shape s;
    int64_t *kept;
    int32_t *update, *clipped;
    float *ratio;
    int err = dg_h5_shape(t->file, "ratio", &s);

    if (!err && s.num_dims != 2)
        err = dg_fail(DG_EFORMAT, "%s: dataset ratio: not of two dimensions",
                      dg_h5_path(t->file));
    if (err)
        return err;
    kept = read_column(t, "kept", DG_H5_I64, s.dims[0], 0, &err);
    update = read_column(t, "update", DG_H5_I32, s.dims[0], 0, &err);
    ratio = read_column(t, "ratio", DG_H5_F32, s.dims[0], s.dims[1], &err);
    clipped = read_column(t, "clipped", DG_H5_I32, s.dims[0], s.dims[1], &err);
    for (int64_t i = 0; i < s.dims[0] && !err; i++)
        if (kept[i] < 0 || kept[i] >= t->N)
            err = dg_fail(DG_EFORMAT,
                          "%s: kept[%" PRId64 "] = %" PRId64
                          ": there are %" PRId64 " items",
                          dg_h5_path(t->file), i, kept[i], t->N);
    if (!err)
        take_terms(t, &s, kept, update, ratio, clipped);
    while (t->num_columns > before)
        drop_column(t);
    return err;
}

static int check_count(const Table *t, const char *name, int64_t num,
                       int64_t wanted)
{
    return num == wanted ? DG_OK
                         : dg_fail(DG_EFORMAT,
                                   "%s: dataset %s has %" PRId64
                                   " texts, wanted are %" PRId64,
                                   dg_h5_path(t->file), name, num, wanted);
}

static int read_texts(Table *t)
{
    int64_t num = 0;
    int err = dg_h5_read_texts(t->file, "prompt", &t->prompts, &num);

    if (!err)
        err = check_count(t, "prompt", num, t->P);
    if (err || !dg_h5_has(t->file, "reward_name"))
        return err;
    err = dg_h5_read_texts(t->file, "reward_name", &t->names, &num);
    return err ? err : check_count(t, "reward_name", num, t->K);
}

static int read_sizes(Table *t)
{
    H5Shape items, prompts;
    int err = dg_h5_get_i64(t->file, NULL, "iteration", &t->iteration);

    if (!err)
        err = dg_h5_shape(t->file, "reward", &items);
    if (!err)
        err = dg_h5_shape(t->file, "prompt_index", &prompts);
    if (err)
        return err;
    if (items.num_dims != 2 || prompts.num_dims != 1 || prompts.num == 0 ||
        items.dims[0] % prompts.dims[0] != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: dataset reward is not of as many items for each "
                       "prompt of prompt_index",
                       dg_h5_path(t->file));
    t->N = items.dims[0];
    t->K = items.dims[1];
    t->P = prompts.dims[0];
    return DG_OK;
}

static int read_table(Table *t)
{
    int err = read_sizes(t);

    if (err)
        return err;
    t->prompt_index = read_column(t, "prompt_index", DG_H5_I64, t->P, 0, &err);
    t->reward = read_column(t, "reward", DG_H5_F32, t->N, t->K, &err);
    t->strict = read_column(t, "strict", DG_H5_F32, t->N, t->K, &err);
    t->advantage = read_column(t, "advantage", DG_H5_F32, t->N, t->K, &err);
    t->total = read_column(t, "total_advantage", DG_H5_F32, t->N, 0, &err);
    t->terms = new_column(t, t->N, sizeof *t->terms, &err);
    for (int64_t i = 0; i < t->N && !err; i++)
        t->terms[i] = (Terms) { -1, 0, NAN, NAN };
    if (!err)
        err = read_texts(t);
    return err ? err : read_terms(t);
}

/* A cell of text: quotes twice, and what steers a terminal left out. */
static void put_text(FILE *out, const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789_";

    if (text[strspn(text, plain)] == '\0') {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    while (*text != '\0') {
        const size_t n = strcspn(text, "\"");

        dg_legible_put_line(out, text, n);
        text += n;
        if (*text == '"') {
            fputs("\"\"", out);
            text++;
        }
    }
    fputc('"', out);
}

/* Nothing where there is no number. */
static void put_number(FILE *out, double x)
{
    if (isnan(x))
        fputc(',', out);
    else
        fprintf(out, ",%.9g", x);
}

static void put_name(FILE *out, const Table *t, int64_t k, const char *what)
{
    char name[DG_H5_NAME], nth[16] = "";
    int before = 0;

    for (int64_t i = 0; i < k && t->names != NULL; i++)
        before += strcmp(t->names[i], t->names[k]) == 0;
    if (before > 0)
        snprintf(nth, sizeof nth, "_%d", before + 1);
    if (t->names == NULL)
        snprintf(name, sizeof name, "reward_%" PRId64 "%s", k + 1, what);
    else
        snprintf(name, sizeof name, "%.200s%s%s", t->names[k], nth, what);
    fputc(',', out);
    put_text(out, name);
}

static void put_head(FILE *out, const Table *t)
{
    fputs("iteration,item,prompt_index,sample", out);
    for (int64_t k = 0; k < t->K; k++) {
        put_name(out, t, k, "");
        put_name(out, t, k, "_strict");
        put_name(out, t, k, "_advantage");
    }
    fputs(",total_advantage,update,ratio_min,ratio_max,clipped,prompt\n", out);
}

static void put_items(FILE *out, const Table *t)
{
    const int64_t G = t->N / t->P;

    for (int64_t i = 0; i < t->N; i++) {
        const Terms *e = &t->terms[i];

        fprintf(out, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64,
                t->iteration, i, t->prompt_index[i / G], i % G);
        for (int64_t k = i * t->K; k < (i + 1) * t->K; k++) {
            put_number(out, (double)t->reward[k]);
            put_number(out, (double)t->strict[k]);
            put_number(out, (double)t->advantage[k]);
        }
        put_number(out, (double)t->total[i]);
        put_number(out, e->update < 0 ? NAN : e->update);
        put_number(out, e->low);
        put_number(out, e->high);
        put_number(out, e->update < 0 ? NAN : (double)e->clipped);
        fputc(',', out);
        put_text(out, t->prompts[i / G]);
        fputc('\n', out);
    }
}

/* All files must have the first one's columns. */
static int same_rewards(const Table *t, const Table *first)
{
    int same = t->K == first->K && !t->names == !first->names;

    for (int64_t k = 0; k < t->K && same && t->names != NULL; k++)
        same = strcmp(t->names[k], first->names[k]) == 0;
    return same ? DG_OK
                : dg_fail(DG_EFORMAT,
                          "%s: its rewards are others than those of %s: one "
                          "table has files of the same rewards",
                          dg_h5_path(t->file), dg_h5_path(first->file));
}

static int add_file(const char *path, Table *first, FILE *out)
{
    Table other = { 0 };
    Table *t = first->file == NULL ? first : &other;
    int err = dg_trajectory_open(&t->file, path);

    if (!err)
        err = read_table(t);
    if (!err && t != first)
        err = same_rewards(t, first);
    if (!err && t == first)
        put_head(out, t);
    if (!err)
        put_items(out, t);
    close_table(&other);
    return err;
}

/* All of a run's, in the order of iterations. */
static int add_run(const char *folder, Table *first, FILE *out)
{
    char inside[PATH_BYTES - 64], path[PATH_BYTES];
    int64_t *list = NULL;
    int num = 0, err;

    snprintf(inside, sizeof inside, "%s/trajectories", folder);
    err = dg_checkpoint_list(inside, &list, &num); /* names are alike */
    if (!err && num == 0)
        err = dg_fail(DG_EINVAL,
                      "%s: no trajectory files are in it: a run has them with "
                      "trajectory.every > 0",
                      inside);
    for (int i = 0; i < num && !err; i++) {
        dg_trajectory_path(path, sizeof path, inside, list[i]);
        err = add_file(path, first, out);
    }
    free(list);
    return err;
}

int dg_inspect_table(const char *const *paths, int num, FILE *out)
{
    Table first = { 0 };
    struct stat there;
    int err = DG_OK;

    for (int i = 0; i < num && !err; i++)
        err = stat(paths[i], &there) == 0 && S_ISDIR(there.st_mode)
                  ? add_run(paths[i], &first, out)
                  : add_file(paths[i], &first, out);
    close_table(&first);
    if (!err && (fflush(out) != 0 || ferror(out)))
        err = dg_fail(DG_EIO, "the table cannot be written");
    return err;
}
