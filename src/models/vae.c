#include "models/vae.h"

#include "base/error.h"
#include "nn/resnet.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <stdlib.h>

#define EPS 1e-6f

/* Attention among pixels in the middle, with a single head. */
typedef struct MidAttention {
    Norm norm;
    Linear q, k, v, out;
    int64_t groups;
} MidAttention;

typedef struct Middle {
    Resnet first, last;
    MidAttention attention;
} Middle;

typedef struct Level {
    Resnet *resnets;
    int num_resnets;
    Conv resample; /* w NULL at the end of the way */
    int up;
} Level;

typedef struct Half {
    int made;
    Conv conv_in, conv_out;
    Level levels[DG_VAE_MAX_LEVELS];
    Middle mid;
    Norm norm_out;
    Linear quant; /* w NULL: none */
    Resnet *memory;
} Half;

struct Vae {
    VaeConfig c;
    Half encoder, decoder;
};

VaeConfig dg_vae_sd1(void)
{
    return (VaeConfig) { .in_channels = 3,
                         .out_channels = 3,
                         .num_levels = 4,
                         .block_out_channels = { 128, 256, 512, 512 },
                         .layers_per_block = 2,
                         .latent_channels = 4,
                         .norm_num_groups = 32,
                         .use_quant_conv = 1,
                         .use_post_quant_conv = 1,
                         .scaling_factor = 0.18215 };
}

VaeConfig dg_vae_flux(void)
{
    VaeConfig c = dg_vae_sd1();

    c.latent_channels = 16;
    c.use_quant_conv = c.use_post_quant_conv = 0;
    c.scaling_factor = 0.3611;
    c.shift_factor = 0.1159;
    return c;
}

/* --- creation ----------------------------------------------------------- */

static int check_config(const VaeConfig *c)
{
    if (c->num_levels < 1 || c->num_levels > DG_VAE_MAX_LEVELS)
        return dg_fail(DG_EINVAL, "vae block_out_channels: %d entries, 1 to %d",
                       c->num_levels, DG_VAE_MAX_LEVELS);
    if (c->in_channels < 1 || c->out_channels < 1 || c->layers_per_block < 1 ||
        c->latent_channels < 1 || c->norm_num_groups < 1)
        return dg_fail(DG_EINVAL, "vae config: sizes must be >= 1");
    if (!(c->scaling_factor > 0))
        return dg_fail(DG_EINVAL, "vae scaling_factor = %g: must be positive",
                       c->scaling_factor);
    for (int i = 0; i < c->num_levels; i++)
        if (c->block_out_channels[i] < 1 ||
            c->block_out_channels[i] % c->norm_num_groups)
            return dg_fail(DG_EINVAL,
                           "vae block_out_channels[%d] = %lld: must be a "
                           "multiple of norm_num_groups = %lld",
                           i, (long long)c->block_out_channels[i],
                           (long long)c->norm_num_groups);
    return DG_OK;
}

static void add_resnet(const Vae *m, Resnet *r, LayerPath *p, int index,
                       int64_t in, int64_t out)
{
    const size_t mark = dg_path_enter(p, "resnets.%d", index);

    dg_layer_resnet(r, p,
                    &(ResnetOpts) { in, out, 0, m->c.norm_num_groups, EPS });
    dg_path_leave(p, mark);
}

static void add_middle(const Vae *m, Middle *mid, LayerPath *p, int64_t width)
{
    const size_t mark = dg_path_enter(p, "mid_block");
    MidAttention *a = &mid->attention;
    size_t inner;

    add_resnet(m, &mid->first, p, 0, width, width);
    inner = dg_path_enter(p, "attentions.0");
    a->groups = m->c.norm_num_groups;
    a->norm = dg_layer_layer_norm(p, "group_norm", width);
    a->q = dg_layer_linear(p, "to_q", width, width, 1, DG_INIT_XAVIER);
    a->k = dg_layer_linear(p, "to_k", width, width, 1, DG_INIT_XAVIER);
    a->v = dg_layer_linear(p, "to_v", width, width, 1, DG_INIT_XAVIER);
    a->out = dg_layer_linear(p, "to_out.0", width, width, 1, DG_INIT_XAVIER);
    dg_path_leave(p, inner);
    add_resnet(m, &mid->last, p, 1, width, width);
    dg_path_leave(p, mark);
}

/* Level i of a half, wide in, out; it ends with a change of size unless it
 * is the last. */
static void add_level(const Vae *m, Level *l, LayerPath *p, int i, int64_t in,
                      int64_t out)
{
    const size_t mark =
        dg_path_enter(p, "%s.%d", l->up ? "up_blocks" : "down_blocks", i);

    for (int j = 0; j < l->num_resnets; j++, in = out)
        add_resnet(m, &l->resnets[j], p, j, in, out);
    if (i + 1 < m->c.num_levels)
        l->resample = dg_layer_conv(
            p, l->up ? "upsamplers.0.conv" : "downsamplers.0.conv", out, out, 3,
            DG_INIT_NORMAL_FAN);
    dg_path_leave(p, mark);
}

static int reserve_levels(const Vae *m, Half *h, int up)
{
    const int layers = m->c.layers_per_block + up;

    h->made = 1;
    h->memory =
        calloc((size_t)m->c.num_levels * (size_t)layers, sizeof *h->memory);
    if (h->memory == NULL)
        return dg_fail(DG_ENOMEM, "vae");
    for (int i = 0; i < m->c.num_levels; i++) {
        h->levels[i].up = up;
        h->levels[i].num_resnets = layers;
        h->levels[i].resnets = h->memory + i * layers;
    }
    return DG_OK;
}

static void add_encoder(Vae *m, LayerPath *p)
{
    const VaeConfig *c = &m->c;
    const int64_t *width = c->block_out_channels, z2 = 2 * c->latent_channels;
    const int64_t top = width[c->num_levels - 1];
    const size_t mark = dg_path_enter(p, "encoder");
    Half *h = &m->encoder;

    h->conv_in = dg_layer_conv(p, "conv_in", c->in_channels, width[0], 3,
                               DG_INIT_NORMAL_FAN);
    for (int i = 0; i < c->num_levels; i++)
        add_level(m, &h->levels[i], p, i, width[i > 0 ? i - 1 : 0], width[i]);
    add_middle(m, &h->mid, p, top);
    h->norm_out = dg_layer_layer_norm(p, "conv_norm_out", top);
    h->conv_out = dg_layer_conv(p, "conv_out", top, z2, 3, DG_INIT_NORMAL_FAN);
    dg_path_leave(p, mark);
    if (c->use_quant_conv)
        h->quant = dg_layer_conv1(p, "quant_conv", z2, z2, DG_INIT_NORMAL_FAN);
}

static void add_decoder(Vae *m, LayerPath *p)
{
    const VaeConfig *c = &m->c;
    const int64_t *width = c->block_out_channels, z = c->latent_channels;
    const int last = c->num_levels - 1;
    size_t mark;
    Half *h = &m->decoder;

    if (c->use_post_quant_conv)
        h->quant =
            dg_layer_conv1(p, "post_quant_conv", z, z, DG_INIT_NORMAL_FAN);
    mark = dg_path_enter(p, "decoder");
    h->conv_in =
        dg_layer_conv(p, "conv_in", z, width[last], 3, DG_INIT_NORMAL_FAN);
    add_middle(m, &h->mid, p, width[last]);
    for (int i = 0; i <= last; i++)
        add_level(m, &h->levels[i], p, i, width[i > 0 ? last - i + 1 : last],
                  width[last - i]);
    h->norm_out = dg_layer_layer_norm(p, "conv_norm_out", width[0]);
    h->conv_out = dg_layer_conv(p, "conv_out", width[0], c->out_channels, 3,
                                DG_INIT_NORMAL_FAN);
    dg_path_leave(p, mark);
}

int dg_vae_create(Vae **out, const VaeConfig *c, VaeParts parts, ParamSet *set,
                  const char *prefix)
{
    LayerPath p;
    Vae *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "vae");
    m->c = *c;
    dg_path_init(&p, set, prefix);
    if (parts & DG_VAE_ENCODER)
        err = reserve_levels(m, &m->encoder, 0);
    if (!err && parts & DG_VAE_DECODER)
        err = reserve_levels(m, &m->decoder, 1);
    if (!err && m->encoder.made)
        add_encoder(m, &p);
    if (!err && m->decoder.made)
        add_decoder(m, &p);
    if (!err)
        err = p.err;
    if (err) {
        dg_vae_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_vae_destroy(Vae *m)
{
    if (m == NULL)
        return;
    free(m->encoder.memory);
    free(m->decoder.memory);
    free(m);
}

const VaeConfig *dg_vae_config(const Vae *m)
{
    return &m->c;
}

/* --- forward ------------------------------------------------------------ */

/* in = { x }, out = { x } */
static void attention_block(Context *ctx, const void *args, Tensor *const *in,
                            Tensor **out)
{
    const MidAttention *a = *(const MidAttention *const *)args;
    const AttentionOpts opts = { .heads = 1 };
    Tensor *x = in[0], *h, *q, *k, *v;
    const int64_t tokens[3] = { x->dims[0], x->dims[1] * x->dims[2],
                                x->dims[3] };

    h = dg_op_group_norm(ctx, x, a->norm.w, a->norm.b,
                         &(GroupNormOpts) { a->groups, EPS, DG_ACT_NONE });
    h = dg_op_reshape(ctx, h, 3, tokens);
    q = dg_linear(ctx, h, &a->q, DG_ACT_NONE);
    k = dg_linear(ctx, h, &a->k, DG_ACT_NONE);
    v = dg_linear(ctx, h, &a->v, DG_ACT_NONE);
    h = dg_op_attention(ctx, q, k, v, &opts);
    h = dg_linear(ctx, h, &a->out, DG_ACT_NONE);
    h = dg_op_reshape(ctx, h, 4, x->dims);
    out[0] = dg_op_add(ctx, x, h);
}

static Tensor *run_middle(Context *ctx, const Middle *mid, Tensor *x)
{
    const MidAttention *a = &mid->attention;
    TapeBlock b = { .fn = attention_block,
                    .args = &a,
                    .args_bytes = sizeof a,
                    .num_in = 1,
                    .num_out = 1 };

    dg_scope_push(ctx, "mid_block", -1);
    x = dg_resnet(ctx, &mid->first, x, NULL, NULL);
    if (x != NULL) {
        b.in[0] = x;
        dg_tape_block(ctx, &b, &x);
    }
    x = dg_resnet(ctx, &mid->last, x, NULL, NULL);
    dg_scope_pop(ctx);
    return x;
}

/* in = { x }, out = { x at the next level } */
static void level_block(Context *ctx, const void *args, Tensor *const *in,
                        Tensor **out)
{
    const Level *l = *(const Level *const *)args;
    Tensor *x = in[0];

    for (int j = 0; j < l->num_resnets; j++) {
        dg_scope_push(ctx, "resnets", j);
        x = dg_resnet(ctx, &l->resnets[j], x, NULL, NULL);
        dg_scope_pop(ctx);
    }
    if (l->resample.w != NULL && l->up)
        x = dg_conv_up(ctx, x, &l->resample);
    else if (l->resample.w != NULL) /* zeros below and to the right alone */
        x = dg_op_conv2d(ctx, x, l->resample.w, l->resample.b,
                         &(ConvOpts) { 2, 0, 0, 1, 1, 0, 0, 0 });
    out[0] = x;
}

/* With a tape the residual blocks are the tape's blocks. Without one a level
 * is one more around them, so that its maps are given back. */
static Tensor *run_level(Context *ctx, const Level *l, int index, Tensor *x)
{
    const Resnet *last = &l->resnets[l->num_resnets - 1];
    TapeBlock b = { .fn = level_block,
                    .args = &l,
                    .args_bytes = sizeof l,
                    .num_in = 1,
                    .num_out = 1,
                    .in = { x } };
    TapeShape *s = &b.shape[0];

    if (ctx->err || x == NULL)
        return NULL;
    dg_scope_push(ctx, l->up ? "up_blocks" : "down_blocks", index);
    *s = (TapeShape) { 4, { x->dims[0], x->dims[1], x->dims[2], last->o.out } };
    for (int i = 1; i < 3 && l->resample.w != NULL; i++)
        s->dims[i] = l->up ? 2 * s->dims[i] : s->dims[i] / 2;
    if (ctx->recording)
        level_block(ctx, &l, b.in, &x);
    else
        dg_tape_block(ctx, &b, &x);
    dg_scope_pop(ctx);
    return x;
}

static Tensor *run_out(Context *ctx, const Vae *m, const Half *h, Tensor *x)
{
    dg_scope_push(ctx, "conv_out", -1);
    x = dg_op_group_norm(
        ctx, x, h->norm_out.w, h->norm_out.b,
        &(GroupNormOpts) { m->c.norm_num_groups, EPS, DG_ACT_SILU });
    x = dg_conv(ctx, x, &h->conv_out);
    dg_scope_pop(ctx);
    return x;
}

static int check_input(const Half *h, const Tensor *x, int64_t channels,
                       int64_t step, const char *what)
{
    if (!h->made)
        return dg_fail(DG_EINVAL, "vae: the %s was not made", what);
    if (x->num_dims != 4 || x->dims[3] != channels)
        return dg_fail(DG_EINVAL,
                       "vae %s: a map of %lld channels: must be %lld", what,
                       (long long)dg_tensor_width(x), (long long)channels);
    if (x->dims[1] < step || x->dims[2] < step)
        return dg_fail(DG_EINVAL,
                       "vae %s: %lld x %lld pixels: must be at least %lld",
                       what, (long long)x->dims[1], (long long)x->dims[2],
                       (long long)step);
    return DG_OK;
}

Tensor *dg_vae_encode(const Vae *m, Context *ctx, Tensor *image)
{
    const Half *h = &m->encoder;
    Tensor *x;

    if (ctx->err || image == NULL)
        return NULL;
    ctx->err = check_input(h, image, m->c.in_channels,
                           (int64_t)1 << (m->c.num_levels - 1), "encoder");
    if (ctx->err)
        return NULL;
    dg_scope_push(ctx, "encoder", -1);
    x = dg_conv(ctx, image, &h->conv_in);
    for (int i = 0; i < m->c.num_levels; i++)
        x = run_level(ctx, &h->levels[i], i, x);
    x = run_middle(ctx, &h->mid, x);
    x = run_out(ctx, m, h, x);
    if (h->quant.w != NULL)
        x = dg_linear(ctx, x, &h->quant, DG_ACT_NONE);
    dg_scope_pop(ctx);
    return x;
}

Tensor *dg_vae_decode(const Vae *m, Context *ctx, Tensor *z)
{
    const Half *h = &m->decoder;
    Tensor *x;

    if (ctx->err || z == NULL)
        return NULL;
    ctx->err = check_input(h, z, m->c.latent_channels, 1, "decoder");
    if (ctx->err)
        return NULL;
    dg_scope_push(ctx, "decoder", -1);
    x = h->quant.w != NULL ? dg_linear(ctx, z, &h->quant, DG_ACT_NONE) : z;
    x = dg_conv(ctx, x, &h->conv_in);
    x = run_middle(ctx, &h->mid, x);
    for (int i = 0; i < m->c.num_levels; i++)
        x = run_level(ctx, &h->levels[i], i, x);
    x = run_out(ctx, m, h, x);
    dg_scope_pop(ctx);
    return x;
}

void dg_vae_to_model(const VaeConfig *c, float *z, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        z[i] = (float)(((double)z[i] - c->shift_factor) * c->scaling_factor);
}

void dg_vae_from_model(const VaeConfig *c, float *z, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        z[i] = (float)((double)z[i] / c->scaling_factor + c->shift_factor);
}
