#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/float_bits.h"
#include "net_reference.h"

#include <math.h>
#include <stdio.h>

static const Backend *backends[2];

static double sum_of_squares(const float *x, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    return s;
}

/*
 * Reference values: forward and gradients of the diffusers module
 * FluxTransformer2DModel with the same weights and inputs, float32. The
 * largest difference is one unit in the last place of a frequency near 1: it
 * turns the guidance's angle, 3500 f, by 2e-4, one of 256 inputs of the
 * embedding; the other layers round to a few 1e-7. Allowed: 3e-5 of the size
 * of an element, 5e-5 of a sum of squares, 1e-6 per element in a sum.
 */
static void test_forward_matches_reference(void **state)
{
    static const double first[4] = { 2.644364, 1.519959, 1.465071, 1.312345 };
    (void)state;

    for (int k = 0; k < 2; k++) {
        const RunOpts o = { .backend = backends[k], .count = 2 };
        double sum = 0;
        Net n;
        Run *r;

        assert_int_equal(net_create(&n, NET_FLUX), DG_OK);
        dg_params_fill_golden(&n.set, net_prefix(&n));
        r = run_create(&n);
        assert_int_equal(net_run(&n, &o, r), DG_OK);
        for (int i = 0; i < 480; i++)
            sum += r->y[i];
        close_to(sum, -19.3939, 480 * 1e-6);
        close_to(sum_of_squares(r->y, 480), 835.2005, 835 * 5e-5);
        for (int i = 0; i < 4; i++)
            close_to(r->y[i], first[i], 3e-5);
        close_to(r->y[479], -0.851684, 3e-5);
        run_destroy(r);
        net_destroy(&n);
    }
}

static void check_gradient(const Net *n, const Run *r, const char *name,
                           double squares, double first)
{
    char full[DG_PARAM_NAME];
    const Param *p;
    const float *g;
    double rms;

    snprintf(full, sizeof full, "transformer.%s", name);
    p = dg_params_find(&n->set, full);
    assert_non_null(p);
    g = r->grads + p->value.param_offset;
    rms = sqrt(squares / (double)dg_tensor_count(&p->value));
    close_to(sum_of_squares(g, dg_tensor_count(&p->value)), squares,
             squares * 5e-5);
    close_to(g[0], first, 3e-5 * rms + 2e-6);
}

static void test_gradients_match_reference(void **state)
{
    (void)state;

    for (int k = 0; k < 4; k++) {
        const RunOpts o = { .backend = backends[k / 2],
                            .count = 2,
                            .record = 1,
                            .recompute = k % 2 };
        Net n;
        Run *r;

        assert_int_equal(net_create(&n, NET_FLUX), DG_OK);
        dg_params_fill_golden(&n.set, net_prefix(&n));
        r = run_create(&n);
        assert_int_equal(net_run(&n, &o, r), DG_OK);
        close_to(r->loss, 10.0816, 480 * 1e-6);
        check_gradient(&n, r, "x_embedder.weight", 8580.020, -1.005746);
        check_gradient(&n, r,
                       "transformer_blocks.0.norm1_context.linear.weight",
                       1220.756, -0.015961);
        check_gradient(&n, r, "transformer_blocks.1.attn.norm_added_k.weight",
                       7.424060, 0.287691);
        check_gradient(&n, r, "single_transformer_blocks.1.proj_out.weight",
                       20635.79, -0.332426);
        close_to(sum_of_squares(r->input_grads[0], 480), 427.1338, 427 * 5e-5);
        close_to(r->input_grads[0][0], 0.362372, 3e-5);
        close_to(sum_of_squares(r->input_grads[1], 480), 14.76789, 15 * 5e-5);
        close_to(r->input_grads[1][0], -0.083911, 8e-6);
        run_destroy(r);
        net_destroy(&n);
    }
}

/* Values of the public model's table, 16/56/56, token (0, 10, 20). */
static void test_rope_spot_values(void **state)
{
    const FluxConfig c = { .axes_dims_rope = { 16, 56, 56 } };
    static float cosines[(3 + 11 * 21) * 64], sines[(3 + 11 * 21) * 64];
    const int64_t row = (3 + 10 * 21 + 20) * 64;
    (void)state;

    dg_flux_rope(cosines, sines, &c, 11, 21, 3);
    close_to(cosines[row + 16 / 2], -0.839072, 6e-7);
    close_to(sines[row + 16 / 2], -0.544021, 6e-7);
    close_to(cosines[row + 18 / 2], 0.610843, 6e-7);
    close_to(sines[row + 18 / 2], 0.791752, 6e-7);
    close_to(cosines[row + 72 / 2], 0.408082, 6e-7);
    close_to(cosines[row + 74 / 2], -0.253742, 6e-7);
    close_to(sines[row + 74 / 2], 0.967272, 6e-7);
    for (int i = 0; i < 3 * 64; i++) { /* text does not turn */
        assert_true(cosines[i] == 1);
        assert_true(sines[i] == 0);
    }
}

static void test_sinusoid_spot_values(void **state)
{
    static const double cosines[2][3] = { { 0.679957, -0.798429, 0.578064 },
                                          { 0.692831, 0.153414, 0.638949 } };
    static const double sines[2][3] = { { 0.733252, 0.602089, 0.815991 },
                                        { 0.721100, -0.988162, 0.769249 } };
    static const float t[2] = { 981, 937 };
    static const int64_t dim[2] = { 320, 256 };
    Context ctx;
    (void)state;

    assert_int_equal(dg_context_init(&ctx, ref_backend(), 1 << 16), DG_OK);
    for (int k = 0; k < 2; k++) {
        const float *y = dg_tensor_f32(dg_op_sinusoid(&ctx, &t[k], 1, dim[k]));

        /* t f_i is rounded to float: 981 2^-24 of angle */
        for (int i = 0; i < 3; i++) {
            close_to(y[i], cosines[k][i], 6e-5);
            close_to(y[dim[k] / 2 + i], sines[k][i], 6e-5);
        }
    }
    dg_context_fini(&ctx);
}

static float velocity_at(Net *n, float t, float guidance, int bf16)
{
    static const int64_t dims[2][3] = { { 1, 15, 16 }, { 1, 6, 40 } };
    static const int64_t pooled[2] = { 1, 24 };
    static float x[600];
    FluxInputs in = { .t = &t,
                      .guidance = &guidance,
                      .grid_h = FLUX_H,
                      .grid_w = FLUX_W,
                      .bf16_compat = bf16 };
    Context ctx;
    float y;

    assert_int_equal(dg_context_init(&ctx, ref_backend(), TINY_ARENA), DG_OK);
    dg_golden_input(x, 600, "x");
    in.hidden = dg_op_input(&ctx, x, 3, dims[0]);
    in.context = dg_op_input(&ctx, x, 3, dims[1]);
    in.pooled = dg_op_input(&ctx, x, 2, pooled);
    y = dg_tensor_f32(dg_flux_forward(n->flux, &ctx, &in))[7];
    dg_context_fini(&ctx);
    return y;
}

/* bfloat16 training code sees 936 for 0.937, 948 for 0.95, 3504 for 3.5. */
static void test_bf16_time_is_rounded_twice(void **state)
{
    Net n;
    (void)state;

    assert_true(dg_round_bf16(dg_round_bf16(0.937f) * 1000) == 936);
    assert_true(dg_round_bf16(dg_round_bf16(0.95f) * 1000) == 948);
    assert_true(dg_round_bf16(3500) == 3504);
    assert_true(dg_round_bf16(-1.00390625f) == -1); /* tie to even */
    assert_true(isnan(dg_round_bf16(NAN)));
    assert_int_equal(net_create(&n, NET_FLUX), DG_OK);
    dg_params_fill_golden(&n.set, net_prefix(&n));
    assert_true(velocity_at(&n, 0.937f, 3.5f, 1) ==
                velocity_at(&n, 0.936f, 3.504f, 0));
    assert_true(velocity_at(&n, 0.937f, 3.5f, 1) !=
                velocity_at(&n, 0.937f, 3.5f, 0));
    net_destroy(&n);
}

static void refuse_config(const FluxConfig *c, const char *word)
{
    FluxTransformer *m = NULL;
    ParamSet s;

    dg_params_init(&s, 1);
    assert_int_equal(dg_flux_create(&m, c, &s, ""), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, word));
    assert_null(m);
    dg_params_fini(&s);
}

static void test_bad_configs_are_refused(void **state)
{
    FluxConfig c = tiny_flux;
    (void)state;

    c.axes_dims_rope[0] = 10;
    refuse_config(&c, "attention_head_dim");
    c.axes_dims_rope[0] = 7;
    refuse_config(&c, "axes_dims_rope[0]");
    c = tiny_flux;
    c.in_channels = 0;
    refuse_config(&c, "in_channels");
    c = tiny_flux;
    c.num_single_layers = -1;
    refuse_config(&c, "num_single_layers");
}

/* A forward pass of one sample on a grid; the context's error. */
static int error_of(const Net *n, int64_t h, int64_t w, const float *guidance)
{
    static const int64_t hidden[3] = { 1, 15, 16 }, context[3] = { 1, 6, 40 };
    static const int64_t pooled[2] = { 1, 24 };
    static const float zeros[600], t[1] = { 0.5f };
    FluxInputs in = { .t = t, .guidance = guidance, .grid_h = h, .grid_w = w };
    const Tensor *y;
    Context ctx;
    int err;

    assert_int_equal(dg_context_init(&ctx, ref_backend(), TINY_ARENA), DG_OK);
    in.hidden = dg_op_input(&ctx, zeros, 3, hidden);
    in.context = dg_op_input(&ctx, zeros, 3, context);
    in.pooled = dg_op_input(&ctx, zeros, 2, pooled);
    y = dg_flux_forward(n->flux, &ctx, &in);
    err = dg_context_error(&ctx);
    assert_int_equal(y == NULL, err != DG_OK);
    dg_context_fini(&ctx);
    return err;
}

static void test_bad_inputs_are_refused(void **state)
{
    const float guidance[1] = { 3.5f };
    Net n;
    (void)state;

    assert_int_equal(net_create(&n, NET_FLUX), DG_OK);
    assert_int_equal(error_of(&n, 3, 5, guidance), DG_OK);
    assert_int_equal(error_of(&n, 3, 5, NULL), DG_EINVAL);
    assert_int_equal(error_of(&n, 5, 3, guidance), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "prepared"));
    assert_int_equal(error_of(&n, 5, 4, guidance), DG_EINVAL);
    assert_int_equal(dg_flux_prepare(n.flux, 5, 3, FLUX_TEXT), DG_OK);
    assert_int_equal(error_of(&n, 5, 3, guidance), DG_OK);
    assert_int_equal(dg_flux_prepare(n.flux, 0, 3, FLUX_TEXT), DG_EINVAL);
    net_destroy(&n);
}

/* A fresh network predicts 0: its last projection is zero. */
static void test_fresh_network_predicts_zero(void **state)
{
    Net n;
    Run *r;
    (void)state;

    assert_int_equal(net_create(&n, NET_FLUX), DG_OK);
    dg_params_draw(&n.set, 1);
    r = run_create(&n);
    assert_int_equal(
        net_run(&n, &(RunOpts) { .backend = ref_backend(), .count = 2 }, r),
        DG_OK);
    for (int i = 0; i < 480; i++)
        assert_true(r->y[i] == 0);
    run_destroy(r);
    net_destroy(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_gradients_match_reference),
        cmocka_unit_test(test_rope_spot_values),
        cmocka_unit_test(test_sinusoid_spot_values),
        cmocka_unit_test(test_bf16_time_is_rounded_twice),
        cmocka_unit_test(test_bad_configs_are_refused),
        cmocka_unit_test(test_bad_inputs_are_refused),
        cmocka_unit_test(test_fresh_network_predicts_zero),
    };

    backends[0] = ref_backend();
    backends[1] = dg_backend_cpu();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
