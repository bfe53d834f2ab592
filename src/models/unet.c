#include "models/unet.h"

#include "base/error.h"
#include "nn/resnet.h"
#include "nn/spatial_transformer.h"
#include "tensor/ops.h"

#include <stdlib.h>
#include <string.h>

enum { TIME_RATIO = 4 };

/* A residual block and the transformer behind it, if there is one. */
typedef struct Unit {
    Resnet resnet;
    SpatialTransformer attention;
    int attends;
} Unit;

typedef struct Level {
    Unit *units;
    int num_units;
    Conv resample; /* w NULL at the end of the way */
} Level;

struct Unet {
    UnetConfig c;
    int64_t time_width;
    float eps;
    Conv conv_in, conv_out;
    Mlp2 time;
    Norm norm_out;
    Level down[DG_UNET_MAX_LEVELS], up[DG_UNET_MAX_LEVELS];
    Unit mid; /* with its transformer */
    Resnet mid_last;
    Unit *memory; /* the levels' units */
};

UnetConfig dg_unet_sd1(void)
{
    return (UnetConfig) { .in_channels = 4,
                          .out_channels = 4,
                          .num_levels = 4,
                          .block_out_channels = { 320, 640, 1280, 1280 },
                          .down_attention = { 1, 1, 1, 0 },
                          .up_attention = { 0, 1, 1, 1 },
                          .layers_per_block = 2,
                          .attention_head_dim = 8,
                          .cross_attention_dim = 768,
                          .norm_num_groups = 32 };
}

/* --- creation ----------------------------------------------------------- */

static int check_config(const UnetConfig *c)
{
    if (c->num_levels < 1 || c->num_levels > DG_UNET_MAX_LEVELS)
        return dg_fail(DG_EINVAL,
                       "unet block_out_channels: %d entries, 1 to %d",
                       c->num_levels, DG_UNET_MAX_LEVELS);
    if (c->in_channels < 1 || c->out_channels < 1 || c->layers_per_block < 1 ||
        c->attention_head_dim < 1 || c->cross_attention_dim < 1 ||
        c->norm_num_groups < 1)
        return dg_fail(DG_EINVAL, "unet config: sizes must be >= 1");
    if (c->norm_eps < 0)
        return dg_fail(DG_EINVAL, "unet norm_eps = %g: must be positive",
                       c->norm_eps);
    for (int i = 0; i < c->num_levels; i++) {
        const int64_t width = c->block_out_channels[i];

        if (width < 1 || width % c->norm_num_groups ||
            width % c->attention_head_dim)
            return dg_fail(DG_EINVAL,
                           "unet block_out_channels[%d] = %lld: must be a "
                           "multiple of norm_num_groups = %lld and of "
                           "attention_head_dim = %lld",
                           i, (long long)width, (long long)c->norm_num_groups,
                           (long long)c->attention_head_dim);
    }
    if (c->block_out_channels[0] % 2)
        return dg_fail(DG_EINVAL,
                       "unet block_out_channels[0] = %lld: must be even",
                       (long long)c->block_out_channels[0]);
    return DG_OK;
}

static void add_resnet(Unet *m, Resnet *r, LayerPath *p, int index, int64_t in,
                       int64_t out)
{
    const size_t mark = dg_path_enter(p, "resnets.%d", index);

    dg_path_group(p);
    dg_layer_resnet(
        r, p,
        &(ResnetOpts) { in, out, m->time_width, m->c.norm_num_groups, m->eps });
    dg_path_group_end(p);
    dg_path_leave(p, mark);
}

static void add_unit(Unet *m, Unit *u, LayerPath *p, int index, int64_t in,
                     int64_t out)
{
    const UnetConfig *c = &m->c;
    size_t mark;

    add_resnet(m, &u->resnet, p, index, in, out);
    if (!u->attends)
        return;
    mark = dg_path_enter(p, "attentions.%d", index);
    dg_path_group(p);
    dg_layer_spatial_transformer(
        &u->attention, p,
        &(SpatialTransformerOpts) { out, c->cross_attention_dim,
                                    c->attention_head_dim,
                                    c->norm_num_groups });
    dg_path_group_end(p);
    dg_path_leave(p, mark);
}

static void add_down(Unet *m, LayerPath *p, int i)
{
    const UnetConfig *c = &m->c;
    const int64_t out = c->block_out_channels[i];
    const size_t mark = dg_path_enter(p, "down_blocks.%d", i);
    Level *l = &m->down[i];
    int64_t in = c->block_out_channels[i > 0 ? i - 1 : 0];

    for (int j = 0; j < l->num_units; j++, in = out) {
        l->units[j].attends = c->down_attention[i];
        add_unit(m, &l->units[j], p, j, in, out);
    }
    if (i + 1 < c->num_levels)
        l->resample = dg_layer_conv(p, "downsamplers.0.conv", out, out, 3,
                                    DG_INIT_NORMAL_FAN);
    dg_path_leave(p, mark);
}

/* Level i of the way up, 0 the lowest. Skips come from the level beside it,
 * the last of them from the one above, whose down-sampling ended there. */
static void add_up(Unet *m, LayerPath *p, int i)
{
    const UnetConfig *c = &m->c;
    const int beside = c->num_levels - 1 - i;
    const int above = beside > 0 ? beside - 1 : 0;
    const int64_t out = c->block_out_channels[beside];
    const size_t mark = dg_path_enter(p, "up_blocks.%d", i);
    Level *l = &m->up[i];
    int64_t in = c->block_out_channels[i > 0 ? beside + 1 : beside];

    for (int j = 0; j < l->num_units; j++, in = out) {
        const int last = j + 1 == l->num_units;

        l->units[j].attends = c->up_attention[i];
        add_unit(m, &l->units[j], p, j,
                 in + (last ? c->block_out_channels[above] : out), out);
    }
    if (beside > 0)
        l->resample = dg_layer_conv(p, "upsamplers.0.conv", out, out, 3,
                                    DG_INIT_NORMAL_FAN);
    dg_path_leave(p, mark);
}

static int add_params(Unet *m, ParamSet *set, const char *prefix)
{
    const UnetConfig *c = &m->c;
    const int64_t first = c->block_out_channels[0];
    const int64_t lowest = c->block_out_channels[c->num_levels - 1];
    LayerPath p;
    size_t mark;

    dg_path_init(&p, set, prefix);
    m->conv_in = dg_layer_conv(&p, "conv_in", c->in_channels, first, 3,
                               DG_INIT_NORMAL_FAN);
    m->time = dg_layer_mlp2(&p, "time_embedding", first, m->time_width,
                            DG_INIT_XAVIER);
    for (int i = 0; i < c->num_levels; i++)
        add_down(m, &p, i);
    mark = dg_path_enter(&p, "mid_block");
    m->mid.attends = 1;
    add_unit(m, &m->mid, &p, 0, lowest, lowest);
    add_resnet(m, &m->mid_last, &p, 1, lowest, lowest);
    dg_path_leave(&p, mark);
    for (int i = 0; i < c->num_levels; i++)
        add_up(m, &p, i);
    m->norm_out = dg_layer_layer_norm(&p, "conv_norm_out", first);
    m->conv_out =
        dg_layer_conv(&p, "conv_out", first, c->out_channels, 3, DG_INIT_ZERO);
    return p.err;
}

/* Down levels have layers_per_block units, up levels one more. */
static int reserve_units(Unet *m)
{
    const int layers = m->c.layers_per_block;
    Unit *next;

    m->memory = calloc((size_t)m->c.num_levels * (2 * (size_t)layers + 1),
                       sizeof *m->memory);
    if (m->memory == NULL)
        return dg_fail(DG_ENOMEM, "unet");
    next = m->memory;
    for (int i = 0; i < m->c.num_levels; i++) {
        m->down[i].units = next;
        m->down[i].num_units = layers;
        next += layers;
        m->up[i].units = next;
        m->up[i].num_units = layers + 1;
        next += layers + 1;
    }
    return DG_OK;
}

int dg_unet_create(Unet **out, const UnetConfig *c, ParamSet *set,
                   const char *prefix)
{
    Unet *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "unet");
    m->c = *c;
    m->eps = c->norm_eps > 0 ? (float)c->norm_eps : 1e-5f;
    m->time_width = TIME_RATIO * c->block_out_channels[0];
    err = reserve_units(m);
    if (!err)
        err = add_params(m, set, prefix);
    if (err) {
        dg_unet_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_unet_destroy(Unet *m)
{
    if (m == NULL)
        return;
    free(m->memory);
    free(m);
}

/* --- forward ------------------------------------------------------------ */

/* The maps that the way up takes, last in first out. */
typedef struct Skips {
    Tensor **maps;
    int num;
} Skips;

typedef struct Pass {
    Context *ctx;
    Tensor *time, *context;
    Skips skips;
} Pass;

static Tensor *run_unit(Pass *p, const Unit *u, int index, Tensor *x,
                        Tensor *skip)
{
    dg_scope_push(p->ctx, "resnets", index);
    x = dg_resnet(p->ctx, &u->resnet, x, skip, p->time);
    dg_scope_pop(p->ctx);
    if (!u->attends)
        return x;
    dg_scope_push(p->ctx, "attentions", index);
    x = dg_spatial_transformer(p->ctx, &u->attention, x, p->context);
    dg_scope_pop(p->ctx);
    return x;
}

static Tensor *run_down(Pass *p, const Level *l, int i, Tensor *x)
{
    dg_scope_push(p->ctx, "down_blocks", i);
    for (int j = 0; j < l->num_units; j++) {
        x = run_unit(p, &l->units[j], j, x, NULL);
        p->skips.maps[p->skips.num++] = x;
    }
    if (l->resample.w != NULL) {
        x = dg_op_conv2d(p->ctx, x, l->resample.w, l->resample.b,
                         &(ConvOpts) { 2, 1, 1, 1, 1, 0, 0, 0 });
        p->skips.maps[p->skips.num++] = x;
    }
    dg_scope_pop(p->ctx);
    return x;
}

static Tensor *run_up(Pass *p, const Level *l, int i, Tensor *x)
{
    dg_scope_push(p->ctx, "up_blocks", i);
    for (int j = 0; j < l->num_units; j++)
        x = run_unit(p, &l->units[j], j, x, p->skips.maps[--p->skips.num]);
    if (l->resample.w != NULL && !p->ctx->err) {
        /* a side that was odd on the way down is odd again */
        const int64_t *d = p->skips.maps[p->skips.num - 1]->dims;

        x = dg_conv_up_to(p->ctx, x, &l->resample, d[1], d[2]);
    }
    dg_scope_pop(p->ctx);
    return x;
}

static Tensor *run_mid(Pass *p, const Unet *m, Tensor *x)
{
    dg_scope_push(p->ctx, "mid_block", -1);
    x = run_unit(p, &m->mid, 0, x, NULL);
    dg_scope_push(p->ctx, "resnets", 1);
    x = dg_resnet(p->ctx, &m->mid_last, x, NULL, p->time);
    dg_scope_pop(p->ctx);
    dg_scope_pop(p->ctx);
    return x;
}

/* silu of the time embedding: every residual block begins with it */
static Tensor *time_embedding(const Unet *m, Context *ctx, const float *t,
                              int64_t B)
{
    Tensor *e;

    dg_scope_push(ctx, "time_embedding", -1);
    e = dg_op_sinusoid(ctx, t, B, m->c.block_out_channels[0]);
    e = dg_op_act(ctx, dg_mlp2(ctx, e, &m->time), DG_ACT_SILU);
    dg_scope_pop(ctx);
    return e;
}

static int check_inputs(const Unet *m, const UnetInputs *in)
{
    const int64_t *d = in->sample->dims;

    if (in->sample->num_dims != 4 || d[3] != m->c.in_channels)
        return dg_fail(DG_EINVAL,
                       "unet: a sample of %lld channels: must have %lld",
                       (long long)d[3], (long long)m->c.in_channels);
    if (in->context->dims[0] != d[0] ||
        dg_tensor_width(in->context) != m->c.cross_attention_dim)
        return dg_fail(DG_EINVAL,
                       "unet: context of width %lld: must have "
                       "cross_attention_dim = %lld",
                       (long long)dg_tensor_width(in->context),
                       (long long)m->c.cross_attention_dim);
    return DG_OK;
}

Tensor *dg_unet_forward(const Unet *m, Context *ctx, const UnetInputs *in)
{
    const int num = m->c.num_levels * (m->c.layers_per_block + 1);
    const DType dtype = m->conv_in.w->dtype;
    Pass p = { .ctx = ctx };
    Tensor *x;

    if (ctx->err || in->sample == NULL || in->context == NULL)
        return NULL;
    ctx->err = check_inputs(m, in);
    if (ctx->err)
        return NULL;
    p.context = dg_op_cast(ctx, in->context, dtype);
    p.skips.maps =
        dg_arena_take(&ctx->meta, (size_t)num * sizeof *p.skips.maps);
    if (p.skips.maps == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    p.time = time_embedding(m, ctx, in->t, in->sample->dims[0]);
    x = dg_conv(ctx, dg_op_cast(ctx, in->sample, dtype), &m->conv_in);
    p.skips.maps[p.skips.num++] = x;
    for (int i = 0; i < m->c.num_levels; i++)
        x = run_down(&p, &m->down[i], i, x);
    x = run_mid(&p, m, x);
    for (int i = 0; i < m->c.num_levels; i++)
        x = run_up(&p, &m->up[i], i, x);
    dg_scope_push(ctx, "conv_out", -1);
    x = dg_op_group_norm(
        ctx, x, m->norm_out.w, m->norm_out.b,
        &(GroupNormOpts) { m->c.norm_num_groups, m->eps, DG_ACT_SILU });
    x = dg_conv(ctx, x, &m->conv_out);
    dg_scope_pop(ctx);
    return x;
}
