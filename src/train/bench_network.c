/* The network against the bare matrix product. */
#include "train/bench.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/philox.h"
#include "policy/policy.h"
#include "tensor/tape.h"
#include "train/step_plan.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BATCH = 64, MAX_REPEATS = 1000 };

typedef struct Lab {
    const BenchOpts *opts;
    Policy *policy;
    Meter meter;
    Context ctx;
    StepPlan plan;
    int64_t batch;
    float *grads; /* of what is trained */
    float *input; /* [batch, elements + condition] normal numbers */
    const float *z[MAX_BATCH], *condition[MAX_BATCH];
    float time[MAX_BATCH];
    float *a, *b, *c; /* operands of the bare product */
} Lab;

static float *new_floats(int64_t num)
{
    return dg_memory_new(sizeof(float) * (size_t)num);
}

/* --- the laboratory ---------------------------------------------------- */

static int fill_input(Lab *l, const Config *c)
{
    const PolicyShape *s = &l->policy->shape;
    const int64_t width = s->elements + s->condition;
    const RngKey key = { .seed = (uint64_t)c->run.seed,
                         .purpose = DG_RNG_TEST };
    const float top =
        s->time == DG_TIME_SIGMA || s->time == DG_TIME_UNIT ? 1.0f : 1000.0f;

    l->input = new_floats(l->batch * width);
    if (l->input == NULL)
        return dg_fail(DG_ENOMEM, "bench: inputs");
    dg_rng_normal(l->input, 0, l->batch * width, &key);
    for (int64_t i = 0; i < l->batch; i++) {
        l->z[i] = l->input + i * width;
        l->condition[i] = l->z[i] + s->elements;
        l->time[i] = top * ((float)i + 0.5f) / (float)l->batch;
    }
    return DG_OK;
}

static int open_lab(Lab *l, const Session *s)
{
    const Config *c = s->config;
    int err = dg_policy_create(&l->policy, c);

    l->batch = c->grpo.micro_batch;
    if (!err && l->batch > MAX_BATCH)
        err = dg_fail(DG_EINVAL, "grpo.micro_batch = %lld: at most %d",
                      (long long)l->batch, MAX_BATCH);
    if (!err && c->policy.weights[0] != '\0')
        err = dg_policy_load(l->policy, c->policy.weights, 0);
    else if (!err)
        dg_policy_draw(l->policy, (uint64_t)c->run.seed);
    if (!err)
        err = fill_input(l, c);
    if (!err)
        err = dg_step_plan(&l->plan, l->policy, s->backend,
                           &(StepPlanOpts) {
                               .batch = l->batch,
                               .train_batch = l->batch,
                               .train_net = 1,
                               .recompute = c->parallel.recompute,
                           });
    if (err)
        return err;
    dg_meter_init(&l->meter, s->backend);
    err = dg_context_init(&l->ctx, &l->meter.table, l->plan.step_bytes);
    l->grads = new_floats(dg_policy_trained(l->policy)->count);
    if (!err && l->grads == NULL)
        err = dg_fail(DG_ENOMEM, "bench: gradients");
    dg_context_train(&l->ctx, dg_policy_trained(l->policy)->id, l->grads, 1);
    l->ctx.recompute = c->parallel.recompute;
    return err;
}

static void close_lab(Lab *l)
{
    dg_context_fini(&l->ctx);
    dg_policy_destroy(l->policy);
    free(l->grads);
    free(l->input);
    free(l->a);
    free(l->b);
    free(l->c);
}

/* --- one pass ---------------------------------------------------------- */

static int run_pass(Lab *l, int backward)
{
    const PolicyBatch batch = {
        .num = l->batch, .z = l->z, .time = l->time, .condition = l->condition
    };
    Tensor *u, *grad;

    dg_context_reset(&l->ctx);
    if (backward)
        dg_tape_begin(&l->ctx);
    u = dg_policy_predict(l->policy, &l->ctx, &batch);
    if (!backward || u == NULL)
        return dg_context_error(&l->ctx);
    grad = dg_tensor_like(&l->ctx, u);
    if (grad == NULL)
        return dg_context_error(&l->ctx);
    memcpy(grad->data, u->data, sizeof(float) * (size_t)dg_tensor_count(u));
    return dg_tape_backward(&l->ctx, u, grad);
}

/* A pass with the meter on: sizes, FLOPs, shares of time. */
static int study(Lab *l, int backward, BenchPass *out)
{
    int err = run_pass(l, backward); /* code is made, pages are touched */
    double began, seconds;

    dg_meter_clear(&l->meter);
    l->meter.on = 1;
    began = dg_clock_thread();
    l->ctx.flops = 0;
    for (int i = 0; i < l->opts->repeats && !err; i++)
        err = run_pass(l, backward);
    l->meter.on = 0;
    seconds = dg_clock_thread() - began;
    for (int i = 0; i < DG_METER_KINDS; i++)
        out->share[i] = l->meter.seconds[i] / seconds;
    for (int i = 0; i < DG_METER_PRODUCT_KINDS; i++)
        if (l->meter.seconds[i] > 0)
            out->kind_rate[i] = (double)l->meter.flops[i] / l->meter.seconds[i];
    out->outside = 1 - dg_meter_seconds(&l->meter) / seconds;
    out->batch = l->batch;
    out->flops = (double)l->ctx.flops / l->opts->repeats;
    out->product_flops =
        (double)dg_meter_product_flops(&l->meter) / l->opts->repeats;
    out->sizes = l->meter.num_products;
    for (int i = 0; i < l->meter.num_products; i++)
        l->meter.products[i].calls /= l->opts->repeats;
    if (!err && l->meter.dropped > 0)
        err = dg_fail(DG_EINVAL, "bench: more than %d matrix sizes",
                      DG_METER_PRODUCTS);
    return err;
}

/* --- the bare product -------------------------------------------------- */

static int open_operands(Lab *l)
{
    int64_t a = 0, b = 0, c = 0;

    for (int i = 0; i < l->meter.num_products; i++) {
        const MeterProduct *p = &l->meter.products[i];

        a = p->m * p->k > a ? p->m * p->k : a;
        b = p->k * p->n > b ? p->k * p->n : b;
        c = p->m * p->n > c ? p->m * p->n : c;
    }
    free(l->a);
    free(l->b);
    free(l->c);
    l->a = new_floats(a);
    l->b = new_floats(b);
    l->c = new_floats(c);
    if (l->a == NULL || l->b == NULL || l->c == NULL)
        return dg_fail(DG_ENOMEM, "bench: operands");
    for (int64_t i = 0; i < a; i++)
        l->a[i] = (float)(i % 7) - 3;
    for (int64_t i = 0; i < b; i++)
        l->b[i] = (float)(i % 5) - 2;
    return DG_OK;
}

/* Adds the seconds of all products of one pass, by kind. */
static void run_bare(const Lab *l, double seconds[DG_METER_PRODUCT_KINDS])
{
    for (int i = 0; i < l->meter.num_products; i++) {
        const MeterProduct *p = &l->meter.products[i];
        const double began = dg_clock_thread();

        for (int64_t j = 0; j < p->calls; j++)
            l->opts->bare(l->c, l->a, l->b, p->m, p->n, p->k);
        seconds[p->kind] += dg_clock_thread() - began;
    }
}

static int in_attention(int kind)
{
    return kind == DG_METER_ATTENTION || kind == DG_METER_ATTENTION_GRAD;
}

static int compare_doubles(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

double dg_bench_quantile(double *values, int num, double at)
{
    const double place = at * (num - 1);
    const int below = (int)place;

    qsort(values, (size_t)num, sizeof *values, compare_doubles);
    return below + 1 < num
               ? values[below] +
                     (place - below) * (values[below + 1] - values[below])
               : values[num - 1];
}

typedef struct Pairs {
    double rate[MAX_REPEATS], bare[MAX_REPEATS], linear[MAX_REPEATS];
    double ratio[MAX_REPEATS];
    double kind[DG_METER_PRODUCT_KINDS][MAX_REPEATS];
} Pairs;

/* One turn of the bare products. */
static void note_bare(const Lab *l, Pairs *p, int at)
{
    double seconds[DG_METER_PRODUCT_KINDS] = { 0 };
    double all_s = 0, all = 0, linear_s = 0, linear = 0;

    run_bare(l, seconds);
    for (int k = 0; k < DG_METER_PRODUCT_KINDS; k++) {
        const double flops = (double)l->meter.flops[k] / l->opts->repeats;

        p->kind[k][at] = flops / seconds[k];
        all_s += seconds[k];
        all += flops;
        linear_s += in_attention(k) ? 0 : seconds[k];
        linear += in_attention(k) ? 0 : flops;
    }
    p->bare[at] = all / all_s;
    p->linear[at] = linear / linear_s;
}

/* Pass and products take turns, so that both see the same machine. */
static int compare(Lab *l, int backward, BenchPass *out)
{
    const int num = l->opts->repeats;
    Pairs *p = calloc(1, sizeof *p);
    int err = p != NULL ? open_operands(l) : dg_fail(DG_ENOMEM, "bench");

    for (int i = 0; i < num && !err; i++) {
        const double began = dg_clock_thread();

        err = run_pass(l, backward);
        p->rate[i] = out->flops / (dg_clock_thread() - began);
        note_bare(l, p, i);
        p->ratio[i] = p->rate[i] / p->bare[i];
    }
    if (!err) {
        out->rate = dg_bench_quantile(p->rate, num, 0.5);
        out->bare = dg_bench_quantile(p->bare, num, 0.5);
        out->bare_linear = dg_bench_quantile(p->linear, num, 0.5);
        out->ratio = dg_bench_quantile(p->ratio, num, 0.5);
        out->low = dg_bench_quantile(p->ratio, num, 0.25);
        out->high = dg_bench_quantile(p->ratio, num, 0.75);
        out->ratio_linear = out->rate / out->bare_linear;
        for (int k = 0; k < DG_METER_PRODUCT_KINDS; k++)
            if (out->kind_rate[k] > 0)
                out->kind_bare[k] = dg_bench_quantile(p->kind[k], num, 0.5);
    }
    free(p);
    return err;
}

int dg_bench_network(BenchNetwork *out, const Session *s, const BenchOpts *o)
{
    Lab *l = calloc(1, sizeof *l);
    BenchNetwork n = { 0 };
    int err;

    if (l == NULL)
        return dg_fail(DG_ENOMEM, "bench");
    if (o->repeats < 1 || o->repeats > MAX_REPEATS) {
        free(l);
        return dg_fail(DG_EINVAL, "bench: %d repeats: 1 to %d", o->repeats,
                       MAX_REPEATS);
    }
    l->opts = o;
    err = open_lab(l, s);
    if (!err)
        err = study(l, 0, &n.forward);
    if (!err)
        err = compare(l, 0, &n.forward);
    if (!err)
        err = study(l, 1, &n.both);
    if (!err)
        err = compare(l, 1, &n.both);
    if (!err) {
        n.parameters = dg_params_num_values(&l->policy->net);
        n.plan_bytes = l->plan.rollout_bytes > l->plan.update_bytes
                           ? l->plan.rollout_bytes
                           : l->plan.update_bytes;
        n.peak_bytes = l->ctx.arena.peak;
        *out = n;
    }
    close_lab(l);
    free(l);
    return err;
}
