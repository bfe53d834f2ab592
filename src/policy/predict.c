/* Prompts through the text encoders, latents through the network. */
#include "family.h"

#include "base/error.h"
#include "tensor/mirror.h"
#include "tensor/ops.h"

/* A prompt on its way through the text encoders. */
typedef struct Encoding {
    const Policy *policy;
    Context *ctx;
    const PromptTokens *tokens;
    uint64_t flops; /* counted before */
    Tensor *part[2];
} Encoding;

static void run_encoders(void *user)
{
    Encoding *e = user;
    const Policy *p = e->policy;

    dg_context_reset(e->ctx);
    e->ctx->flops = e->flops;
    p->impl->family->encode(p, e->ctx, e->tokens, e->part);
}

int dg_policy_encode(const Policy *p, Context *ctx, const PromptTokens *t,
                     float *condition)
{
    Encoding e = { .policy = p, .ctx = ctx, .tokens = t, .flops = ctx->flops };

    if (p->text_dropped)
        return dg_fail(DG_EINVAL, "the text encoders' weights were given back: "
                                  "conditions come from prompts.cache");
    if (p->text_left && p->on != NULL)
        return dg_fail(DG_EINVAL, "the text encoders are not where networks "
                                  "run: conditions come from prompts.cache");
    dg_context_replay(ctx, run_encoders, &e, NULL, 0);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    for (int i = 0; i < 2 && e.part[i] != NULL; i++) {
        const int64_t num = dg_tensor_count(e.part[i]);

        dg_kernel_copy(ctx->backend, condition, dg_tensor_f32(e.part[i]), num);
        condition += num;
    }
    return DG_OK;
}

/* Below this noise level the division that makes a velocity of data stops
 * growing. */
static const float least_sigma = 0.05f;

static float clamped(float sigma)
{
    return sigma < least_sigma ? least_sigma : sigma;
}

/* What a velocity is made with: z/s and the gate -1/s, s = max(sigma,
 * least_sigma). */
typedef struct Divided {
    Tensor *z, *gate;
} Divided;

/* On the host. */
static Divided divide(const Policy *p, Context *ctx, const PolicyBatch *b)
{
    const int64_t D = p->shape.elements, width = p->shape.features;
    const int64_t dims[3] = { b->num, p->shape.tokens, width };
    const int64_t gate_dims[2] = { b->num, width };
    const Divided d = { dg_tensor_new(ctx, DG_F32, 3, dims),
                        dg_tensor_new(ctx, DG_F32, 2, gate_dims) };

    for (int64_t i = 0; !ctx->err && ctx->backend->computes && i < b->num;
         i++) {
        const float s = clamped(b->time[i]);
        float *row = dg_tensor_f32(d.z) + i * D;

        for (int64_t k = 0; k < D; k++)
            row[k] = b->z[i][k] / s;
        ctx->backend->fill(dg_tensor_f32(d.gate) + i * width, -1 / s, width);
    }
    return d;
}

/* 1/s of each row, then -1/s, as wide as features: as data, not as numbers of
 * a launch, so that one graph serves all times. */
static Tensor *inverse_times(const Policy *p, Context *ctx,
                             const PolicyBatch *b)
{
    const int64_t width = p->shape.features, num = b->num * width;
    const int64_t dims[2] = { 2 * b->num, width };
    float *host = dg_arena_take(&ctx->meta, 2 * sizeof *host * (size_t)num);

    if (host == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    for (int64_t i = 0; i < num; i++) {
        const float s = clamped(b->time[i / width]);

        host[i] = 1 / s;
        host[num + i] = -1 / s;
    }
    return dg_op_input(ctx, host, 2, dims);
}

/* Where kernels' memory is apart: a product, one rounding off. */
static Divided multiply(const Policy *p, Context *ctx, const PolicyBatch *b)
{
    const int64_t tokens = p->shape.tokens, width = p->shape.features;
    const int64_t dims[3] = { b->num, tokens, width };
    const int64_t gate_dims[2] = { b->num, width };
    Tensor *factors = inverse_times(p, ctx, b);
    Tensor *z = dg_policy_rows(ctx, b->z, 0, 3, dims);
    Tensor *zero = dg_tensor_like(ctx, z);
    Divided d = { dg_tensor_like(ctx, z), NULL };

    if (ctx->err)
        return d;
    d.gate = dg_tensor_wrap(ctx, NULL, DG_F32, 2, gate_dims);
    if (d.gate == NULL || !ctx->backend->computes)
        return d;
    d.gate->data = dg_tensor_f32(factors) + b->num * width;
    ctx->backend->fill(dg_tensor_f32(zero), 0, dg_tensor_count(zero));
    ctx->backend->gate(&(GateArgs) { .batch = b->num,
                                     .rows = tokens,
                                     .width = width,
                                     .ld_gate = width,
                                     .r = dg_tensor_f32(zero),
                                     .f = dg_tensor_f32(z),
                                     .gate = dg_tensor_f32(factors),
                                     .y = dg_tensor_f32(d.z) });
    return d;
}

/* u = z/s - x/s: a gated residual of constants. */
static Tensor *velocity_of_data(const Policy *p, Context *ctx,
                                const PolicyBatch *b, Tensor *x)
{
    Divided d;

    if (x == NULL)
        return NULL;
    d = ctx->backend->apart ? multiply(p, ctx, b) : divide(p, ctx, b);
    return ctx->err ? NULL : dg_op_gate(ctx, d.z, x, d.gate, 0);
}

Tensor *dg_policy_predict(const Policy *p, Context *ctx, const PolicyBatch *b)
{
    Tensor *out = dg_op_cast(ctx, p->impl->family->predict(p, ctx, b), DG_F32);

    return p->shape.prediction == DG_PREDICT_DATA
               ? velocity_of_data(p, ctx, b, out)
               : out;
}
