/* Adapters: what they add, their gradients, and the policy around them. */
#include "cpu/cpu.h"
#include "nn/lora.h"
#include "tiny_run.h"

#include "tiny_nets.h"

#include <math.h>

enum { RANK = 3 };

/* linears of every kind: with and without activation, two inputs, one row */
static const TextList all_targets = {
    { "to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "proj_mlp", "proj_out",
      "norm1.linear", "text_embedder.linear_1" }
};

/* The small FLUX with golden weights and adapters. */
typedef struct Adapted {
    Net net;
    ParamSet set;
    Lora lora;
    Context ctx;
    float y[TINY_SAMPLES * FLUX_H * FLUX_W * 16];
    float *grads; /* of the adapters */
    double loss;
} Adapted;

static LoraInit first = DG_LORA_UNIFORM;

/* targets NULL: without adapters */
static Adapted *adapt(const TextList *targets)
{
    Adapted *a = calloc(1, sizeof *a);

    assert_non_null(a);
    a->net.kind = NET_FLUX;
    a->net.y_count = FLUX_H * FLUX_W * tiny_flux.in_channels;
    dg_params_init(&a->net.set, 1);
    dg_params_init(&a->set, 2);
    if (targets != NULL) {
        MUST(dg_lora_init(&a->lora, &a->set,
                          &(LoraConfig) { RANK, 6, first, *targets, "" }));
        a->net.set.lora = &a->lora;
    }
    MUST(dg_flux_create(&a->net.flux, &tiny_flux, &a->net.set, "transformer."));
    MUST(dg_flux_prepare(a->net.flux, FLUX_H, FLUX_W, FLUX_TEXT));
    MUST(dg_params_allocate(&a->net.set, NULL));
    MUST(dg_params_allocate(&a->set, NULL));
    dg_params_fill_golden(&a->net.set, "transformer.");
    dg_params_draw_lora(&a->set, 5);
    MUST(dg_context_init(&a->ctx, dg_backend_cpu(), TINY_ARENA));
    a->grads = calloc((size_t)a->set.count + 1, sizeof *a->grads);
    assert_non_null(a->grads);
    return a;
}

static void drop(Adapted *a)
{
    dg_context_fini(&a->ctx);
    net_destroy(&a->net);
    dg_params_fini(&a->set);
    free(a->grads);
    free(a);
}

/* B too gets values. */
static void fill_b(Adapted *a)
{
    for (int i = 1; i < a->set.num_params; i += 2) {
        const Tensor *t = &a->set.params[i]->value;
        const RngKey key = { .purpose = DG_RNG_TEST, .prompt = (uint32_t)i };

        dg_rng_normal(dg_tensor_f32(t), 0, dg_tensor_count(t), &key);
        for (int64_t k = 0; k < dg_tensor_count(t); k++)
            dg_tensor_f32(t)[k] *= 0.2f;
    }
}

/* One pass of samples o->first.., with o->record forward and back. */
static void pass(Adapted *a, const RunOpts *o)
{
    static float w[TINY_SAMPLES * FLUX_H * FLUX_W * 16];
    const int64_t from = o->first * a->net.y_count;
    const int64_t count = o->count * a->net.y_count;
    Tensor *inputs[TINY_INPUTS], *pooled, *y;

    dg_context_reset(&a->ctx);
    dg_golden_input(w, TINY_SAMPLES * a->net.y_count, "loss.w");
    dg_context_train(&a->ctx, 2, a->grads, o->record);
    a->ctx.recompute = o->recompute;
    if (o->record)
        dg_tape_begin(&a->ctx);
    y = net_forward(&a->net, &a->ctx, o, inputs, &pooled);
    if (y != NULL && a->ctx.backend->computes) {
        memcpy(a->y + from, y->data, (size_t)count * sizeof(float));
        a->loss = 0;
        for (int64_t i = 0; i < count; i++)
            a->loss += (double)a->y[from + i] * w[from + i];
    }
    if (y != NULL && o->record)
        dg_tape_backward(&a->ctx, y,
                         dg_op_input(&a->ctx, w + from, y->num_dims, y->dims));
    if (dg_context_error(&a->ctx))
        fail_msg("%s", dg_last_error()->text);
}

static const RunOpts both = { .count = 2 };
static const RunOpts learn = { .count = 2, .record = 1 };

static void test_zero_b_changes_no_bit(void **state)
{
    Adapted *with = adapt(&all_targets), *without = adapt(NULL);

    (void)state;
    MUST(dg_lora_check(&with->lora));
    assert_int_equal(with->set.num_params,
                     2 * (2 * 4 + 2 * 3 + 2 * 2 + 2 + 2 + 1 + 2 + 1));
    pass(with, &both);
    pass(without, &both);
    assert_memory_equal(with->y, without->y, sizeof with->y);
    pass(with, &learn);
    assert_memory_equal(with->y, without->y, sizeof with->y);
    fill_b(with);
    pass(with, &both);
    assert_memory_not_equal(with->y, without->y, sizeof with->y);
    drop(with);
    drop(without);
}

/* The greatest of A's 192 values, and their mean square. B is 0. */
static double first_values(double *square, const Adapted *a)
{
    const float *v = a->set.params[0]->value.data;
    double most = *square = 0;

    for (int i = 0; i < 192; i++) {
        *square += (double)v[i] * v[i] / 192;
        most = fmax(most, fabs(v[i]));
    }
    for (int i = 1; i < a->set.num_params; i += 2)
        for (int64_t k = 0; k < dg_tensor_count(&a->set.params[i]->value); k++)
            assert_true(dg_tensor_f32(&a->set.params[i]->value)[k] == 0);
    return most;
}

/* A is within +-1/sqrt(in) and fills that range, or it is normal with standard
 * deviation 1/rank; the draw is a function of the seed alone. */
static void test_first_values_are_those_of_peft(void **state)
{
    const TextList one = { { "proj_mlp" } };
    Adapted *a = adapt(&one), *again = adapt(&one);
    double square, most = first_values(&square, a);

    (void)state;
    assert_non_null(
        strstr(a->set.params[0]->name, "blocks.0.proj_mlp.lora_A.weight"));
    assert_true(most < 1 / sqrt(64.0) && most > 0.95 / sqrt(64.0));
    /* variance bound^2 / 3; of n = 192 squares, relative error 0.9/sqrt(n) */
    assert_true(fabs(square * 3 * 64 - 1) < 4 * 0.9 / sqrt(192));
    assert_memory_equal(a->set.values, again->set.values,
                        (size_t)a->set.count * sizeof(float));
    drop(a);
    drop(again);
    first = DG_LORA_NORMAL;
    a = adapt(&one);
    first = DG_LORA_UNIFORM;
    /* a uniform one of this variance ends at 1.74 */
    assert_true(first_values(&square, a) > 2.2 / RANK);
    assert_true(fabs(square * RANK * RANK - 1) < 4 * sqrt(2 / 192.0));
    drop(a);
}

typedef struct Golden {
    const char *name;      /* "transformer." and ".weight" go around it */
    double squares, first; /* of its gradient */
} Golden;

/* Values of PEFT 0.21.2 on diffusers 0.42.1's FluxTransformer2DModel: network,
 * adapters (rank 3, alpha 6) and inputs filled by the golden rule, float32 on
 * a CPU. Sums to 1e-3, elements to 1e-4 of their size and of 1. */
static void test_agrees_with_peft(void **state)
{
    static const Golden golden[] = {
        { "transformer_blocks.0.attn.to_q.lora_A", 4633.23458, -1.541845 },
        { "transformer_blocks.0.attn.to_q.lora_B", 113.960675, -1.022582 },
        { "transformer_blocks.0.ff.net.0.proj.lora_A", 4033.02611, -4.716558 },
        { "transformer_blocks.1.attn.to_out.0.lora_B", 324.851852, 0.347961 },
        { "single_transformer_blocks.0.attn.to_q.lora_A", 38.922726, 0.086751 },
        { "single_transformer_blocks.0.attn.to_q.lora_B", 5.816498, -0.155215 },
        { "single_transformer_blocks.1.proj_mlp.lora_A", 3757.282827,
          1.024412 },
        { "single_transformer_blocks.1.proj_mlp.lora_B", 177.980739, 0.216824 },
    };
    static const double first[4] = { 1.829972, -0.416231, 0.815767, 2.952006 };
    const TextList targets = { { "to_q", "to_k", "to_v", "to_out.0", "proj_mlp",
                                 "ff.net.0.proj" } };
    Adapted *a = adapt(&targets);
    double sum = 0, squares = 0;

    (void)state;
    dg_params_fill_golden(&a->set, "transformer.");
    pass(a, &learn);
    for (size_t i = 0; i < sizeof a->y / sizeof *a->y; i++) {
        sum += (double)a->y[i];
        squares += (double)a->y[i] * (double)a->y[i];
    }
    assert_true(fabs(sum + 35.735022) < 1e-3);
    assert_true(fabs(squares / 838.058090 - 1) < 1e-5);
    assert_true(fabs(a->loss - 12.241299) < 1e-3);
    for (int i = 0; i < 4; i++)
        assert_true(fabs((double)a->y[i] - first[i]) < 1e-4);
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        char name[DG_PARAM_NAME];
        const Tensor *t;
        const float *g;

        snprintf(name, sizeof name, "transformer.%s.weight", golden[i].name);
        t = &dg_params_find(&a->set, name)->value;
        g = a->grads + t->param_offset;
        squares = 0;
        for (int64_t k = 0; k < dg_tensor_count(t); k++)
            squares += (double)g[k] * (double)g[k];
        assert_true(fabs(squares / golden[i].squares - 1) < 1e-3);
        assert_true(fabs((double)g[0] - golden[i].first) <
                    1e-4 * (1 + fabs(golden[i].first)));
    }
    drop(a);
}

/* W + scale B A in double, rounded once: outputs of the merged network and of
 * the adapted one differ by roundings of forty layers (2e-5, as between two
 * sets of kernels). */
static void test_merged_weights_give_the_same(void **state)
{
    Adapted *a = adapt(&all_targets), *merged = adapt(NULL);
    double off = 0, size = 0;

    (void)state;
    fill_b(a);
    for (int i = 0; i < a->set.num_params; i += 2) {
        const Tensor *A = &a->set.params[i]->value;
        const Tensor *B = &a->set.params[i + 1]->value;
        char name[2 * DG_PARAM_NAME];
        const char *end = strstr(a->set.params[i]->name, ".lora_A");
        float *w;

        snprintf(name, sizeof name, "%.*s.weight",
                 (int)(end - a->set.params[i]->name), a->set.params[i]->name);
        w = dg_tensor_f32(&dg_params_find(&merged->net.set, name)->value);
        for (int64_t r = 0; r < B->dims[0]; r++)
            for (int64_t c = 0; c < A->dims[1]; c++) {
                double sum = 0;

                for (int64_t k = 0; k < RANK; k++)
                    sum += (double)dg_tensor_f32(B)[r * RANK + k] *
                           (double)dg_tensor_f32(A)[k * A->dims[1] + c];
                w[r * A->dims[1] + c] =
                    (float)((double)w[r * A->dims[1] + c] + 6.0 / RANK * sum);
            }
    }
    pass(a, &both);
    pass(merged, &both);
    for (size_t i = 0; i < sizeof a->y / sizeof *a->y; i++) {
        off += pow((double)a->y[i] - (double)merged->y[i], 2);
        size += pow((double)merged->y[i], 2);
    }
    assert_true(sqrt(off) <= 2e-5 * sqrt(size));
    drop(a);
    drop(merged);
}

static double loss_at(Adapted *a, float *v, const float *kept, const float *d,
                      int64_t n, double h)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)((double)kept[i] + h * (double)d[i]);
    pass(a, &both);
    return a->loss;
}

/* As in test_models.c: the difference quotient of a direction along the
 * gradient plus a random one, against the gradient; its error is bounded by
 * that of the doubled step and by rounding. 1 if that bound is below 2 %. */
static int check_slope(Adapted *a, int index, const float *g, double noise)
{
    const Tensor *t = &a->set.params[index]->value;
    const int64_t n = dg_tensor_count(t);
    const RngKey key = { .purpose = DG_RNG_TEST, .prompt = (uint32_t)index };
    float *v = dg_tensor_f32(t), *kept = malloc((size_t)n * sizeof *kept);
    float *d = malloc((size_t)n * sizeof *d);
    double gg = 0, dd = 0, norm = 0, slope = 0, h, once, twice, bound;

    assert_true(kept != NULL && d != NULL);
    memcpy(kept, v, (size_t)n * sizeof *v);
    dg_rng_normal(d, 0, n, &key);
    for (int64_t i = 0; i < n; i++) {
        gg += (double)g[i] * (double)g[i];
        dd += (double)d[i] * (double)d[i];
        norm += (double)kept[i] * (double)kept[i];
    }
    assert_true(gg > 0);
    for (int64_t i = 0; i < n; i++) {
        d[i] = (float)((double)d[i] / sqrt(dd) + (double)g[i] / sqrt(gg));
        slope += (double)d[i] * (double)g[i];
    }
    h = 2e-2 * sqrt(norm);
    once = (loss_at(a, v, kept, d, n, h) - loss_at(a, v, kept, d, n, -h)) /
           (2 * h);
    twice =
        (loss_at(a, v, kept, d, n, 2 * h) - loss_at(a, v, kept, d, n, -2 * h)) /
        (4 * h);
    memcpy(v, kept, (size_t)n * sizeof *v);
    bound = fabs(once - twice) + noise / h;
    if (!(fabs(once - slope) <= bound))
        fail_msg("%s: difference quotient %g, gradient %g, bound %g",
                 a->set.params[index]->name, once, slope, bound);
    free(kept);
    free(d);
    return bound < 0.02 * fabs(slope);
}

static void test_gradients_match_differences(void **state)
{
    Adapted *a = adapt(&all_targets);
    double squares = 0;
    int sharp = 0;

    (void)state;
    fill_b(a);
    pass(a, &learn);
    for (size_t i = 0; i < sizeof a->y / sizeof *a->y; i++)
        squares += (double)a->y[i] * (double)a->y[i];
    for (int i = 0; i < a->set.num_params; i++)
        sharp +=
            check_slope(a, i, a->grads + a->set.params[i]->value.param_offset,
                        10 * 0x1p-24 * sqrt(squares));
    assert_true(sharp >= a->set.num_params * 8 / 10);
    drop(a);
}

/* Batches, recomputation and the plan: as for networks without adapters. */
static void test_batches_and_plans_hold(void **state)
{
    Adapted *a = adapt(&all_targets), *b = adapt(&all_targets);
    const size_t bytes = (size_t)a->set.count * sizeof(float);
    RunOpts o = learn;
    Backend plan;
    size_t peak;
    uint64_t flops;

    (void)state;
    fill_b(a);
    fill_b(b);
    pass(a, &learn);
    peak = a->ctx.arena.peak;
    flops = a->ctx.flops;
    for (o.first = 0, o.count = 1; o.first < 2; o.first++)
        pass(b, &o); /* the same bits one sample after the other */
    assert_memory_equal(a->y, b->y, sizeof a->y);
    assert_memory_equal(a->grads, b->grads, bytes);
    memset(b->grads, 0, bytes);
    o = learn;
    o.recompute = 1;
    pass(b, &o);
    assert_memory_equal(a->grads, b->grads, bytes);
    dg_context_fini(&b->ctx);
    dg_backend_plan(&plan, dg_backend_cpu());
    MUST(dg_context_init(&b->ctx, &plan, 0));
    pass(b, &learn);
    assert_true(b->ctx.arena.peak == peak && b->ctx.flops == flops);
    drop(a);
    drop(b);
}

static void refused(int err, const char *text)
{
    assert_int_equal(err, DG_EINVAL);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, dg_last_error()->text);
}

static void test_targets_are_checked(void **state)
{
    const TextList wrong = { { "q", "to_q", "to_qq" } };
    const LoraConfig none = { .rank = 1, .targets = { { "" } } };
    const LoraConfig twice = { .rank = 1, .targets = { { "to_q", "to_q" } } };
    Adapted *a = adapt(&wrong);
    Lora l;

    (void)state;
    refused(dg_lora_check(&a->lora),
            "called \"q\"; they are called x_embedder, "
            "context_embedder, linear_1");
    assert_int_equal(a->set.num_params, 2 * 4); /* "q" is no part of a name */
    assert_int_equal(dg_lora_names(&a->lora, 0, a->set.params[3]->name), 0);
    assert_int_equal(dg_lora_names(&a->lora, 1, a->set.params[3]->name), 1);
    drop(a);
    refused(dg_lora_init(&l, NULL, &none), "lora.targets = []");
    refused(dg_lora_init(&l, NULL, &twice), "twice");
}

/* How many linears of the small FLUX a pattern adapts. */
static int num_adapted(const char *pattern)
{
    TextList targets = { { "" } };
    Adapted *a;
    int num;

    snprintf(targets.text[0], sizeof targets.text[0], "%s", pattern);
    a = adapt(&targets);
    num = a->set.num_params / 2;
    assert_int_equal(a->lora.matched[0], num);
    drop(a);
    return num;
}

/* two double and two single blocks */
static void test_patterns_choose_linears(void **state)
{
    const TextList both_ways = { { "*to_q", "to_q" } };
    Adapted *a;

    (void)state;
    assert_int_equal(num_adapted("to_q"), 4);
    assert_int_equal(num_adapted("*to_q"), 4);
    assert_int_equal(num_adapted("add_*_proj"), 2 * 3);
    assert_int_equal(num_adapted("attn.*"), 2 * 8 + 2 * 3);
    assert_int_equal(num_adapted("transformer_blocks.*.to_q"), 2);
    assert_int_equal(num_adapted("single_transformer_blocks.1.*"), 3 + 3);
    assert_int_equal(num_adapted("transformer_blocks.1.attn.to_q"), 1);
    assert_int_equal(num_adapted("o_q"), 0);
    assert_int_equal(num_adapted("attn.to"), 0);
    a = adapt(&both_ways); /* one adapter of a linear that both name */
    MUST(dg_lora_check(&a->lora));
    assert_int_equal(a->set.num_params, 2 * 4);
    drop(a);
}

/* --- in a policy ---------------------------------------------------------- */

static const char *const lora_sets[] = { "lora.rank=4", "lora.alpha=8", NULL };

static void predict(const TinyRun *t, const Policy *p, float *out)
{
    Context *ctx = &t->team->workers[0].ctx;
    float *noise = malloc(sizeof *noise *
                          (size_t)(p->shape.elements + p->shape.condition));
    const float *z = noise, *condition = noise + p->shape.elements;
    const float time = 0.7f;
    const RngKey key = { .purpose = DG_RNG_TEST };
    const PolicyBatch b = {
        .num = 1, .z = &z, .time = &time, .condition = &condition
    };
    const Tensor *u;

    assert_non_null(noise);
    dg_rng_normal(noise, 0, p->shape.elements + p->shape.condition, &key);
    dg_context_reset(ctx);
    u = dg_policy_predict(p, ctx, &b);
    assert_non_null(u);
    memcpy(out, u->data, sizeof *out * (size_t)p->shape.elements);
    free(noise);
}

/* KL's reference is the base without adapters, in the same memory. */
static void test_reference_is_the_base(void **state)
{
    TinyRun t, plain;
    float with[3072], without[3072], reference[3072];
    ParamSet *set;

    (void)state;
    tiny_open(&t, 1, lora_sets);
    tiny_open(&plain, 1, NULL);
    memcpy(plain.policy->values, t.policy->net.values,
           sizeof(float) * (size_t)plain.policy->num_values);
    set = &t.policy->adapters;
    for (int64_t i = 0; i < set->count; i++)
        set->values[i] += 0.1f;
    MUST(dg_policy_reference(&t.reference, t.policy, &t.config));
    assert_ptr_equal(t.reference->values, t.policy->net.values);
    predict(&t, t.policy, with);
    predict(&t, t.reference, reference);
    predict(&plain, plain.policy, without);
    assert_memory_equal(reference, without, sizeof without);
    assert_memory_not_equal(with, without, sizeof without);
    tiny_close(&t);
    tiny_close(&plain);
}

/* Attention without values, and no adapters that give it some. */
static void silence(Policy *p)
{
    for (int i = 1; i < p->adapters.num_params; i += 2) { /* B */
        const Tensor *b = &p->adapters.params[i]->value;

        memset(dg_tensor_f32(b), 0, sizeof(float) * (size_t)dg_tensor_count(b));
    }
    for (int i = 0; i < p->net.num_params; i++) {
        const Param *q = p->net.params[i];

        if (strstr(q->name, "to_v.") != NULL ||
            strstr(q->name, "add_v_proj.") != NULL)
            memset(p->net.values + q->value.param_offset, 0,
                   sizeof(float) * (size_t)dg_tensor_count(&q->value));
    }
}

/* W + scale B A, of rows longer than a block of the program's loop. */
static void test_merge_adds_what_adapters_are(void **state)
{
    static const char *const sets[] = { "lora.rank=4", "lora.alpha=8",
                                        "flux.num_heads=5", NULL };
    TinyRun t;
    float *want;
    int64_t longest = 0;

    (void)state;
    tiny_open(&t, 1, sets);
    for (int64_t i = 0; i < t.policy->adapters.count; i++)
        t.policy->adapters.values[i] = 1e-2f * (float)(i % 13 - 6);
    want = malloc(sizeof *want * (size_t)t.policy->net.count);
    memcpy(want, t.policy->net.values,
           sizeof *want * (size_t)t.policy->net.count);
    for (int k = 0; k < t.policy->adapters.num_params; k += 2) {
        const Param *a = t.policy->adapters.params[k];
        const float *A = dg_tensor_f32(&a->value);
        const float *B =
            dg_tensor_f32(&t.policy->adapters.params[k + 1]->value);
        char name[2 * DG_PARAM_NAME];
        const Tensor *W;

        snprintf(name, sizeof name, "%.*s.weight",
                 (int)(strstr(a->name, ".lora_A") - a->name), a->name);
        W = &dg_params_find(&t.policy->net, name)->value;
        longest = W->dims[1] > longest ? W->dims[1] : longest;
        for (int64_t i = 0; i < dg_tensor_count(W); i++) {
            float *w = want + W->param_offset + i;
            double sum = 0;

            for (int64_t r = 0; r < 4; r++)
                sum += (double)B[i / W->dims[1] * 4 + r] *
                       (double)A[r * W->dims[1] + i % W->dims[1]];
            *w = (float)((double)*w + 2 * sum);
        }
    }
    assert_true(longest >= 80);
    dg_policy_merge(t.policy);
    assert_memory_equal(t.policy->net.values, want,
                        sizeof *want * (size_t)t.policy->net.count);
    free(want);
    tiny_close(&t);
}

static void test_adapters_that_do_nothing_are_found(void **state)
{
    static const char *const sets[] = { "lora.rank=4", "lora.alpha=8",
                                        "policy.draw_all=false", NULL };
    TinyRun t;
    float *before;
    size_t bytes;

    (void)state;
    tiny_open(&t, 1, sets);
    bytes = sizeof *before * (size_t)t.policy->num_values;
    before = malloc(bytes);
    assert_non_null(before);
    for (int64_t i = 0; i < t.policy->adapters.count; i++)
        t.policy->adapters.values[i] = 1e-3f * (float)(i % 7);
    memcpy(before, t.policy->values, bytes);
    MUST(dg_policy_check_adapters(t.policy, &t.team->workers[0].ctx));
    assert_memory_equal(before, t.policy->values, bytes);
    /* without values queries do nothing, though other targets would */
    silence(t.policy);
    refused(dg_policy_check_adapters(t.policy, &t.team->workers[0].ctx),
            "adapters on \"to_q\" do not change");
    /* a fresh network begins as zero, whatever its blocks do */
    dg_policy_draw(t.policy, 1);
    refused(dg_policy_check_adapters(t.policy, &t.team->workers[0].ctx),
            "adapters on \"to_q\" do not change");
    free(before);
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_zero_b_changes_no_bit),
    cmocka_unit_test(test_first_values_are_those_of_peft),
    cmocka_unit_test(test_agrees_with_peft),
    cmocka_unit_test(test_merged_weights_give_the_same),
    cmocka_unit_test(test_gradients_match_differences),
    cmocka_unit_test(test_batches_and_plans_hold),
    cmocka_unit_test(test_targets_are_checked),
    cmocka_unit_test(test_patterns_choose_linears),
    cmocka_unit_test(test_reference_is_the_base),
    cmocka_unit_test(test_merge_adds_what_adapters_are),
    cmocka_unit_test(test_adapters_that_do_nothing_are_found),
};

TINY_MAIN(tests)
