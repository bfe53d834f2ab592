#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/philox.h"
#include "cpu/cpu.h"
#include "net_checks.h"
#include "ref_kernels.h"
#include "tiny_nets.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static const FluxConfig flux_dev = { .in_channels = 64,
                                     .num_layers = 19,
                                     .num_single_layers = 38,
                                     .attention_head_dim = 128,
                                     .num_attention_heads = 24,
                                     .joint_attention_dim = 4096,
                                     .pooled_projection_dim = 768,
                                     .guidance_embeds = 1,
                                     .axes_dims_rope = { 16, 56, 56 } };

/* --- the public sizes, counted without memory -------------------------- */

static void test_public_models_have_their_sizes(void **state)
{
    static const T5Config xxl = { 32128, 4096, 64, 10240, 24, 64, 32, 128 };
    static const ClipTextConfig clip_l = {
        49408, 768, 3072, 12, 12, 77, DG_CLIP_QUICK_GELU
    };
    FluxConfig c = flux_dev;
    FluxTransformer *flux;
    T5Encoder *t5;
    ClipText *clip;
    ParamSet s;
    (void)state;

    dg_params_init(&s, 1);
    assert_int_equal(dg_flux_create(&flux, &c, &s, ""), DG_OK);
    assert_non_null(
        dg_params_find(&s, "single_transformer_blocks.37.proj_out.weight"));
    dg_flux_destroy(flux);
    check_count(&s, 1160, 11901408320);
    c.guidance_embeds = 0;
    dg_params_init(&s, 1);
    assert_int_equal(dg_flux_create(&flux, &c, &s, ""), DG_OK);
    dg_flux_destroy(flux);
    check_count(&s, 1156, 11891178560);
    dg_params_init(&s, 1);
    assert_int_equal(dg_t5_create(&t5, &xxl, &s, ""), DG_OK);
    dg_t5_destroy(t5);
    check_count(&s, 219, 4762310656);
    dg_params_init(&s, 1);
    assert_int_equal(dg_clip_create(&clip, &clip_l, &s, ""), DG_OK);
    dg_clip_destroy(clip);
    check_count(&s, 196, 123060480);
    dg_params_init(&s, 1);
    assert_int_equal(dg_flux_create(&flux, &tiny_flux, &s, ""), DG_OK);
    dg_flux_destroy(flux);
    check_count(&s, 112, 483472);
}

/* Operations of one forward of FLUX.1-dev at 720 x 720, N = 2025, T = 512. */
static uint64_t flux_dev_flops(uint64_t N, uint64_t T)
{
    const uint64_t D = 3072, S = N + T;
    const uint64_t linears = 2 * S * 12 * D * D, attention = 4 * S * S * D;
    const uint64_t embed = 2 * D * (N * 64 + T * 4096) +
                           2 * 2 * (256 * D + D * D) + 2 * (768 * D + D * D);
    const uint64_t out = 2 * D * 2 * D + 2 * N * D * 64;

    return 19 * (2 * 12 * D * D + linears + attention) +
           38 * (2 * 3 * D * D + linears + attention) + embed + out;
}

static void test_full_size_plan_counts_flops(void **state)
{
    static const int64_t hidden[3] = { 1, 2025, 64 };
    static const int64_t context[3] = { 1, 512, 4096 }, pooled[2] = { 1, 768 };
    static const float t[1] = { 1 }, guidance[1] = { 3.5f };
    FluxInputs in = {
        .t = t, .guidance = guidance, .grid_h = 45, .grid_w = 45
    };
    FluxTransformer *m;
    Backend plan;
    Context ctx;
    ParamSet s;
    Tensor *y;
    (void)state;

    dg_backend_plan(&plan, dg_backend_cpu());
    dg_params_init(&s, 1);
    assert_int_equal(dg_flux_create(&m, &flux_dev, &s, ""), DG_OK);
    assert_int_equal(dg_flux_prepare(m, 45, 45, 512), DG_OK);
    assert_int_equal(dg_context_init(&ctx, &plan, 0), DG_OK);
    in.hidden = dg_op_input(&ctx, NULL, 3, hidden);
    in.context = dg_op_input(&ctx, NULL, 3, context);
    in.pooled = dg_op_input(&ctx, NULL, 2, pooled);
    y = dg_flux_forward(m, &ctx, &in);
    assert_int_equal(dg_context_error(&ctx), DG_OK);
    assert_int_equal(y->dims[1], 2025);
    assert_int_equal(y->dims[2], 64);
    assert_true(ctx.flops == flux_dev_flops(2025, 512));
    assert_true(fabs((double)ctx.flops / 1e12 - 37.3) < 0.05);
    dg_context_fini(&ctx);
    dg_flux_destroy(m);
    dg_params_fini(&s);
}

/* --- promises, for each network ---------------------------------------- */

static Run *run_new(const Net *n, const RunOpts *o)
{
    Run *r = run_create(n);

    assert_int_equal(net_run(n, o, r), DG_OK);
    return r;
}

static void golden_net(Net *n, NetKind kind)
{
    assert_int_equal(net_create(n, kind), DG_OK);
    dg_params_fill_golden(&n->set, net_prefix(n));
}

static void assert_same_run(const Net *n, const Run *a, const Run *b)
{
    assert_memory_equal(a->y, b->y, sizeof a->y);
    assert_memory_equal(a->pooled, b->pooled, sizeof a->pooled);
    assert_memory_equal(a->input_grads, b->input_grads, sizeof a->input_grads);
    assert_same_grads(&n->set, a->grads, b->grads);
}

/* T5's bias table alone is summed by layer, then sample: its order of sums
 * over a batch differs from that of single samples. Up to 2 layers x 2
 * samples x 1600 terms of rounding 2^-24 each. */
static void compare_bias_table(const Net *n, Run *a, Run *b)
{
    const Param *p = dg_params_find(
        &n->set, "text_encoder_2.encoder.block.0.layer.0.SelfAttention."
                 "relative_attention_bias.weight");
    float *x = a->grads + p->value.param_offset;
    float *y = b->grads + p->value.param_offset;

    for (int64_t i = 0; i < dg_tensor_count(&p->value); i++) {
        assert_true(fabsf(x[i] - y[i]) <= 1e-5f * (1 + fabsf(x[i])));
        y[i] = x[i];
    }
}

static void test_batch_is_its_samples_bit_for_bit(void **state)
{
    RunOpts o = { .backend = dg_backend_cpu(), .record = 1 };
    (void)state;

    for (NetKind k = 0; k < NUM_NETS; k++) {
        Run *batch, *single;
        Net n;

        golden_net(&n, k);
        o.first = 0;
        o.count = 2;
        batch = run_new(&n, &o);
        o.count = 1;
        single = run_new(&n, &o);
        o.first = 1;
        assert_int_equal(net_run(&n, &o, single), DG_OK);
        if (k == NET_T5)
            compare_bias_table(&n, batch, single);
        assert_same_run(&n, batch, single);
        run_destroy(batch);
        run_destroy(single);
        net_destroy(&n);
    }
}

static void test_recompute_gives_the_same_bits(void **state)
{
    RunOpts o = { .backend = dg_backend_cpu(), .count = 2, .record = 1 };
    (void)state;

    for (NetKind k = 0; k < NUM_NETS; k++) {
        Run *kept, *again, *plain;
        Net n;

        golden_net(&n, k);
        o.record = 1;
        o.recompute = 0;
        kept = run_new(&n, &o);
        o.recompute = 1;
        again = run_new(&n, &o);
        assert_same_run(&n, kept, again);
        assert_true(again->peak < kept->peak);
        o.record = 0; /* a rollout has no tape */
        plain = run_new(&n, &o);
        assert_memory_equal(kept->y, plain->y, sizeof kept->y);
        run_destroy(kept);
        run_destroy(again);
        run_destroy(plain);
        net_destroy(&n);
    }
}

static void test_plan_counts_the_run_exactly(void **state)
{
    Backend plan;
    (void)state;

    dg_backend_plan(&plan, dg_backend_cpu());
    for (int i = 0; i < NUM_NETS * 4; i++) {
        RunOpts o = { .backend = dg_backend_cpu(),
                      .count = 2,
                      .record = i & 1,
                      .recompute = i >> 1 & 1 };
        Run *real, *counted;
        Net n;

        golden_net(&n, (NetKind)(i / 4));
        real = run_new(&n, &o);
        o.backend = &plan;
        counted = run_new(&n, &o);
        assert_true(real->peak == counted->peak);
        assert_true(real->flops == counted->flops);
        run_destroy(real);
        run_destroy(counted);
        net_destroy(&n);
    }
}

static double distance(const float *a, const float *b, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(s);
}

/* Kernels against plain loops with double sums: forty layers of float sums of
 * up to 320 terms, 2e-5 of the tensor's own size. Key biases, which softmax
 * does not see, are sums that cancel: what stays is rounding of the whole
 * network's gradients, four units of 2^-24. */
static void test_kernels_agree_with_reference(void **state)
{
    RunOpts o = { .count = 2, .record = 1 };
    (void)state;

    for (NetKind k = 0; k < NUM_NETS; k++) {
        Run *fast, *slow;
        float *zeros;
        double all;
        Net n;

        golden_net(&n, k);
        zeros = calloc((size_t)n.set.count, sizeof *zeros);
        assert_non_null(zeros);
        o.backend = dg_backend_cpu();
        fast = run_new(&n, &o);
        o.backend = ref_backend();
        slow = run_new(&n, &o);
        all = distance(slow->grads, zeros, n.set.count);
        for (int i = 0; i < n.set.num_params; i++) {
            const Tensor *t = &n.set.params[i]->value;
            const float *b = slow->grads + t->param_offset;
            const int64_t count = dg_tensor_count(t);
            const double size = distance(b, zeros, count);
            const double off =
                distance(fast->grads + t->param_offset, b, count);

            if (!(off <= 2e-5 * size + 4 * 0x1p-24 * all))
                fail_msg("%s: gradient off by %g of %g", n.set.params[i]->name,
                         off, size);
        }
        free(zeros);
        run_destroy(fast);
        run_destroy(slow);
        net_destroy(&n);
    }
}

/* --- finite differences ------------------------------------------------ */

typedef struct Probe {
    Context ctx;
    const Net *n;
    Run *r;
    RunOpts o;
    float *values, *saved, *v; /* of the parameter; the direction */
    int64_t count;
    double noise; /* rounding error of L */
} Probe;

static double loss_at(Probe *p, double h)
{
    for (int64_t i = 0; i < p->count; i++)
        p->values[i] = (float)(p->saved[i] + h * p->v[i]);
    dg_context_reset(&p->ctx);
    assert_int_equal(net_run_in(&p->ctx, p->n, &p->o, p->r), DG_OK);
    return p->r->loss;
}

/* Direction: along the gradient g plus a random one of the same length. */
static double make_direction(Probe *p, const float *g, uint32_t index)
{
    const RngKey key = { .seed = 1, .purpose = DG_RNG_TEST, .prompt = index };
    double size = 0, random = 0, slope = 0;

    dg_rng_normal(p->v, 0, p->count, &key);
    for (int64_t i = 0; i < p->count; i++) {
        size += (double)g[i] * g[i];
        random += (double)p->v[i] * p->v[i];
    }
    for (int64_t i = 0; i < p->count; i++) {
        p->v[i] = (float)(p->v[i] / sqrt(random) +
                          (size > 0 ? g[i] / sqrt(size) : 0));
        slope += (double)p->v[i] * g[i];
    }
    return slope;
}

/*
 * (L(h) - L(-h)) / 2h against g v. Errors: the step's h^2 term, which the
 * difference to the doubled step exceeds threefold, and rounding of L over h.
 * Returns 1 when that bound is below 2 % of the slope.
 */
static int check_slope(Probe *p, const Param *param, const float *g,
                       uint32_t index)
{
    double slope, norm = 0, h, once, twice, bound;

    p->values = param->value.data;
    p->count = dg_tensor_count(&param->value);
    memcpy(p->saved, p->values, (size_t)p->count * sizeof(float));
    slope = make_direction(p, g, index);
    for (int64_t i = 0; i < p->count; i++)
        norm += (double)p->saved[i] * p->saved[i];
    h = 2e-3 * sqrt(norm);
    once = (loss_at(p, h) - loss_at(p, -h)) / (2 * h);
    twice = (loss_at(p, 2 * h) - loss_at(p, -2 * h)) / (4 * h);
    memcpy(p->values, p->saved, (size_t)p->count * sizeof(float));
    bound = fabs(once - twice) + p->noise / h;
    if (!(fabs(once - slope) <= bound))
        fail_msg("%s: difference quotient %g, gradient %g, bound %g",
                 param->name, once, slope, bound);
    return bound < 0.02 * fabs(slope);
}

/* Rounding of L = sum y w: y is off by some ten units of 2^-24 of its size,
 * independently. */
static double loss_noise(const Net *n, const Run *r)
{
    const int64_t count = TINY_SAMPLES * n->y_count;
    double squares = 0;

    for (int64_t i = 0; i < count; i++)
        squares += (double)r->y[i] * r->y[i]; /* w has unit variance */
    return 10 * 0x1p-24 * sqrt(squares);
}

static void test_gradients_match_differences(void **state)
{
    (void)state;

    for (NetKind k = 0; k < NUM_NETS; k++) {
        Probe p = {
            .o = { .backend = dg_backend_cpu(), .count = 2, .record = 1 }
        };
        int sharp = 0;
        Net n;

        golden_net(&n, k);
        p.n = &n;
        p.r = run_new(&n, &p.o);
        p.noise = loss_noise(&n, p.r);
        p.o.record = 0;
        p.saved = malloc((size_t)n.set.count * sizeof(float));
        p.v = malloc((size_t)n.set.count * sizeof(float));
        assert_non_null(p.saved);
        assert_non_null(p.v);
        assert_int_equal(dg_context_init(&p.ctx, p.o.backend, TINY_ARENA),
                         DG_OK);
        for (int i = 0; i < n.set.num_params; i++)
            sharp += check_slope(
                &p, n.set.params[i],
                p.r->grads + n.set.params[i]->value.param_offset, (uint32_t)i);
        /* key biases have none: softmax does not see them */
        assert_true(sharp >= n.set.num_params * 9 / 10);
        dg_context_fini(&p.ctx);
        free(p.saved);
        free(p.v);
        run_destroy(p.r);
        net_destroy(&n);
    }
}

static size_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A worker has one: what it may need for structs at most is not counted. */
static void test_idle_contexts_hold_hardly_any_memory(void **state)
{
    enum { NUM = 8, MOST = NUM << 21 };
    const size_t before = resident_bytes();
    Context ctx[NUM];

    (void)state;
    for (int i = 0; i < NUM; i++)
        assert_int_equal(dg_context_init(&ctx[i], dg_backend_cpu(), 4096),
                         DG_OK);
    assert_true(resident_bytes() < before + MOST);
    for (int i = 0; i < NUM; i++)
        dg_context_fini(&ctx[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public_models_have_their_sizes),
        cmocka_unit_test(test_full_size_plan_counts_flops),
        cmocka_unit_test(test_batch_is_its_samples_bit_for_bit),
        cmocka_unit_test(test_recompute_gives_the_same_bits),
        cmocka_unit_test(test_plan_counts_the_run_exactly),
        cmocka_unit_test(test_kernels_agree_with_reference),
        cmocka_unit_test(test_gradients_match_differences),
        cmocka_unit_test(test_idle_contexts_hold_hardly_any_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
