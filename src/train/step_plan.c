#include "train/step_plan.h"

#include "base/error.h"

#include <stdlib.h>

/* A batch with the shapes of the run and nothing in it. */
typedef struct EmptyBatch {
    PolicyBatch batch;
    float *time;
    int32_t *ids;
    const float **rows;
} EmptyBatch;

/* with_text: the encoders run in the same pass */
static int empty_batch(EmptyBatch *e, const PolicyShape *s, int64_t num,
                       int with_text)
{
    const size_t ids = (size_t)(num * (s->text_tokens + s->clip_tokens));

    *e = (EmptyBatch) { 0 };
    e->time = calloc((size_t)num, sizeof *e->time);
    e->ids = calloc(ids, sizeof *e->ids);
    e->rows = calloc((size_t)num, sizeof *e->rows);
    if (e->time == NULL || e->ids == NULL || e->rows == NULL)
        return dg_fail(DG_ENOMEM, "plan");
    e->batch = (PolicyBatch) {
        .num = num,
        .z = e->rows,
        .time = e->time,
        .condition = with_text ? NULL : e->rows,
        .t5_ids = e->ids,
        .clip_ids = e->ids,
    };
    return DG_OK;
}

static void free_batch(EmptyBatch *e)
{
    free(e->time);
    free(e->ids);
    free(e->rows);
}

/* Counts what a pool would lend, and lends nothing: there is no memory. */
typedef struct LentCount {
    Lender lender; /* the first member */
    const Policy *policy, *reference;
    LentPass pass;
} LentCount;

static const ParamSet *lent_set(const LentCount *l, int id)
{
    const ParamSet *const all[] = { &l->policy->net, &l->policy->text,
                                    l->reference != NULL ? &l->reference->net
                                                         : NULL };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] != NULL && all[i]->id == id)
            return all[i];
    return NULL;
}

enum { LENT_GROUPS = 1 << 20 };

static int count_lent(Lender *lender, const Tensor *w, int grads)
{
    LentCount *l = (LentCount *)lender;
    LentPass *p = &l->pass;
    const ParamSet *set = lent_set(l, w->param_set);
    const int32_t group = w->param_set * LENT_GROUPS + w->param_group;
    uint64_t num;

    (void)grads;
    if (set == NULL || w->param_group == 0 || group == p->last[0])
        return DG_OK;
    num = (uint64_t)set->groups[w->param_group - 1].num;
    p->values[0] += num;
    if (group != p->last[1])
        p->values[1] += num;
    for (int i = 0; i < 2; i++)
        if (p->last[i] == 0) { /* the i-th of all */
            p->first[i] = group;
            p->num[i] = num;
            break;
        }
    p->last[1] = p->last[0];
    p->last[0] = group;
    return DG_OK;
}

static int give_nothing(Lender *lender, const Tensor *w)
{
    (void)lender;
    (void)w;
    return DG_OK;
}

static LentPass take_lent(Context *ctx)
{
    LentCount *l = (LentCount *)ctx->lender;
    const LentPass pass = l->pass;

    l->pass = (LentPass) { 0 };
    return pass;
}

static void restart(Context *ctx)
{
    dg_context_reset(ctx);
    ctx->arena.peak = 0;
    ctx->flops = 0;
}

static Guidance guidance_of(const StepPlanOpts *o, const EmptyBatch *e)
{
    Guidance g = { 0 };

    if (o->guidance != NULL)
        g = *o->guidance;
    g.uncond = o->guidance != NULL ? e->time : NULL; /* there, not read */
    return g;
}

static int count_use(StepPlan *out, Context *ctx, const Policy *p,
                     const EmptyBatch *e, const StepPlanOpts *o)
{
    const PromptTokens tokens = { e->ids, e->ids };
    const Guidance g = guidance_of(o, e);
    int err;

    if (!o->cached) {
        err = dg_policy_encode(p, ctx, &tokens, NULL);
        if (err)
            return err;
        out->encode_bytes = ctx->arena.peak;
        out->encode_flops = ctx->flops;
        out->encode_lent = take_lent(ctx);
    }
    restart(ctx);
    dg_guided_predict(p, ctx, &e->batch, &g);
    out->rollout_bytes = ctx->arena.peak;
    out->predict_flops = ctx->flops;
    out->predict_lent = take_lent(ctx);
    if (dg_context_error(ctx))
        return dg_context_error(ctx);
    restart(ctx);
    err = dg_policy_decode(p, ctx, NULL, NULL);
    out->decode_bytes = ctx->arena.peak;
    out->decode_flops = ctx->flops;
    if (err)
        return err;
    restart(ctx);
    return dg_rewards_plan(&out->reward, o->rewards, o->num_rewards, ctx,
                           p->shape.height, p->shape.width);
}

static void one_pass(Context *ctx, const Policy *p, const PolicyBatch *b,
                     const Guidance *g, const Policy *reference)
{
    Tensor *u, *branch;

    if (reference != NULL)
        dg_guided_predict(reference, ctx, b, g);
    u = dg_guided_record(p, ctx, b, g, &branch);
    if (u != NULL)
        dg_guided_back(ctx, g, branch, dg_tensor_like(ctx, u));
    if (u != NULL && dg_guided_twice(g))
        dg_guided_back_uncond(p, ctx, b, g, NULL);
}

/* As run_together() of update.c. */
static void passes_together(Context *ctx, const Policy *p, PolicyBatch b,
                            const Guidance *g, const StepPlanOpts *o)
{
    const size_t most = 2 * (size_t)o->together;
    TapePass *pass = dg_arena_take(&ctx->meta, most * sizeof *pass);
    const int64_t batch = b.num;
    int num = 0;

    for (int64_t at = 0; at < o->together && !ctx->err; at += batch) {
        Tensor *u, *branch;

        b.num = o->together - at < batch ? o->together - at : batch;
        if (o->reference != NULL)
            dg_guided_predict(o->reference, ctx, &b, g);
        u = dg_guided_record(p, ctx, &b, g, &branch);
        if (u != NULL)
            pass[num++] =
                dg_guided_hold(ctx, g, branch, dg_tensor_like(ctx, u));
    }
    for (int64_t at = 0; dg_guided_twice(g) && at < o->together && !ctx->err;
         at += batch) {
        b.num = o->together - at < batch ? o->together - at : batch;
        dg_guided_hold_uncond(&pass[num++], p, ctx, &b, g, NULL);
    }
    dg_tape_backward_all(ctx, pass, num);
}

static int count_training(StepPlan *out, Context *ctx, const Policy *p,
                          const EmptyBatch *e, const StepPlanOpts *o)
{
    Guidance g = guidance_of(o, e);

    if (o->train_text) /* pretraining is not guided */
        g.uncond = NULL;
    restart(ctx);
    dg_context_train(ctx, dg_policy_trained(p)->id, NULL, o->train_net);
    dg_context_train(ctx, DG_PARAMS_TEXT, NULL, o->train_text);
    ctx->recompute = o->recompute;
    if (o->together > 0)
        passes_together(ctx, p, e->batch, &g, o);
    else
        one_pass(ctx, p, &e->batch, &g, o->reference);
    out->update_bytes = ctx->arena.peak;
    out->update_flops = ctx->flops;
    out->update_lent = take_lent(ctx);
    if (o->together > 0)
        out->update_flops =
            ctx->flops / (uint64_t)o->together * (uint64_t)o->train_batch;
    return dg_context_error(ctx);
}

int dg_step_plan(StepPlan *out, const Policy *p, const Backend *backend,
                 const StepPlanOpts *o)
{
    StepPlan plan = { 0 };
    LentCount lent = { .lender = { count_lent, give_nothing, NULL },
                       .policy = p,
                       .reference = o->reference };
    EmptyBatch e = { 0 };
    Backend table;
    Context ctx;
    int err;

    dg_backend_plan(&table, backend);
    err = dg_context_init(&ctx, &table, 0);
    if (err)
        return err;
    ctx.lender = &lent.lender;
    err = empty_batch(&e, &p->shape, o->batch, 0);
    if (!err)
        err = count_use(&plan, &ctx, p, &e, o);
    free_batch(&e);
    if (!err && (o->train_net || o->train_text)) {
        err = empty_batch(&e, &p->shape, o->train_batch, o->train_text);
        if (!err)
            err = count_training(&plan, &ctx, p, &e, o);
        free_batch(&e);
    }
    if (o->full != NULL)
        *o->full = dg_arena_full(&ctx.meta);
    dg_context_fini(&ctx);
    if (err)
        return err;
    plan.batch = o->batch;
    plan.train_batch = o->train_batch;
    plan.step_bytes = plan.encode_bytes;
    if (plan.rollout_bytes > plan.step_bytes)
        plan.step_bytes = plan.rollout_bytes;
    if (plan.decode_bytes > plan.step_bytes)
        plan.step_bytes = plan.decode_bytes;
    if (plan.reward.bytes > plan.step_bytes)
        plan.step_bytes = plan.reward.bytes;
    if (plan.update_bytes > plan.step_bytes)
        plan.step_bytes = plan.update_bytes;
    *out = plan;
    return DG_OK;
}
