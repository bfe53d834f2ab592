/* The networks on maps, in their smallest size, against reference values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "map_nets.h"
#include "net_checks.h"
#include "ref_kernels.h"

#include <math.h>
#include <stdio.h>

/* The smallest sizes with every branch. */
static const UnetConfig tiny_unet = { .in_channels = 4,
                                      .out_channels = 4,
                                      .num_levels = 4,
                                      .block_out_channels = { 32, 48, 64, 64 },
                                      .down_attention = { 1, 1, 1, 0 },
                                      .up_attention = { 0, 1, 1, 1 },
                                      .layers_per_block = 2,
                                      .attention_head_dim = 4,
                                      .cross_attention_dim = 24,
                                      .norm_num_groups = 8 };

static VaeConfig tiny_vae(int64_t latent_channels)
{
    const VaeConfig large = latent_channels == 4 ? dg_vae_sd1() : dg_vae_flux();
    VaeConfig c = large;

    for (int i = 0; i < 4; i++)
        c.block_out_channels[i] /= 8;
    c.norm_num_groups = 8;
    return c;
}

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

/* --- the public sizes, counted without memory ----------------------------- */

static void expect_shape(const ParamSet *s, const char *name, int num_dims,
                         const int64_t *dims)
{
    const Param *p = dg_params_find(s, name);

    if (p == NULL)
        fail_msg("no parameter %s", name);
    assert_int_equal(p->value.num_dims, num_dims);
    for (int i = 0; i < num_dims; i++)
        assert_true(p->value.dims[i] == dims[i]);
}

static void test_public_unet_has_its_sizes(void **state)
{
    const UnetConfig c = dg_unet_sd1();
    ParamSet s;
    Unet *m;
    (void)state;

    dg_params_init(&s, 1);
    assert_int_equal(dg_unet_create(&m, &c, &s, ""), DG_OK);
    dg_unet_destroy(m);
    expect_shape(&s, "up_blocks.3.resnets.0.conv1.weight", 4,
                 (int64_t[]) { 320, 960, 3, 3 });
    expect_shape(&s, "up_blocks.1.resnets.2.conv_shortcut.weight", 4,
                 (int64_t[]) { 1280, 1920, 1, 1 });
    expect_shape(&s, "mid_block.attentions.0.proj_in.weight", 4,
                 (int64_t[]) { 1280, 1280, 1, 1 });
    expect_shape(&s,
                 "down_blocks.2.attentions.1.transformer_blocks.0.ff.net.0."
                 "proj.bias",
                 1, (int64_t[]) { 10240 });
    /* lent one by one: 22 residual blocks and 16 transformers */
    assert_int_equal(s.num_groups, 38);
    check_count(&s, 686, 859520964);
}

static void test_public_vaes_have_their_sizes(void **state)
{
    const VaeConfig sd = dg_vae_sd1(), flux = dg_vae_flux();
    ParamSet s;
    Vae *m;
    (void)state;

    dg_params_init(&s, 1);
    assert_int_equal(dg_vae_create(&m, &sd, DG_VAE_BOTH, &s, ""), DG_OK);
    dg_vae_destroy(m);
    expect_shape(&s, "quant_conv.weight", 4, (int64_t[]) { 8, 8, 1, 1 });
    check_count(&s, 248, 83653863);
    dg_params_init(&s, 1);
    assert_int_equal(dg_vae_create(&m, &flux, DG_VAE_BOTH, &s, "vae."), DG_OK);
    dg_vae_destroy(m);
    expect_shape(&s, "vae.decoder.up_blocks.2.upsamplers.0.conv.weight", 4,
                 (int64_t[]) { 256, 256, 3, 3 });
    check_count(&s, 244, 83819683);
}

/* A forward pass of a public network in a plan: its operations. */
static double plan_flops(MapNet *n, size_t *bytes)
{
    Tensor *x, *context;
    Backend plan;
    Context ctx;
    MapOpts o = { &plan, 0, 1, 0, 0 };
    double flops;

    dg_backend_plan(&plan, dg_backend_cpu());
    dg_params_init(&n->set, 1);
    if (n->kind == MAP_UNET)
        assert_int_equal(dg_unet_create(&n->unet, &n->unet_config, &n->set, ""),
                         DG_OK);
    else
        assert_int_equal(
            dg_vae_create(&n->vae, &n->vae_config, DG_VAE_BOTH, &n->set, ""),
            DG_OK);
    assert_int_equal(dg_context_init(&ctx, &plan, 0), DG_OK);
    assert_null(map_forward(&ctx, n, &o, &x, &context)->data);
    assert_int_equal(dg_context_error(&ctx), DG_OK);
    flops = (double)ctx.flops;
    *bytes = ctx.arena.peak;
    dg_context_fini(&ctx);
    map_destroy(n);
    return flops;
}

/* The figures are those of the public models, counted by hand: a U-Net of
 * 64 x 64 latents, the auto-encoder of 512 x 512 pixels. */
static void test_full_size_plan_counts_flops(void **state)
{
    MapNet unet = { .kind = MAP_UNET,
                    .unet_config = dg_unet_sd1(),
                    .batch = 1,
                    .h = 64,
                    .w = 64,
                    .tokens = 77,
                    .t = { 500 } };
    MapNet decode = { .kind = MAP_DECODE,
                      .vae_config = dg_vae_sd1(),
                      .batch = 1,
                      .h = 64,
                      .w = 64 };
    MapNet encode = { .kind = MAP_ENCODE,
                      .vae_config = dg_vae_sd1(),
                      .batch = 1,
                      .h = 512,
                      .w = 512 };
    size_t bytes;
    (void)state;

    close_to("unet", plan_flops(&unet, &bytes), 0.803e12, 0.003e12);
    close_to("vae decode", plan_flops(&decode, &bytes), 2.51e12, 0.01e12);
    /* without a tape levels give their maps back: the widest residual block,
     * its level and what led there, in maps of 256 channels at 512 x 512 */
    assert_true((double)bytes < 6.5 * 256 * 512 * 512 * 4);
    close_to("vae encode", plan_flops(&encode, &bytes), 1.12e12, 0.01e12);
}

/* --- promises --------------------------------------------------------------- */

static void assert_same(const MapNet *n, const MapRun *a, const MapRun *b)
{
    const size_t size = (size_t)n->batch * sizeof(float);

    assert_memory_equal(a->y, b->y, size * (size_t)a->y_one);
    assert_memory_equal(a->dx, b->dx, size * (size_t)a->x_one);
    assert_memory_equal(a->dcontext, b->dcontext,
                        size * (size_t)a->context_one);
    assert_same_grads(&n->set, a->grads, b->grads);
}

static MapRun *run_new(const MapNet *n, const MapOpts *o)
{
    MapRun *r = map_run_create(n);

    assert_int_equal(map_run(n, o, r), DG_OK);
    return r;
}

/* The nets of the promises: two samples, maps that are not square. */
static void promise_net(MapNet *n, int which)
{
    golden_net(n, which);
    n->batch = 2;
    n->h += n->kind == MAP_DECODE ? 1 : 8;
}

static void test_batch_is_its_samples_bit_for_bit(void **state)
{
    MapOpts o = { dg_backend_cpu(), 0, 0, 1, 1 };
    (void)state;

    for (int i = 0; i < 3; i++) {
        MapRun *batch, *single;
        MapNet n;

        promise_net(&n, i);
        o.first = 0;
        o.count = 2;
        batch = run_new(&n, &o);
        o.count = 1;
        single = run_new(&n, &o);
        o.first = 1;
        assert_int_equal(map_run(&n, &o, single), DG_OK);
        assert_same(&n, batch, single);
        map_run_destroy(batch);
        map_run_destroy(single);
        map_destroy(&n);
    }
}

static void test_recompute_gives_the_same_bits(void **state)
{
    (void)state;

    for (int i = 0; i < 3; i++) {
        MapOpts o = { dg_backend_cpu(), 0, 2, 1, 0 };
        MapRun *kept, *again, *plain;
        MapNet n;

        promise_net(&n, i);
        kept = run_new(&n, &o);
        o.recompute = 1;
        again = run_new(&n, &o);
        assert_same(&n, kept, again);
        assert_true(again->peak < kept->peak);
        o.record = 0; /* a rollout has no tape */
        plain = run_new(&n, &o);
        assert_memory_equal(kept->y, plain->y,
                            (size_t)(2 * kept->y_one) * sizeof(float));
        map_run_destroy(kept);
        map_run_destroy(again);
        map_run_destroy(plain);
        map_destroy(&n);
    }
}

static void test_plan_counts_the_run_exactly(void **state)
{
    Backend plan;
    (void)state;

    dg_backend_plan(&plan, dg_backend_cpu());
    for (int i = 0; i < 9; i++) {
        MapOpts o = { dg_backend_cpu(), 0, 2, i % 3 > 0, i % 3 > 1 };
        MapRun *real, *counted;
        MapNet n;

        promise_net(&n, i / 3);
        real = run_new(&n, &o);
        o.backend = &plan;
        counted = run_new(&n, &o);
        assert_true(real->peak == counted->peak);
        assert_true(real->flops == counted->flops);
        map_run_destroy(real);
        map_run_destroy(counted);
        map_destroy(&n);
    }
}

/* --- what is refused --------------------------------------------------------- */

static void refuse_unet(const UnetConfig *c, const char *word)
{
    Unet *m = NULL;
    ParamSet s;

    dg_params_init(&s, 1);
    assert_int_equal(dg_unet_create(&m, c, &s, ""), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, word));
    assert_null(m);
    dg_params_fini(&s);
}

static void test_bad_configs_are_refused(void **state)
{
    UnetConfig c = tiny_unet;
    VaeConfig v = tiny_vae(4);
    ParamSet s;
    Vae *m = NULL;
    (void)state;

    c.block_out_channels[2] = 60;
    refuse_unet(&c, "block_out_channels[2]");
    c = tiny_unet;
    c.num_levels = 9;
    refuse_unet(&c, "block_out_channels");
    c = tiny_unet;
    c.cross_attention_dim = 0;
    refuse_unet(&c, "sizes");
    c = tiny_unet;
    c.attention_head_dim = 5;
    refuse_unet(&c, "multiple of norm_num_groups = 8 and of "
                    "attention_head_dim = 5");
    c = tiny_unet;
    c.norm_num_groups = c.attention_head_dim = 1;
    c.block_out_channels[0] = 33;
    refuse_unet(&c, "block_out_channels[0] = 33: must be even");
    c = tiny_unet;
    c.norm_eps = -1e-5;
    refuse_unet(&c, "norm_eps");
    v.scaling_factor = 0;
    dg_params_init(&s, 1);
    assert_int_equal(dg_vae_create(&m, &v, DG_VAE_BOTH, &s, ""), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "scaling_factor"));
    dg_params_fini(&s);
}

static void test_bad_sizes_are_refused(void **state)
{
    const MapOpts o = { dg_backend_cpu(), 0, 1, 0, 0 };
    MapNet n;
    MapRun *r;
    (void)state;

    golden_net(&n, 2);
    n.h = 4;
    r = map_run_create(&n);
    assert_int_equal(map_run(&n, &o, r), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "at least 8"));
    map_run_destroy(r);
    map_destroy(&n);
    golden_net(&n, 0);
    n.unet_config.in_channels = 3; /* of what it is given */
    r = map_run_create(&n);
    assert_int_equal(map_run(&n, &o, r), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "sample of 3 channels"));
    map_run_destroy(r);
    n.unet_config.in_channels = 4;
    n.unet_config.cross_attention_dim = 20;
    r = map_run_create(&n);
    assert_int_equal(map_run(&n, &o, r), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "context of width 20"));
    map_run_destroy(r);
    map_destroy(&n);
}

static int num_norms[2]; /* of a transformer's eps, of the residual blocks' */

static void watched_norm(const GroupNormArgs *a)
{
    const int other = a->eps == 0.25f;

    assert_true(other || a->eps == 1e-6f);
    num_norms[other]++;
    dg_backend_cpu()->group_norm(a);
}

/* All norms but those at a transformer's beginning have the folder's eps. */
static void test_norms_have_their_eps(void **state)
{
    Backend watched = *dg_backend_cpu();
    const MapOpts o = { &watched, 0, 1, 0, 0 };
    MapNet n;
    MapRun *r;
    (void)state;

    watched.group_norm = watched_norm;
    golden_net(&n, 0);
    map_destroy(&n);
    n.unet_config.norm_eps = 0.25;
    assert_int_equal(map_create(&n), DG_OK);
    r = map_run_create(&n);
    assert_int_equal(map_run(&n, &o, r), DG_OK);
    assert_int_equal(num_norms[0], 16);
    assert_int_equal(num_norms[1], 2 * 22 + 1);
    map_run_destroy(r);
    map_destroy(&n);
}

/* (z - shift) scale and back, with the public factors of FLUX.1 */
static void test_latents_are_scaled_and_back(void **state)
{
    const VaeConfig c = dg_vae_flux();
    float z[2] = { 1.1159f, -0.8841f };
    (void)state;

    dg_vae_to_model(&c, z, 2);
    close_to("scaled", z[0], 0.3611, 1e-7);
    close_to("scaled", z[1], -0.3611, 1e-7);
    dg_vae_from_model(&c, z, 2);
    close_to("back", z[0], 1.1159, 1e-6);
    close_to("back", z[1], -0.8841, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_unet_gradients_match_reference),
        cmocka_unit_test(test_decoder_gradients_match_reference),
        cmocka_unit_test(test_public_unet_has_its_sizes),
        cmocka_unit_test(test_public_vaes_have_their_sizes),
        cmocka_unit_test(test_full_size_plan_counts_flops),
        cmocka_unit_test(test_batch_is_its_samples_bit_for_bit),
        cmocka_unit_test(test_recompute_gives_the_same_bits),
        cmocka_unit_test(test_plan_counts_the_run_exactly),
        cmocka_unit_test(test_bad_configs_are_refused),
        cmocka_unit_test(test_bad_sizes_are_refused),
        cmocka_unit_test(test_norms_have_their_eps),
        cmocka_unit_test(test_latents_are_scaled_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
