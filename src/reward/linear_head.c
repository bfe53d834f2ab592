#include "linear_head.h"

#include "base/error.h"
#include "base/value_digest.h"
#include "weights/manifest.h"
#include "weights/remap.h"
#include "weights/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 5 };

/* numbers between them are of dropouts */
static const int numbers[LAYERS] = { 0, 2, 4, 6, 7 };

/* The layers of a file, one behind the other in a buffer. */
typedef struct Layers {
    int64_t width[LAYERS + 1]; /* what each reads; the last: what comes out */
    char names[2 * LAYERS][32];
    WeightWant wants[2 * LAYERS]; /* weight [out, in], bias [out] of each */
    int64_t count;                /* values */
} Layers;

/* Rows of a file's tensor, under any of the known prefixes; 1 where there is
 * none: the manifest names it then. */
static int64_t rows_of(const WeightSource *s, const char *name)
{
    for (int i = 0; dg_remap_prefix(i) != NULL; i++) {
        char whole[128];
        int64_t at;

        snprintf(whole, sizeof whole, "%s%s", dg_remap_prefix(i), name);
        at = dg_source_find(s, whole);
        if (at >= 0 && dg_source_info(s, at)->num_dims > 0)
            return dg_source_info(s, at)->dims[0];
    }
    return 1;
}

/* What the file must hold: between the given width and 1, its own widths. */
static void lay_out(Layers *l, const WeightSource *s, int64_t width)
{
    l->width[0] = width;
    for (int i = 0; i < LAYERS; i++) {
        WeightWant *w = &l->wants[2 * i];

        snprintf(l->names[2 * i], sizeof l->names[0], "layers.%d.weight",
                 numbers[i]);
        snprintf(l->names[2 * i + 1], sizeof l->names[0], "layers.%d.bias",
                 numbers[i]);
        l->width[i + 1] = i + 1 < LAYERS ? rows_of(s, l->names[2 * i]) : 1;
        w[0] = (WeightWant) { .name = l->names[2 * i],
                              .num_dims = 2,
                              .dims = { l->width[i + 1], l->width[i] },
                              .at = l->count };
        l->count += l->width[i + 1] * l->width[i];
        w[1] = (WeightWant) { .name = l->names[2 * i + 1],
                              .num_dims = 1,
                              .dims = { l->width[i + 1] },
                              .at = l->count };
        l->count += l->width[i + 1];
    }
}

/* The map of the layers from i on, of which *v is that from i + 1 on, becomes
 * the map from i on: v' = W^T v, bias' = bias + v . b. */
static int fold(double **v, double *bias, const Layers *l, int i,
                const float *values)
{
    const int64_t out = l->width[i + 1], in = l->width[i];
    const float *w = values + l->wants[2 * i].at;
    const float *b = values + l->wants[2 * i + 1].at;
    double *before = calloc((size_t)in, sizeof *before);

    if (before == NULL)
        return dg_fail(DG_ENOMEM, "linear head");
    for (int64_t r = 0; r < out; r++) {
        *bias += (*v)[r] * (double)b[r];
        for (int64_t c = 0; c < in; c++)
            before[c] += (*v)[r] * (double)w[r * in + c];
    }
    free(*v);
    *v = before;
    return DG_OK;
}

static int fold_all(LinearHead *h, const Layers *l, const WeightPlan *plan)
{
    float *values = malloc(sizeof *values * (size_t)l->count);
    double *v = malloc(sizeof *v);
    int err = DG_OK;

    if (values == NULL || v == NULL)
        err = dg_fail(DG_ENOMEM, "linear head");
    if (!err)
        err = dg_manifest_fill(plan, 0, l->count, values);
    if (!err)
        v[0] = 1;
    for (int i = LAYERS - 1; i >= 0 && !err; i--)
        err = fold(&v, &h->bias, l, i, values);
    if (!err)
        memcpy(h->weight, v, sizeof *v * (size_t)h->width);
    free(values);
    free(v);
    return err;
}

/* By this rank alone. */
static int read_file(LinearHead *h, const char *path, const char *key)
{
    WeightSource *source;
    WeightPlan *plan = NULL;
    Layers l = { .count = 0 };
    int err;

    if (access(path, F_OK) != 0)
        return dg_fail(DG_EIO, "%s = \"%s\": %s", key, path, strerror(errno));
    err = dg_snapshot_open(&source, path, NULL);
    if (err)
        return err;
    lay_out(&l, source, h->width);
    err = dg_manifest_plan(&plan, source, l.wants, 2 * LAYERS, NULL);
    if (!err)
        err = dg_source_verify(source);
    if (!err)
        err = fold_all(h, &l, plan);
    dg_manifest_free(plan);
    dg_source_close(source);
    return err;
}

int dg_linear_head_load(LinearHead *out, const Comm *comm, const char *path,
                        int64_t width, const char *key)
{
    int err = DG_OK;

    out->width = width;
    out->weight = calloc((size_t)width, sizeof *out->weight);
    if (out->weight == NULL)
        err = dg_fail(DG_ENOMEM, "linear head");
    else if (comm->rank == 0)
        err = read_file(out, path, key);
    err = dg_agree(comm, err);
    if (err)
        return err;
    dg_comm_bcast(comm, out->weight, sizeof *out->weight * (size_t)width, 0);
    dg_comm_bcast(comm, &out->bias, sizeof out->bias, 0);
    return DG_OK;
}

void dg_linear_head_fini(LinearHead *h)
{
    free(h->weight);
    *h = (LinearHead) { .width = 0 };
}

uint64_t dg_linear_head_digest(const LinearHead *h)
{
    float bits[2];
    uint64_t sum = 0;

    for (int64_t i = 0; i <= h->width; i++) {
        memcpy(bits, i < h->width ? &h->weight[i] : &h->bias, sizeof bits);
        sum += dg_value_digest(2 * i, bits, 2);
    }
    return sum;
}

double dg_linear_head_apply(const LinearHead *h, const float *x)
{
    double sum = 0;

    for (int64_t i = 0; i < h->width; i++)
        sum += h->weight[i] * (double)x[i];
    return sum + h->bias;
}
