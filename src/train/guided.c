#include "train/guided.h"

#include "base/error.h"
#include "train/sampling.h"

int dg_guided_wanted(const Config *c)
{
    return c->cfg.scale != 1;
}

static int is_on(const Guidance *g)
{
    return g->uncond != NULL && g->scale != 1;
}

/* Both branches are run. */
static int has_both(const Guidance *g)
{
    return is_on(g) && g->scale != 0;
}

int dg_guided_twice(const Guidance *g)
{
    return has_both(g) && g->grad == DG_CFG_JOINT;
}

/* The batch, every entry with the empty prompt's condition. */
static Tensor *predict_uncond(const Policy *p, Context *ctx,
                              const PolicyBatch *b, const Guidance *g)
{
    const float *uncond[DG_SAMPLING_BATCH];
    PolicyBatch batch = *b;

    if (b->num > DG_SAMPLING_BATCH)
        dg_panic("a batch of %lld predictions", (long long)b->num);
    for (int64_t i = 0; i < b->num; i++)
        uncond[i] = g->uncond;
    batch.condition = uncond;
    return dg_policy_predict(p, ctx, &batch);
}

/* The branch that is run alone, or last. */
static Tensor *predict_main(const Policy *p, Context *ctx, const PolicyBatch *b,
                            const Guidance *g)
{
    return is_on(g) && g->scale == 0 ? predict_uncond(p, ctx, b, g)
                                     : dg_policy_predict(p, ctx, b);
}

static Tensor *new_prediction(const Policy *p, Context *ctx, int64_t num)
{
    return dg_tensor_new(
        ctx, DG_F32, 3,
        (int64_t[]) { num, p->shape.tokens, p->shape.features });
}

/* to = from, or to = to + w (from - to) */
static void merge(const Context *ctx, Tensor *to, const Tensor *from, double w)
{
    ctx->backend->combine(dg_tensor_f32(to), dg_tensor_f32(to),
                          dg_tensor_f32(from), w, dg_tensor_count(to));
}

/* The prediction without the prompt, what it took besides given back. */
static Tensor *keep_uncond(const Policy *p, Context *ctx, const PolicyBatch *b,
                           const Guidance *g)
{
    Tensor *out = new_prediction(p, ctx, b->num), *u;
    const size_t mark = dg_arena_mark(&ctx->arena);
    const size_t meta = dg_arena_mark(&ctx->meta);

    u = predict_uncond(p, ctx, b, g);
    if (out == NULL || u == NULL)
        return NULL;
    merge(ctx, out, u, 1);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    return out;
}

Tensor *dg_guided_predict(const Policy *p, Context *ctx, const PolicyBatch *b,
                          const Guidance *g)
{
    Tensor *out = has_both(g) ? keep_uncond(p, ctx, b, g)
                              : new_prediction(p, ctx, b->num);
    const size_t mark = dg_arena_mark(&ctx->arena);
    const size_t meta = dg_arena_mark(&ctx->meta);
    Tensor *u;

    if (out == NULL)
        return NULL;
    u = predict_main(p, ctx, b, g);
    if (u == NULL)
        return NULL;
    merge(ctx, out, u, has_both(g) ? g->scale : 1);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    return out;
}

Tensor *dg_guided_record(const Policy *p, Context *ctx, const PolicyBatch *b,
                         const Guidance *g, Tensor **branch)
{
    Tensor *out = NULL;

    *branch = NULL;
    if (has_both(g)) {
        out = keep_uncond(p, ctx, b, g);
        if (out == NULL)
            return NULL;
    }
    dg_tape_begin(ctx);
    *branch = predict_main(p, ctx, b, g);
    if (*branch == NULL || out == NULL)
        return *branch;
    merge(ctx, out, *branch, g->scale);
    return out;
}

TapePass dg_guided_hold(Context *ctx, const Guidance *g, Tensor *branch,
                        Tensor *grad)
{
    if (has_both(g))
        ctx->backend->scale(grad->data, grad->data, (float)g->scale,
                            dg_tensor_count(grad));
    return dg_tape_hold(ctx, branch, grad);
}

int dg_guided_back(Context *ctx, const Guidance *g, Tensor *branch,
                   Tensor *grad)
{
    TapePass pass = dg_guided_hold(ctx, g, branch, grad);

    return dg_tape_backward_all(ctx, &pass, 1);
}

int dg_guided_hold_uncond(TapePass *out, const Policy *p, Context *ctx,
                          const PolicyBatch *b, const Guidance *g,
                          const float *const *grad)
{
    Tensor *u, *seed;

    dg_tape_begin(ctx);
    u = predict_uncond(p, ctx, b, g);
    seed = u != NULL ? dg_tensor_like(ctx, u) : NULL;
    if (seed == NULL)
        return dg_context_error(ctx);
    for (int64_t i = 0; i < b->num && ctx->backend->computes; i++)
        ctx->backend->scale(dg_tensor_f32(seed) + i * p->shape.elements,
                            grad[i], (float)(1 - g->scale), p->shape.elements);
    *out = dg_tape_hold(ctx, u, seed);
    return DG_OK;
}

int dg_guided_back_uncond(const Policy *p, Context *ctx, const PolicyBatch *b,
                          const Guidance *g, const float *const *grad)
{
    TapePass pass;
    int err;

    dg_context_reset(ctx);
    err = dg_guided_hold_uncond(&pass, p, ctx, b, g, grad);
    return err ? err : dg_tape_backward_all(ctx, &pass, 1);
}
