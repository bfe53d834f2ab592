/*
 * Networks of odd small sizes against the diffusers modules: outputs and the
 * gradients of all parameters and inputs, kept in tests/golden (where
 * make_golden.py says how they came about).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "map_nets.h"
#include "models/flux_transformer.h"

#include <math.h>
#include <stdio.h>

enum { LINE = 256, MAX_GRADS = 700, MAX_INPUTS = 3, MAX_VALUES = 8 };

typedef struct Expected {
    char name[DG_PARAM_NAME];
    long long count;
    double squares, first;
} Expected;

typedef struct Golden {
    char text[32][LINE]; /* size lines */
    int num_sizes, num_grads, num_inputs;
    long long y_count;
    double y_sum, y_squares, y_first, y_last;
    Expected inputs[MAX_INPUTS], grads[MAX_GRADS];
} Golden;

/* --- reading -------------------------------------------------------------- */

static void read_line(Golden *g, const char *line)
{
    Expected e;

    if (line[0] == '#')
        return;
    if (strncmp(line, "size ", 5) == 0) {
        assert_true(g->num_sizes < 32);
        strcpy(g->text[g->num_sizes++], line + 5);
    } else if (sscanf(line, "y %lld %lf %lf %lf %lf", &g->y_count, &g->y_sum,
                      &g->y_squares, &g->y_first, &g->y_last) == 5) {
    } else if (sscanf(line, "input %127s %lld %lf %lf", e.name, &e.count,
                      &e.squares, &e.first) == 4) {
        assert_true(g->num_inputs < MAX_INPUTS);
        g->inputs[g->num_inputs++] = e;
    } else if (sscanf(line, "grad %127s %lld %lf %lf", e.name, &e.count,
                      &e.squares, &e.first) == 4) {
        assert_true(g->num_grads < MAX_GRADS);
        g->grads[g->num_grads++] = e;
    } else {
        fail_msg("line not understood: %s", line);
    }
}

static Golden *golden_read(const char *name)
{
    Golden *g = calloc(1, sizeof *g);
    char path[LINE], line[LINE];
    FILE *f;

    snprintf(path, sizeof path, "tests/golden/%s.txt", name);
    f = fopen(path, "r");
    if (f == NULL || g == NULL)
        fail_msg("%s cannot be read", path);
    while (fgets(line, sizeof line, f) != NULL)
        read_line(g, line);
    fclose(f);
    assert_true(g->num_grads > 0 && g->y_count > 0);
    return g;
}

/* Values of a size line; their number. */
static int sizes(const Golden *g, const char *key, double *values)
{
    const size_t n = strlen(key);
    int num = 0, used;

    for (int i = 0; i < g->num_sizes; i++) {
        const char *at = g->text[i] + n;

        if (strncmp(g->text[i], key, n) != 0 || *at != ' ')
            continue;
        while (num < MAX_VALUES &&
               sscanf(at, "%lf%n", &values[num], &used) == 1) {
            at += used;
            num++;
        }
        return num;
    }
    fail_msg("no size %s", key);
    return 0;
}

static int64_t size(const Golden *g, const char *key)
{
    double values[MAX_VALUES];

    assert_int_equal(sizes(g, key, values), 1);
    return (int64_t)values[0];
}

static int size_list(const Golden *g, const char *key, int64_t *out)
{
    double values[MAX_VALUES];
    const int num = sizes(g, key, values);

    for (int i = 0; i < num; i++)
        out[i] = (int64_t)values[i];
    return num;
}

static void flag_list(const Golden *g, const char *key, int *out)
{
    int64_t values[MAX_VALUES];
    const int num = size_list(g, key, values);

    for (int i = 0; i < num; i++)
        out[i] = (int)values[i];
}

static void float_list(const Golden *g, const char *key, float *out)
{
    double values[MAX_VALUES];
    const int num = sizes(g, key, values);

    for (int i = 0; i < num; i++)
        out[i] = (float)values[i];
}

/* --- comparing ------------------------------------------------------------ */

static double norm(const float *x, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    return sqrt(s);
}

static void close_to(const char *what, double got, double want,
                     double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, expected %.9g +- %.2g", what, got, want, tolerance);
}

/* Both sides round in float32, in other orders: some forty layers, 5e-5 of a
 * tensor's own length; and where a gradient is a sum that cancels (biases of
 * keys, which softmax does not see) four units of 2^-24 of all gradients. */
static void compare(const Expected *e, const float *g, double all)
{
    const double want = sqrt(e->squares), got = norm(g, e->count);
    const double floor = 4 * 0x1p-24 * all;

    close_to(e->name, got, want, 5e-5 * want + floor);
    close_to(e->name, g[0], e->first,
             1e-4 * want / sqrt((double)e->count) + floor);
}

static void compare_output(const Golden *g, const float *y)
{
    const double size = sqrt(g->y_squares);
    const double rms = size / sqrt((double)g->y_count);
    double sum = 0;

    for (int64_t i = 0; i < g->y_count; i++)
        sum += y[i];
    close_to("y", norm(y, g->y_count), size, 1e-5 * size);
    close_to("sum of y", sum, g->y_sum, 1e-5 * size);
    close_to("y[0]", y[0], g->y_first, 1e-5 * rms + 1e-6);
    close_to("last y", y[g->y_count - 1], g->y_last, 1e-5 * rms + 1e-6);
}

static void compare_params(const Golden *g, const ParamSet *set,
                           const float *grads)
{
    double all = 0;

    assert_int_equal(set->num_params, g->num_grads);
    for (int i = 0; i < g->num_grads; i++)
        all += g->grads[i].squares;
    for (int i = 0; i < g->num_grads; i++) {
        const Param *p = dg_params_find(set, g->grads[i].name);

        if (p == NULL)
            fail_msg("no parameter %s", g->grads[i].name);
        assert_true(dg_tensor_count(&p->value) == g->grads[i].count);
        compare(&g->grads[i], grads + p->value.param_offset, sqrt(all));
    }
}

/* --- networks on maps ------------------------------------------------------ */

static UnetConfig unet_config(const Golden *g)
{
    UnetConfig c = { .in_channels = size(g, "in_channels"),
                     .out_channels = size(g, "out_channels"),
                     .layers_per_block = (int)size(g, "layers_per_block"),
                     .attention_head_dim = size(g, "attention_head_dim"),
                     .cross_attention_dim = size(g, "cross_attention_dim"),
                     .norm_num_groups = size(g, "norm_num_groups") };

    c.num_levels = size_list(g, "block_out_channels", c.block_out_channels);
    flag_list(g, "down_attention", c.down_attention);
    flag_list(g, "up_attention", c.up_attention);
    return c;
}

static VaeConfig vae_config(const Golden *g)
{
    VaeConfig c = { .in_channels = size(g, "in_channels"),
                    .out_channels = size(g, "out_channels"),
                    .layers_per_block = (int)size(g, "layers_per_block"),
                    .latent_channels = size(g, "latent_channels"),
                    .norm_num_groups = size(g, "norm_num_groups"),
                    .use_quant_conv = (int)size(g, "use_quant_conv"),
                    .use_post_quant_conv = (int)size(g, "use_post_quant_conv"),
                    .scaling_factor = 1 };

    c.num_levels = size_list(g, "block_out_channels", c.block_out_channels);
    return c;
}

static void check_map(const char *name, int is_unet)
{
    Golden *g = golden_read(name);
    MapNet n = { .batch = size(g, "batch"),
                 .h = size(g, "h"),
                 .w = size(g, "w") };
    MapOpts o = { dg_backend_cpu(), 0, n.batch, 1, 1 };
    MapRun *r;

    if (is_unet) {
        n.unet_config = unet_config(g);
        n.tokens = size(g, "tokens");
        float_list(g, "t", n.t);
    } else {
        n.vae_config = vae_config(g);
        n.kind = size(g, "encode") ? MAP_ENCODE : MAP_DECODE;
    }
    assert_int_equal(map_create(&n), DG_OK);
    r = map_run_create(&n);
    assert_true(g->y_count == n.batch * r->y_one);
    assert_int_equal(map_run(&n, &o, r), DG_OK);
    compare_output(g, r->y);
    compare(&g->inputs[0], r->dx, 0);
    if (is_unet)
        compare(&g->inputs[1], r->dcontext, 0);
    compare_params(g, &n.set, r->grads);
    map_run_destroy(r);
    map_destroy(&n);
    free(g);
}

static void test_unets_agree_with_diffusers(void **state)
{
    (void)state;
    check_map("unet_wide", 1);
    check_map("unet_mixed", 1);
    check_map("unet_odd", 1); /* sides that halve to fractions */
}

static void test_autoencoders_agree_with_diffusers(void **state)
{
    (void)state;
    check_map("vae_quant_decode", 0);
    check_map("vae_quant_encode", 0);
    check_map("vae_plain_decode", 0);
    check_map("vae_plain_encode", 0);
    check_map("vae_odd_encode", 0); /* sides that halve to fractions */
}

/* --- the FLUX transformer --------------------------------------------------- */

typedef struct Flux {
    FluxConfig c;
    int64_t batch, h, w, tokens;
    float t[MAX_VALUES], guidance[MAX_VALUES];
    ParamSet set;
    FluxTransformer *net;
} Flux;

static void flux_open(Flux *f, const Golden *g)
{
    f->c = (FluxConfig) {
        .in_channels = size(g, "in_channels"),
        .num_layers = (int)size(g, "num_layers"),
        .num_single_layers = (int)size(g, "num_single_layers"),
        .attention_head_dim = size(g, "attention_head_dim"),
        .num_attention_heads = size(g, "num_attention_heads"),
        .joint_attention_dim = size(g, "joint_attention_dim"),
        .pooled_projection_dim = size(g, "pooled_projection_dim"),
        .guidance_embeds = (int)size(g, "guidance_embeds"),
    };
    assert_int_equal(size_list(g, "axes_dims_rope", f->c.axes_dims_rope), 3);
    f->batch = size(g, "batch");
    f->h = size(g, "h");
    f->w = size(g, "w");
    f->tokens = size(g, "tokens");
    float_list(g, "t", f->t);
    float_list(g, "guidance", f->guidance);
    dg_params_init(&f->set, 1);
    assert_int_equal(dg_flux_create(&f->net, &f->c, &f->set, ""), DG_OK);
    assert_int_equal(dg_flux_prepare(f->net, f->h, f->w, f->tokens), DG_OK);
    assert_int_equal(dg_params_allocate(&f->set, NULL), DG_OK);
    dg_params_fill_golden(&f->set, NULL);
}

static Tensor *golden_input(Context *ctx, const char *key, int num_dims,
                            const int64_t *dims)
{
    int64_t count = 1;
    float *values;
    Tensor *t;

    for (int i = 0; i < num_dims; i++)
        count *= dims[i];
    values = map_floats(count);
    dg_golden_input(values, count, key);
    t = dg_op_input(ctx, values, num_dims, dims);
    dg_tape_watch(t);
    free(values);
    return t;
}

static void flux_check(const Flux *f, const Golden *g)
{
    const int64_t N = f->h * f->w, B = f->batch;
    const int64_t hidden[3] = { B, N, f->c.in_channels };
    const int64_t context[3] = { B, f->tokens, f->c.joint_attention_dim };
    const int64_t pooled[2] = { B, f->c.pooled_projection_dim };
    FluxInputs in = {
        .t = f->t, .guidance = f->guidance, .grid_h = f->h, .grid_w = f->w
    };
    float *grads = map_floats(f->set.count);
    Context ctx;
    Tensor *y;

    assert_int_equal(dg_context_init(&ctx, dg_backend_cpu(), MAP_ARENA), DG_OK);
    dg_context_train(&ctx, 1, grads, 1);
    ctx.recompute = 1;
    dg_tape_begin(&ctx);
    in.hidden = golden_input(&ctx, "input.hidden", 3, hidden);
    in.context = golden_input(&ctx, "input.context", 3, context);
    in.pooled = golden_input(&ctx, "input.pooled", 2, pooled);
    y = dg_flux_forward(f->net, &ctx, &in);
    assert_int_equal(dg_context_error(&ctx), DG_OK);
    assert_true(g->y_count == dg_tensor_count(y));
    compare_output(g, y->data);
    dg_tape_backward(&ctx, y, golden_input(&ctx, "loss.w", 3, y->dims));
    assert_int_equal(dg_context_error(&ctx), DG_OK);
    compare(&g->inputs[0], in.hidden->grad->data, 0);
    compare(&g->inputs[1], in.context->grad->data, 0);
    compare(&g->inputs[2], in.pooled->grad->data, 0);
    compare_params(g, &f->set, grads);
    dg_context_fini(&ctx);
    free(grads);
}

static void test_flux_agrees_with_diffusers(void **state)
{
    static const char *const names[2] = { "flux_dev", "flux_schnell" };
    (void)state;

    for (int i = 0; i < 2; i++) {
        Golden *g = golden_read(names[i]);
        Flux f = { 0 };

        flux_open(&f, g);
        flux_check(&f, g);
        dg_flux_destroy(f.net);
        dg_params_fini(&f.set);
        free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unets_agree_with_diffusers),
        cmocka_unit_test(test_autoencoders_agree_with_diffusers),
        cmocka_unit_test(test_flux_agrees_with_diffusers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
