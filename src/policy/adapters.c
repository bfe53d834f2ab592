/* Adapters of a policy: the base below them, whether they act, merging. */
#include "policy/policy.h"

#include "base/error.h"
#include "base/philox.h"
#include "base/piece_digest.h"
#include "store/h5.h"
#include "tensor/mirror.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t base_bytes(const Policy *p)
{
    return sizeof(float) * (size_t)dg_policy_num_base(p);
}

int dg_policy_note_base(Policy *p, const Comm *c)
{
    const size_t bytes = base_bytes(p);
    const int64_t all = dg_piece_count(bytes);
    PieceSum *sums = malloc(((size_t)all + 1) * sizeof *sums);
    int64_t first, num;
    int err = sums != NULL ? DG_OK
                           : dg_fail(DG_ENOMEM, "SHA-256 of %lld pieces",
                                     (long long)all);

    dg_share_range(all, c->rank, c->size, &first, &num);
    if (!err && num > 0) {
        const size_t at = (size_t)first * DG_PIECE_BYTES;
        const size_t most = (size_t)num * DG_PIECE_BYTES;

        err = dg_piece_sums(sums + first, (char *)p->net.values + at,
                            bytes - at < most ? bytes - at : most);
    }
    err = dg_agree(c, err);
    if (!err) {
        dg_comm_share_items(c, sums, all, sizeof *sums);
        err = dg_agree(c, dg_piece_join(p->base_pieces, sums, all));
    }
    free(sums);
    return err;
}

int dg_policy_note_old_base(Policy *p)
{
    return dg_sha256_bytes(p->base_sha256, p->net.values, base_bytes(p));
}

int dg_policy_is_adapters(const H5File *f)
{
    return dg_h5_has_key(f, NULL, "base_sha256_pieces") ||
           dg_h5_has_key(f, NULL, "base_sha256");
}

int dg_policy_match_base(Policy *p, H5File *f, const char *of)
{
    const int old = !dg_h5_has_key(f, NULL, "base_sha256_pieces");
    const char *here = old ? p->base_sha256 : p->base_pieces;
    char *stored = NULL;
    int err = dg_h5_get_text(
        f, NULL, old ? "base_sha256" : "base_sha256_pieces", &stored);

    if (!err && old)
        err = dg_policy_note_old_base(p);
    if (!err && strcmp(stored, here) != 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: its adapters belong to weights of SHA-256 %.16s..., "
                      "those of %s have %.16s...",
                      dg_h5_path(f), stored, of, here);
    free(stored);
    return err;
}

int dg_policy_on_folder(const Policy *p, const char *path, int *on)
{
    char *base = NULL;
    H5File *f;
    int err = dg_h5_open(&f, path, NULL, 0);

    if (err)
        return err;
    *on = 0;
    if (dg_policy_is_adapters(f)) {
        err = dg_h5_get_text(f, NULL, "base_path", &base);
        *on = !err && base[0] == '\0' && p->base_moved[0] == '\0';
    }
    free(base);
    dg_h5_close(f);
    return err;
}

/* One trial input and what the network makes of it. */
typedef struct Probe {
    Policy *p;
    Context *ctx;
    Mirror z, condition;
    float *first, *now; /* output without a trial, and with one */
    float *kept;        /* all adapters' values, to be put back */
} Probe;

static void close_probe(Probe *x)
{
    dg_mirror_free(&x->z);
    dg_mirror_free(&x->condition);
    free(x->first);
    free(x->now);
    free(x->kept);
}

static int open_probe(Probe *x, Policy *p, Context *ctx)
{
    const PolicyShape *s = &p->shape;
    RngKey key = { .purpose = DG_RNG_LORA_PROBE };
    int err;

    *x = (Probe) { .p = p, .ctx = ctx };
    err = dg_mirror_new(&x->z, ctx->backend,
                        sizeof(float) * (size_t)s->elements, "lora");
    if (!err)
        err = dg_mirror_new(&x->condition, ctx->backend,
                            sizeof(float) * (size_t)s->condition, "lora");
    x->first = malloc(sizeof(float) * (size_t)s->elements);
    x->now = malloc(sizeof(float) * (size_t)s->elements);
    x->kept = malloc(sizeof(float) * (size_t)p->adapters.count);
    if (err || x->first == NULL || x->now == NULL || x->kept == NULL) {
        close_probe(x);
        return dg_fail(DG_ENOMEM, "lora: trial of %lld values",
                       (long long)p->adapters.count);
    }
    dg_rng_normal(x->z.host, 0, s->elements, &key);
    key.sample = 1;
    dg_rng_normal(x->condition.host, 0, s->condition, &key);
    dg_mirror_up(&x->z);
    dg_mirror_up(&x->condition);
    memcpy(x->kept, p->adapters.values,
           sizeof(float) * (size_t)p->adapters.count);
    return DG_OK;
}

static int predict(Probe *x, float *u)
{
    const float *z = x->z.at, *condition = x->condition.at, time = 0.5f;
    const PolicyBatch b = {
        .num = 1, .z = &z, .time = &time, .condition = &condition
    };
    Tensor *y;

    dg_context_reset(x->ctx);
    y = dg_policy_predict(x->p, x->ctx, &b);
    if (y == NULL)
        return dg_context_error(x->ctx);
    return dg_kernel_download(x->ctx->backend, u, y->data,
                              sizeof *u * (size_t)x->p->shape.elements);
}

/* Values for B of one target; the others' stay as they are. */
static void try_target(Probe *x, int target)
{
    const ParamSet *set = &x->p->adapters;
    const double std = 1 / sqrt((double)x->p->lora.rank);

    for (int i = 0; i < set->num_params; i++) {
        const Param *q = set->params[i];
        const RngKey key = { .purpose = DG_RNG_LORA_PROBE,
                             .sample = 2,
                             .prompt = (uint32_t)i };
        float *v = set->values + q->value.param_offset;

        if (i % 2 == 0 || !dg_lora_names(&x->p->lora, target, q->name))
            continue; /* A, or another's B */
        dg_rng_normal(v, 0, dg_tensor_count(&q->value), &key);
        for (int64_t k = 0; k < dg_tensor_count(&q->value); k++)
            v[k] = (float)(std * (double)v[k]);
    }
}

int dg_policy_check_adapters(Policy *p, Context *ctx)
{
    const size_t bytes = sizeof(float) * (size_t)p->shape.elements;
    Probe x;
    int err = open_probe(&x, p, ctx);

    if (err)
        return err;
    err = predict(&x, x.first);
    for (int i = 0; i < p->lora.num_targets && !err; i++) {
        try_target(&x, i);
        dg_policy_send(p);
        err = predict(&x, x.now);
        memcpy(p->adapters.values, x.kept,
               sizeof(float) * (size_t)p->adapters.count);
        if (!err && memcmp(x.first, x.now, bytes) == 0)
            err =
                dg_fail(DG_EINVAL,
                        "lora.targets: adapters on \"%s\" do not change what "
                        "the network gives: is %s trained?",
                        p->lora.target.text[i],
                        p->base_path[0] != '\0' ? p->base_path : "policy.path");
    }
    dg_policy_send(p);
    dg_context_reset(ctx);
    close_probe(&x);
    return err;
}

/* out[i] += scale sum_r b[r] a[r][i], summed in double, a block at a time. */
static void add_row(float *out, const float *a, const float *b, double scale,
                    int64_t rank, int64_t in)
{
    enum { BLOCK = 64 };

    for (int64_t at = 0; at < in; at += BLOCK) {
        const int64_t num = in - at < BLOCK ? in - at : BLOCK;
        double sum[BLOCK] = { 0 };

        for (int64_t r = 0; r < rank; r++)
            for (int64_t i = 0; i < num; i++)
                sum[i] += (double)b[r] * (double)a[r * in + at + i];
        for (int64_t i = 0; i < num; i++)
            out[at + i] = (float)((double)out[at + i] + scale * sum[i]);
    }
}

void dg_policy_merge(Policy *p)
{
    static const char end[] = ".lora_A.weight";

    for (int k = 0; k < p->adapters.num_params; k += 2) {
        const Param *a = p->adapters.params[k], *b = p->adapters.params[k + 1];
        const int64_t rank = a->value.dims[0], in = a->value.dims[1];
        const int64_t out = b->value.dims[0];
        float *up = b->value.data, *w;
        char name[DG_PARAM_NAME];
        const Param *q;

        snprintf(name, sizeof name, "%.*s.weight",
                 (int)(strlen(a->name) - strlen(end)), a->name);
        q = dg_params_find(&p->net, name);
        if (q == NULL)
            dg_panic("adapter %s has no weight below it", a->name);
        w = q->value.data;
#pragma omp parallel for
        for (int64_t o = 0; o < out; o++)
            add_row(w + o * in, a->value.data, up + o * rank,
                    (double)p->lora.scale, rank, in);
        memset(up, 0, sizeof *up * (size_t)(out * rank));
    }
}
