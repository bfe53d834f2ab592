#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"

/* --- LayerNorm, RMSNorm, modulation ------------------------------------ */

typedef struct NormCall {
    NormKind kind;
    float eps;
    const Tensor *w, *b;
    const Modulation *m;
} NormCall;

static NormArgs norm_args(const Tensor *x, const Tensor *mean,
                          const Tensor *rstd, const NormCall *c)
{
    const int64_t width = dg_tensor_width(x);
    NormArgs a = {
        .kind = c->kind,
        .batch = x->dims[0],
        .rows = dg_rows_per_sample(x),
        .width = width,
        .eps = c->eps,
        .x = dg_data(x),
        .w = dg_data(c->w),
        .b = dg_data(c->b),
        .mean = dg_data(mean),
        .rstd = dg_data(rstd),
    };

    if (c->m != NULL) {
        a.ld_mod = dg_tensor_width(c->m->mod);
        a.shift = dg_data_at(c->m->mod, c->m->shift * width);
        a.scale = dg_data_at(c->m->mod, c->m->scale * width);
    }
    return a;
}

/* node: t[0] x, t[1] mod, t[2] mean, t[3] rstd; w[0], w[1]; n[0] kind,
 * n[1], n[2] chunks; f[0] eps */
static void norm_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *mod = node->t[1];
    const Modulation m = { mod, (int)node->n[1], (int)node->n[2] };
    const NormCall c = { (NormKind)node->n[0], node->f[0], node->w[0],
                         node->w[1], mod != NULL ? &m : NULL };
    NormArgs a = norm_args(x, node->t[2], node->t[3], &c);
    Tensor *dx = dg_tape_grad(ctx, x, &a.accumulate);
    Tensor *dmod = dg_tape_grad_zeroed(ctx, mod);

    if (ctx->err)
        return;
    a.dy = dg_data(node->out->grad);
    a.dx = dg_data(dx);
    a.dw = dg_tape_param_grad(ctx, c.w);
    a.db = dg_tape_param_grad(ctx, c.b);
    a.dshift = dg_data_at(dmod, m.shift * a.width);
    a.dscale = dg_data_at(dmod, m.scale * a.width);
    dg_kernels(ctx, x)->norm_grad(&a);
}

static Tensor *norm(Context *ctx, Tensor *x, const NormCall *c, const char *op)
{
    const int64_t rows = dg_tensor_rows(x);
    Tensor *mod = c->m != NULL ? c->m->mod : NULL;
    Tensor *y = dg_tensor_like(ctx, x);
    Tensor *mean = dg_tensor_new(ctx, DG_F32, 1, &rows);
    Tensor *rstd = dg_tensor_new(ctx, DG_F32, 1, &rows);
    TapeNode *node = NULL;
    NormArgs a;

    if (ctx->err)
        return NULL;
    dg_op_alike(x, c->w, op);
    dg_op_alike(x, mod, op);
    a = norm_args(x, mean, rstd, c);
    a.y = dg_data(y);
    dg_kernels(ctx, x)->norm(&a);
    if (dg_op_records(ctx, x, c->w) || dg_op_records(ctx, mod, NULL))
        node = dg_tape_push(ctx, norm_back, y);
    if (node != NULL) {
        node->t[0] = x;
        node->t[1] = mod;
        node->t[2] = mean;
        node->t[3] = rstd;
        node->w[0] = c->w;
        node->w[1] = c->b;
        node->n[0] = c->kind;
        node->n[1] = c->m != NULL ? c->m->shift : 0;
        node->n[2] = c->m != NULL ? c->m->scale : 0;
        node->f[0] = c->eps;
    }
    return dg_op_finish(ctx, y, op);
}

Tensor *dg_op_layer_norm(Context *ctx, Tensor *x, const Tensor *w,
                         const Tensor *b, float eps)
{
    if (ctx->err || x == NULL)
        return NULL;
    return norm(ctx, x, &(NormCall) { DG_NORM_LAYER, eps, w, b, NULL },
                "LayerNorm");
}

Tensor *dg_op_rms_norm(Context *ctx, Tensor *x, const Tensor *w, float eps)
{
    if (ctx->err || x == NULL)
        return NULL;
    return norm(ctx, x, &(NormCall) { DG_NORM_RMS, eps, w, NULL, NULL },
                "RMSNorm");
}

Tensor *dg_op_modulate(Context *ctx, Tensor *x, const Modulation *m, float eps)
{
    if (ctx->err || x == NULL || m->mod == NULL)
        return NULL;
    if (m->mod->dims[0] != x->dims[0])
        dg_panic("modulate: batch of modulation and input differ");
    return norm(ctx, x, &(NormCall) { DG_NORM_LAYER, eps, NULL, NULL, m },
                "modulation");
}

/* --- gated residual ---------------------------------------------------- */

/* node: t[0] r, t[1] f, t[2] mod; n[0] chunk */
static void gate_back(Context *ctx, TapeNode *node)
{
    Tensor *r = node->t[0], *f = node->t[1], *mod = node->t[2];
    Tensor *dy = node->out->grad;
    Tensor *df = f->needs_grad ? dg_tensor_like(ctx, f) : NULL;
    Tensor *dmod = dg_tape_grad_zeroed(ctx, mod);
    const int64_t width = dg_tensor_width(f), at = node->n[0] * width;

    if (ctx->err)
        return;
    dg_kernels(ctx, f)->gate_grad(&(GateArgs) {
        .batch = f->dims[0],
        .rows = dg_rows_per_sample(f),
        .width = width,
        .ld_gate = dg_tensor_width(mod),
        .f = dg_data(f),
        .gate = dg_data_at(mod, at),
        .dy = dg_data(dy),
        .df = dg_data(df),
        .dgate = dg_data_at(dmod, at),
    });
    if (df != NULL)
        dg_tape_give(ctx, f, df);
    dg_tape_give(ctx, r, dy);
}

Tensor *dg_op_gate(Context *ctx, Tensor *r, Tensor *f, Tensor *mod,
                   int gate_chunk)
{
    TapeNode *node = NULL;
    int64_t width;
    Tensor *y;

    if (ctx->err || r == NULL || f == NULL || mod == NULL)
        return NULL;
    width = dg_tensor_width(f);
    dg_op_alike(f, mod, "gated residual");
    dg_op_alike(f, r, "gated residual");
    y = dg_tensor_like(ctx, r);
    if (y == NULL)
        return NULL;
    dg_kernels(ctx, f)->gate(&(GateArgs) {
        .batch = f->dims[0],
        .rows = dg_rows_per_sample(f),
        .width = width,
        .ld_gate = dg_tensor_width(mod),
        .r = dg_data(r),
        .f = dg_data(f),
        .gate = dg_data_at(mod, gate_chunk * width),
        .y = dg_data(y),
    });
    if (dg_op_records(ctx, r, NULL) || dg_op_records(ctx, f, NULL) ||
        dg_op_records(ctx, mod, NULL))
        node = dg_tape_push(ctx, gate_back, y);
    if (node != NULL) {
        node->t[0] = r;
        node->t[1] = f;
        node->t[2] = mod;
        node->n[0] = gate_chunk;
    }
    return dg_op_finish(ctx, y, "gated residual");
}

/* --- QK norm and RoPE -------------------------------------------------- */

const Rope *dg_op_rope(Context *ctx, const Rope *r)
{
    const int64_t count = r->tokens * (r->d / 2);
    Rope *own;

    if (!ctx->backend->apart)
        return r;
    own = dg_arena_take(&ctx->meta, sizeof *own);
    if (own == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    *own = *r;
    own->cosines = dg_op_host(ctx, r->cosines, DG_F32, count);
    own->sines = dg_op_host(ctx, r->sines, DG_F32, count);
    return ctx->err ? NULL : own;
}

/* node: t[0], t[1] segments, t[2] rstd; w[0], w[1]; n[0] heads; f[0] eps */
static QkArgs qk_args(const QkSegment seg[2], const Tensor *rstd, int heads,
                      float eps, const Rope *rope)
{
    const Tensor *x = seg[0].x;
    QkArgs a = {
        .batch = x->dims[0],
        .heads = heads,
        .d = dg_tensor_width(x) / heads,
        .eps = eps,
        .cosines = rope != NULL ? rope->cosines : NULL,
        .sines = rope != NULL ? rope->sines : NULL,
        .rstd = dg_data(rstd),
    };

    for (int i = 0; i < 2; i++) {
        a.tokens[i] = seg[i].x != NULL ? seg[i].x->dims[1] : 0;
        a.x[i] = dg_data(seg[i].x);
        a.w[i] = dg_data(seg[i].w);
    }
    return a;
}

static void qk_back(Context *ctx, TapeNode *node)
{
    const QkSegment seg[2] = { { node->t[0], node->w[0] },
                               { node->t[1], node->w[1] } };
    QkArgs a =
        qk_args(seg, node->t[2], (int)node->n[0], node->f[0], node->extra);
    Tensor *dx[2] = { NULL, NULL };

    for (int i = 0; i < 2; i++) {
        if (seg[i].x != NULL && seg[i].x->needs_grad)
            dx[i] = dg_tensor_like(ctx, seg[i].x);
        a.dx[i] = dg_data(dx[i]);
        a.dw[i] = dg_tape_param_grad(ctx, seg[i].w);
    }
    if (ctx->err)
        return;
    a.dy = dg_data(node->out->grad);
    dg_kernels(ctx, seg[0].x)->qk_grad(&a);
    for (int i = 0; i < 2; i++)
        if (dx[i] != NULL)
            dg_tape_give(ctx, seg[i].x, dx[i]);
}

Tensor *dg_op_qk(Context *ctx, const QkSegment seg[2], int heads, float eps,
                 const Rope *rope)
{
    const Tensor *x0 = seg[0].x, *x1 = seg[1].x;
    int64_t tokens, dims[3], stat[3];
    TapeNode *node = NULL;
    Tensor *y, *rstd;
    QkArgs a;

    if (ctx->err || x0 == NULL)
        return NULL;
    tokens = x0->dims[1] + (x1 != NULL ? x1->dims[1] : 0);
    if (rope != NULL &&
        (rope->tokens != tokens || rope->d != dg_tensor_width(x0) / heads))
        dg_panic("qk: RoPE table of %lld tokens x %lld for %lld tokens",
                 (long long)rope->tokens, (long long)rope->d,
                 (long long)tokens);
    dims[0] = stat[0] = x0->dims[0];
    dims[1] = stat[1] = tokens;
    dims[2] = dg_tensor_width(x0);
    stat[2] = heads;
    for (int i = 0; i < 2; i++)
        dg_op_alike(seg[i].x, seg[i].w, "QK norm");
    dg_op_alike(x0, x1, "QK norm");
    y = dg_tensor_new(ctx, x0->dtype, 3, dims);
    rstd = dg_tensor_new(ctx, DG_F32, 3, stat);
    if (ctx->err)
        return NULL;
    a = qk_args(seg, rstd, heads, eps, rope);
    a.y = dg_data(y);
    dg_kernels(ctx, x0)->qk(&a);
    if (dg_op_records(ctx, x0, seg[0].w) || dg_op_records(ctx, x1, seg[1].w))
        node = dg_tape_push(ctx, qk_back, y);
    if (node != NULL) {
        node->t[0] = seg[0].x;
        node->t[1] = seg[1].x;
        node->t[2] = rstd;
        node->w[0] = seg[0].w;
        node->w[1] = seg[1].w;
        node->n[0] = heads;
        node->f[0] = eps;
        node->extra = rope;
    }
    return dg_op_finish(ctx, y, "QK norm");
}
