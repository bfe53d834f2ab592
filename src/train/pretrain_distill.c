#include "base/error.h"
#include "pretrain_setup.h"

/* The teacher's prediction on its way: each time the same launches. */
typedef struct Teaching {
    const Policy *teacher;
    Context *ctx;
    const PolicyBatch *batch;
    uint64_t flops; /* counted before */
    Tensor *u;
} Teaching;

static void run_teacher(void *user)
{
    Teaching *x = user;

    dg_context_reset(x->ctx);
    x->ctx->flops = x->flops;
    x->u = dg_policy_predict(x->teacher, x->ctx, x->batch);
}

/* out = out + w (u - out), u what the teacher predicts of the batch; with w = 1
 * u alone. */
static int predict(float *out, const Pretrain *t, Context *ctx,
                   const PolicyBatch *batch, double w)
{
    Teaching x = {
        .teacher = t->teacher, .ctx = ctx, .batch = batch, .flops = ctx->flops
    };

    dg_context_replay(ctx, run_teacher, &x, NULL, 0);
    if (x.u == NULL)
        return dg_context_error(ctx);
    ctx->backend->combine(out, out, dg_tensor_f32(x.u), w,
                          dg_tensor_count(x.u));
    return DG_OK;
}

int dg_pretrain_distill(const Pretrain *t, Context *ctx, PretrainScratch *x,
                        int64_t num)
{
    const PolicyShape *s = &t->policy->shape;
    PolicyBatch batch = { .num = num,
                          .z = x->rows,
                          .time = x->time,
                          .t5_ids = x->t5_none,
                          .clip_ids = x->clip_none };
    int err = DG_OK;

    for (int64_t b = 0; b < num && !err; b++)
        err =
            dg_policy_tokenize(t->teacher, "", x->t5_none + b * s->text_tokens,
                               x->clip_none + b * s->clip_tokens);
    if (!err)
        err = predict(x->target, t, ctx, &batch, 1);
    batch.t5_ids = x->t5_ids;
    batch.clip_ids = x->clip_ids;
    return err ? err
               : predict(x->target, t, ctx, &batch,
                         t->session->config->pretrain.distill_cfg);
}
