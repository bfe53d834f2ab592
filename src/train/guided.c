#include "train/guided.h"

#include "base/error.h"
#include "tensor/tape.h"
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

static int trains_both(const Guidance *g)
{
    return has_both(g) && g->grad == DG_CFG_JOINT;
}

int dg_guided_twice(const Guidance *g)
{
    return trains_both(g) && !g->at_once;
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

/* The batch with its conditions, then with the empty prompt's. */
static Tensor *predict_both(const Policy *p, Context *ctx, const PolicyBatch *b,
                            const Guidance *g)
{
    const float *z[DG_SAMPLING_BATCH], *condition[DG_SAMPLING_BATCH];
    float time[DG_SAMPLING_BATCH];
    const PolicyBatch both = {
        .num = 2 * b->num, .z = z, .time = time, .condition = condition
    };

    if (both.num > DG_SAMPLING_BATCH)
        dg_panic("a batch of %lld predictions", (long long)both.num);
    for (int64_t i = 0; i < both.num; i++) {
        const int64_t k = i % b->num;

        z[i] = b->z[k];
        time[i] = b->time[k];
        condition[i] = i < b->num ? b->condition[k] : g->uncond;
    }
    return dg_policy_predict(p, ctx, &both);
}

/* The first or the second half of a batch of both branches. */
static Tensor *half_of(Context *ctx, const Tensor *both, int second)
{
    const int64_t dims[3] = { both->dims[0] / 2, both->dims[1], both->dims[2] };
    const int64_t at = second ? dg_tensor_count(both) / 2 : 0;
    float *data = both->data != NULL ? dg_tensor_f32(both) + at : NULL;

    return dg_tensor_wrap(ctx, data, DG_F32, 3, dims);
}

static Tensor *record_both(const Policy *p, Context *ctx, const PolicyBatch *b,
                           const Guidance *g, Tensor **branch)
{
    Tensor *out = new_prediction(p, ctx, b->num), *cond, *uncond;

    dg_tape_begin(ctx);
    *branch = predict_both(p, ctx, b, g);
    if (*branch == NULL || out == NULL)
        return NULL;
    cond = half_of(ctx, *branch, 0);
    uncond = half_of(ctx, *branch, 1);
    if (cond == NULL || uncond == NULL)
        return NULL;
    merge(ctx, out, uncond, 1);
    merge(ctx, out, cond, g->scale);
    return out;
}

static int back_both(Context *ctx, const Guidance *g, Tensor *branch,
                     const Tensor *grad)
{
    const double factor[2] = { g->scale, 1 - g->scale };
    Tensor *seed = dg_tensor_like(ctx, branch);

    for (int i = 0; i < 2 && seed != NULL; i++) {
        Tensor *half = half_of(ctx, seed, i);

        if (half != NULL)
            ctx->backend->scale(half->data, grad->data, (float)factor[i],
                                dg_tensor_count(half));
    }
    return seed != NULL ? dg_tape_backward(ctx, branch, seed)
                        : dg_context_error(ctx);
}

Tensor *dg_guided_record(const Policy *p, Context *ctx, const PolicyBatch *b,
                         const Guidance *g, Tensor **branch)
{
    Tensor *out = NULL;

    *branch = NULL;
    if (trains_both(g) && g->at_once)
        return record_both(p, ctx, b, g, branch);
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

int dg_guided_back(Context *ctx, const Guidance *g, Tensor *branch,
                   Tensor *grad)
{
    if (trains_both(g) && g->at_once)
        return back_both(ctx, g, branch, grad);
    if (has_both(g))
        ctx->backend->scale(grad->data, grad->data, (float)g->scale,
                            dg_tensor_count(grad));
    return dg_tape_backward(ctx, branch, grad);
}

int dg_guided_back_uncond(const Policy *p, Context *ctx, const PolicyBatch *b,
                          const Guidance *g, const float *grad)
{
    Tensor *u, *seed;

    dg_context_reset(ctx);
    dg_tape_begin(ctx);
    u = predict_uncond(p, ctx, b, g);
    seed = u != NULL ? dg_tensor_like(ctx, u) : NULL;
    if (seed == NULL)
        return dg_context_error(ctx);
    ctx->backend->scale(seed->data, grad, (float)(1 - g->scale),
                        dg_tensor_count(seed));
    return dg_tape_backward(ctx, u, seed);
}
