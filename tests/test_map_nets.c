/* The networks on maps, in their smallest size, against reference values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "map_nets.h"
#include "ref_kernels.h"

#include <math.h>
#include <stdio.h>

static void close_to(const char *what, double got, double want,
                     double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, expected %.9g +- %.2g", what, got, want, tolerance);
}

static double sum_of_squares(const float *x, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    return s;
}

/* --- reference values ---------------------------------------------------- */

/*
 * Forward and gradients of the diffusers modules with the same weights and
 * inputs, float32, to the digits given. Some thirty layers of rounding lie
 * between: 1e-5 of an element's size, 5e-5 of a gradient's.
 */
typedef struct Golden {
    const char *name;
    double sum, squares, first[4], last;
} Golden;

static void golden_net(MapNet *n, int which)
{
    *n = (MapNet) { .kind = which == 0  ? MAP_UNET
                            : which % 2 ? MAP_DECODE
                                        : MAP_ENCODE,
                    .unet_config = tiny_unet,
                    .vae_config = tiny_vae(which < 3 ? 4 : 16),
                    .batch = which == 0 ? 2 : 1,
                    .h = 16,
                    .w = 16,
                    .tokens = 7,
                    .t = { 981, 20 } };
    if (n->kind != MAP_UNET) {
        n->h = n->kind == MAP_ENCODE ? 48 : 6;
        n->w = n->kind == MAP_ENCODE ? 32 : 4;
        n->tokens = 0;
    }
    assert_int_equal(map_create(n), DG_OK);
}

enum { NETS = 5 }; /* the U-Net, 4-channel decode, encode, 16-channel both */

static const Golden goldens[NETS] = {
    { "unet",
      -109.8933,
      673.3144,
      { -0.191044, 0.218761, -0.185661, 0.131904 },
      -0.086936 },
    { "vae4 decode",
      -87.2522,
      1331.0447,
      { 0.051440, -0.130316, -0.002441, 0.095024 },
      0.294352 },
    { "vae4 encode",
      9.8376,
      54.3437,
      { -0.649886, -0.065543, -0.303266, 0.203275 },
      0.204402 },
    { "vae16 decode",
      144.1442,
      1353.3524,
      { 0.132862, -0.021051, 0.062953, 0.165648 },
      0.086443 },
    { "vae16 encode",
      -32.6628,
      255.4269,
      { -0.266855, 0.981506, -0.278552, 0.678584 },
      -0.262947 },
};

static void check_forward(const Golden *g, const Backend *backend, int which)
{
    MapOpts o = { .backend = backend };
    double sum = 0, rms;
    int64_t count;
    MapNet n;
    MapRun *r;

    golden_net(&n, which);
    o.count = n.batch;
    r = map_run_create(&n);
    assert_int_equal(map_run(&n, &o, r), DG_OK);
    count = n.batch * r->y_one;
    for (int64_t i = 0; i < count; i++)
        sum += r->y[i];
    rms = sqrt(g->squares / (double)count);
    close_to(g->name, sum, g->sum, (double)count * 1e-6);
    close_to(g->name, sum_of_squares(r->y, count), g->squares,
             g->squares * 2e-5);
    for (int i = 0; i < 4; i++)
        close_to(g->name, r->y[i], g->first[i], 1e-5 * rms + 1e-6);
    close_to(g->name, r->y[count - 1], g->last, 1e-5 * rms + 1e-6);
    map_run_destroy(r);
    map_destroy(&n);
}

static void test_forward_matches_reference(void **state)
{
    (void)state;
    for (int i = 0; i < NETS; i++)
        check_forward(&goldens[i], dg_backend_cpu(), i);
}

static void check_squares(const char *name, const float *g, int64_t count,
                          double squares, double first)
{
    const double rms = sqrt(squares / (double)count);

    close_to(name, sum_of_squares(g, count), squares, squares * 5e-5);
    close_to(name, g[0], first, 5e-5 * rms + 2e-6);
}

static void check_gradient(const MapNet *n, const MapRun *r, const char *name,
                           double squares, double first)
{
    const Param *p = dg_params_find(&n->set, name);

    assert_non_null(p);
    check_squares(name, r->grads + p->value.param_offset,
                  dg_tensor_count(&p->value), squares, first);
}

static void test_unet_gradients_match_reference(void **state)
{
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        const MapOpts o = { dg_backend_cpu(), 0, 2, 1, recompute };
        MapNet n;
        MapRun *r;

        golden_net(&n, 0);
        r = map_run_create(&n);
        assert_int_equal(map_run(&n, &o, r), DG_OK);
        close_to("loss", r->loss, -27.9313, 2e-4);
        check_gradient(&n, r, "conv_in.weight", 38577.65, -10.20356);
        check_gradient(&n, r,
                       "down_blocks.0.attentions.0.transformer_blocks.0.attn2."
                       "to_k.weight",
                       779.1537, 0.276312);
        check_gradient(&n, r, "mid_block.resnets.0.time_emb_proj.weight",
                       0.971151, 0.010085);
        check_gradient(&n, r, "up_blocks.3.resnets.2.norm1.weight", 54.8192,
                       -1.198419);
        check_squares("input.sample", r->dx, 2 * r->x_one, 1073.469, -0.461609);
        check_squares("input.context", r->dcontext, 2 * r->context_one,
                      390.0609, 0.423151);
        map_run_destroy(r);
        map_destroy(&n);
    }
}

static void test_decoder_gradients_match_reference(void **state)
{
    const MapOpts o = { dg_backend_cpu(), 0, 1, 1, 1 };
    MapNet n;
    MapRun *r;
    (void)state;

    golden_net(&n, 1);
    r = map_run_create(&n);
    assert_int_equal(map_run(&n, &o, r), DG_OK);
    close_to("loss", r->loss, 8.5112, 2e-4);
    check_gradient(&n, r, "decoder.conv_in.weight", 109232.7, -2.187673);
    check_gradient(&n, r, "decoder.mid_block.attentions.0.to_q.weight",
                   16724.39, -0.720487);
    check_squares("input.latent", r->dx, r->x_one, 2542.648, 5.472657);
    map_run_destroy(r);
    map_destroy(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_unet_gradients_match_reference),
        cmocka_unit_test(test_decoder_gradients_match_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
