#include "models/flux_transformer.h"

#include "base/error.h"
#include "base/float_bits.h"
#include "nn/layer.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TIME_WIDTH = 256, MLP_RATIO = 4 };
#define EPS 1e-6f

/* Chunks of a block's modulation; norm_out alone has scale first. */
enum { SHIFT1, SCALE1, GATE1, SHIFT2, SCALE2, GATE2 };
enum { OUT_SCALE, OUT_SHIFT };

typedef struct QkvProj {
    Linear q, k, v, out;
    Norm norm_q, norm_k;
} QkvProj;

typedef struct FeedForward {
    Linear in, out;
} FeedForward;

/* One stream of a double block */
typedef struct Stream {
    Linear mod;
    QkvProj attn;
    FeedForward ff;
} Stream;

typedef struct DoubleBlock {
    Stream image, text;
} DoubleBlock;

typedef struct SingleBlock {
    Linear mod, mlp, out;
    QkvProj attn; /* its out is not used */
} SingleBlock;

typedef struct Grid {
    int64_t h, w, text;
    Rope rope;
    float *memory;
    struct Grid *next;
} Grid;

struct FluxTransformer {
    FluxConfig c;
    int64_t width; /* D */
    Linear x_embedder, context_embedder, norm_out, proj_out;
    Mlp2 time, guidance, text;
    DoubleBlock *doubles;
    SingleBlock *singles;
    Grid *grids;
};

static int check_config(const FluxConfig *c)
{
    int64_t sum = 0;

    for (int i = 0; i < 3; i++) {
        if (c->axes_dims_rope[i] < 0 || c->axes_dims_rope[i] % 2)
            return dg_fail(DG_EINVAL,
                           "flux axes_dims_rope[%d] = %lld: must be even", i,
                           (long long)c->axes_dims_rope[i]);
        sum += c->axes_dims_rope[i];
    }
    if (sum < 2 || sum != c->attention_head_dim)
        return dg_fail(DG_EINVAL,
                       "flux attention_head_dim = %lld: must be the sum of "
                       "axes_dims_rope, %lld",
                       (long long)c->attention_head_dim, (long long)sum);
    if (c->in_channels < 1 || c->num_attention_heads < 1 ||
        c->joint_attention_dim < 1 || c->pooled_projection_dim < 1)
        return dg_fail(DG_EINVAL, "flux config: in_channels, "
                                  "num_attention_heads, joint_attention_dim "
                                  "and pooled_projection_dim must be >= 1");
    if (c->rope_theta < 0)
        return dg_fail(DG_EINVAL, "flux rope_theta = %g: must be positive",
                       c->rope_theta);
    if (c->num_layers < 0 || c->num_single_layers < 0)
        return dg_fail(DG_EINVAL,
                       "flux config: num_layers = %d, "
                       "num_single_layers = %d: must be >= 0",
                       c->num_layers, c->num_single_layers);
    return DG_OK;
}

static void add_stream(Stream *s, LayerPath *p, int64_t D, int64_t d,
                       int is_text)
{
    const char *const names[2][9] = {
        { "norm1", "attn", "to_q", "to_k", "to_v", "to_out.0", "norm_q",
          "norm_k", "ff" },
        { "norm1_context", "attn", "add_q_proj", "add_k_proj", "add_v_proj",
          "to_add_out", "norm_added_q", "norm_added_k", "ff_context" }
    };
    const char *const *n = names[is_text];
    size_t mark = dg_path_enter(p, "%s", n[0]);

    /* zero modulation: each block starts as the identity */
    s->mod = dg_layer_linear(p, "linear", D, 6 * D, 1, DG_INIT_ZERO);
    dg_path_leave(p, mark);
    mark = dg_path_enter(p, "%s", n[1]);
    s->attn.q = dg_layer_linear(p, n[2], D, D, 1, DG_INIT_XAVIER);
    s->attn.k = dg_layer_linear(p, n[3], D, D, 1, DG_INIT_XAVIER);
    s->attn.v = dg_layer_linear(p, n[4], D, D, 1, DG_INIT_XAVIER);
    s->attn.out = dg_layer_linear(p, n[5], D, D, 1, DG_INIT_XAVIER);
    s->attn.norm_q = dg_layer_rms_norm(p, n[6], d);
    s->attn.norm_k = dg_layer_rms_norm(p, n[7], d);
    dg_path_leave(p, mark);
    mark = dg_path_enter(p, "%s", n[8]);
    s->ff.in =
        dg_layer_linear(p, "net.0.proj", D, MLP_RATIO * D, 1, DG_INIT_XAVIER);
    s->ff.out =
        dg_layer_linear(p, "net.2", MLP_RATIO * D, D, 1, DG_INIT_XAVIER);
    dg_path_leave(p, mark);
}

static void add_single(SingleBlock *s, LayerPath *p, int64_t D, int64_t d)
{
    size_t mark = dg_path_enter(p, "norm");

    s->mod = dg_layer_linear(p, "linear", D, 3 * D, 1, DG_INIT_ZERO);
    dg_path_leave(p, mark);
    mark = dg_path_enter(p, "attn");
    s->attn.q = dg_layer_linear(p, "to_q", D, D, 1, DG_INIT_XAVIER);
    s->attn.k = dg_layer_linear(p, "to_k", D, D, 1, DG_INIT_XAVIER);
    s->attn.v = dg_layer_linear(p, "to_v", D, D, 1, DG_INIT_XAVIER);
    s->attn.norm_q = dg_layer_rms_norm(p, "norm_q", d);
    s->attn.norm_k = dg_layer_rms_norm(p, "norm_k", d);
    dg_path_leave(p, mark);
    s->mlp =
        dg_layer_linear(p, "proj_mlp", D, MLP_RATIO * D, 1, DG_INIT_XAVIER);
    s->out = dg_layer_linear(p, "proj_out", (MLP_RATIO + 1) * D, D, 1,
                             DG_INIT_XAVIER);
}

static void add_embedders(FluxTransformer *m, LayerPath *p)
{
    const FluxConfig *c = &m->c;
    const int64_t D = m->width;
    size_t mark;

    m->x_embedder =
        dg_layer_linear(p, "x_embedder", c->in_channels, D, 1, DG_INIT_XAVIER);
    m->context_embedder = dg_layer_linear(
        p, "context_embedder", c->joint_attention_dim, D, 1, DG_INIT_XAVIER);
    mark = dg_path_enter(p, "time_text_embed");
    m->time =
        dg_layer_mlp2(p, "timestep_embedder", TIME_WIDTH, D, DG_INIT_XAVIER);
    if (c->guidance_embeds)
        m->guidance = dg_layer_mlp2(p, "guidance_embedder", TIME_WIDTH, D,
                                    DG_INIT_XAVIER);
    m->text = dg_layer_mlp2(p, "text_embedder", c->pooled_projection_dim, D,
                            DG_INIT_XAVIER);
    dg_path_leave(p, mark);
}

static int add_params(FluxTransformer *m, ParamSet *set, const char *prefix)
{
    const FluxConfig *c = &m->c;
    const int64_t D = m->width, d = c->attention_head_dim;
    LayerPath p;
    size_t mark;

    dg_path_init(&p, set, prefix);
    add_embedders(m, &p);
    for (int i = 0; i < c->num_layers; i++) {
        mark = dg_path_enter(&p, "transformer_blocks.%d", i);
        dg_path_group(&p);
        add_stream(&m->doubles[i].image, &p, D, d, 0);
        add_stream(&m->doubles[i].text, &p, D, d, 1);
        dg_path_group_end(&p);
        dg_path_leave(&p, mark);
    }
    for (int i = 0; i < c->num_single_layers; i++) {
        mark = dg_path_enter(&p, "single_transformer_blocks.%d", i);
        dg_path_group(&p);
        add_single(&m->singles[i], &p, D, d);
        dg_path_group_end(&p);
        dg_path_leave(&p, mark);
    }
    mark = dg_path_enter(&p, "norm_out");
    m->norm_out = dg_layer_linear(&p, "linear", D, 2 * D, 1, DG_INIT_ZERO);
    dg_path_leave(&p, mark);
    m->proj_out =
        dg_layer_linear(&p, "proj_out", D, c->in_channels, 1, DG_INIT_ZERO);
    return p.err;
}

int dg_flux_create(FluxTransformer **out, const FluxConfig *c, ParamSet *set,
                   const char *prefix)
{
    FluxTransformer *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "flux transformer");
    m->c = *c;
    m->width = c->num_attention_heads * c->attention_head_dim;
    m->doubles = calloc((size_t)c->num_layers + 1, sizeof *m->doubles);
    m->singles = calloc((size_t)c->num_single_layers + 1, sizeof *m->singles);
    if (m->doubles == NULL || m->singles == NULL)
        err = dg_fail(DG_ENOMEM, "flux transformer");
    else
        err = add_params(m, set, prefix);
    if (err) {
        dg_flux_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_flux_destroy(FluxTransformer *m)
{
    if (m == NULL)
        return;
    while (m->grids != NULL) {
        Grid *g = m->grids;

        m->grids = g->next;
        free(g->memory);
        free(g);
    }
    free(m->doubles);
    free(m->singles);
    free(m);
}

const FluxConfig *dg_flux_config(const FluxTransformer *m)
{
    return &m->c;
}

void dg_flux_rope(float *cosines, float *sines, const FluxConfig *c,
                  int64_t grid_h, int64_t grid_w, int64_t text_tokens)
{
    const double theta = c->rope_theta != 0 ? c->rope_theta : 10000.0;
    const int64_t *axes = c->axes_dims_rope;
    const int64_t tokens = text_tokens + grid_h * grid_w;
    int64_t at = 0;

    for (int64_t i = 0; i < tokens; i++) {
        const int64_t j = i - text_tokens;
        const int64_t pos[3] = { 0, j < 0 ? 0 : j / grid_w,
                                 j < 0 ? 0 : j % grid_w };

        for (int a = 0; a < 3; a++) {
            for (int64_t k = 0; k < axes[a] / 2; k++, at++) {
                const double angle =
                    (double)pos[a] /
                    pow(theta, 2.0 * (double)k / (double)axes[a]);

                cosines[at] = (float)cos(angle);
                sines[at] = (float)sin(angle);
            }
        }
    }
}

static const Grid *find_grid(const FluxTransformer *m, int64_t h, int64_t w,
                             int64_t text)
{
    for (const Grid *g = m->grids; g != NULL; g = g->next)
        if (g->h == h && g->w == w && g->text == text)
            return g;
    return NULL;
}

int dg_flux_prepare(FluxTransformer *m, int64_t grid_h, int64_t grid_w,
                    int64_t text_tokens)
{
    const int64_t half = m->c.attention_head_dim / 2;
    const int64_t tokens = text_tokens + grid_h * grid_w;
    Grid *g;

    if (grid_h < 1 || grid_w < 1 || text_tokens < 1)
        return dg_fail(DG_EINVAL,
                       "flux grid of %lld x %lld tokens with %lld text "
                       "tokens: must be >= 1",
                       (long long)grid_h, (long long)grid_w,
                       (long long)text_tokens);
    if (find_grid(m, grid_h, grid_w, text_tokens) != NULL)
        return DG_OK;
    g = calloc(1, sizeof *g);
    if (g != NULL)
        g->memory = malloc((size_t)(2 * tokens * half) * sizeof(float));
    if (g == NULL || g->memory == NULL) {
        free(g);
        return dg_fail(DG_ENOMEM, "flux position table of %lld tokens",
                       (long long)tokens);
    }
    g->h = grid_h;
    g->w = grid_w;
    g->text = text_tokens;
    dg_flux_rope(g->memory, g->memory + tokens * half, &m->c, grid_h, grid_w,
                 text_tokens);
    g->rope = (Rope) { g->memory, g->memory + tokens * half, tokens, 2 * half };
    g->next = m->grids;
    m->grids = g;
    return DG_OK;
}

typedef struct BlockArgs {
    const FluxTransformer *m;
    const Rope *rope;
    int index;
} BlockArgs;

/* x + gate2 ff(LN(x)(1 + scale2) + shift2) */
static Tensor *feed_forward(Context *ctx, Tensor *x, Tensor *mod,
                            const FeedForward *ff)
{
    const Modulation md = { mod, SHIFT2, SCALE2 };
    Tensor *h = dg_op_modulate(ctx, x, &md, EPS);

    h = dg_linear(ctx, h, &ff->in, DG_ACT_GELU_TANH);
    h = dg_linear(ctx, h, &ff->out, DG_ACT_NONE);
    return dg_op_gate(ctx, x, h, mod, GATE2);
}

/* Attention of the joint sequence, text first; t is NULL in single blocks. */
static Tensor *joint_attention(Context *ctx, const BlockArgs *a, Tensor *tn,
                               const QkvProj *t, Tensor *xn, const QkvProj *x)
{
    const int heads = (int)a->m->c.num_attention_heads;
    const AttentionOpts opts = { .heads = heads };
    Tensor *q, *k, *v = dg_linear(ctx, xn, &x->v, DG_ACT_NONE);
    QkSegment qs[2] = { { NULL, NULL }, { NULL, NULL } };
    QkSegment ks[2] = { { NULL, NULL }, { NULL, NULL } };
    const int image = t != NULL;

    if (t != NULL) {
        qs[0] =
            (QkSegment) { dg_linear(ctx, tn, &t->q, DG_ACT_NONE), t->norm_q.w };
        ks[0] =
            (QkSegment) { dg_linear(ctx, tn, &t->k, DG_ACT_NONE), t->norm_k.w };
        v = dg_op_concat_tokens(ctx, dg_linear(ctx, tn, &t->v, DG_ACT_NONE), v);
    }
    qs[image] =
        (QkSegment) { dg_linear(ctx, xn, &x->q, DG_ACT_NONE), x->norm_q.w };
    ks[image] =
        (QkSegment) { dg_linear(ctx, xn, &x->k, DG_ACT_NONE), x->norm_k.w };
    q = dg_op_qk(ctx, qs, heads, EPS, a->rope);
    k = dg_op_qk(ctx, ks, heads, EPS, a->rope);
    return dg_op_attention(ctx, q, k, v, &opts);
}

/* in = { text, image, sv }, out = { text, image } */
static void double_block(Context *ctx, const void *args, Tensor *const *in,
                         Tensor **out)
{
    const BlockArgs *a = args;
    const Stream *image = &a->m->doubles[a->index].image;
    const Stream *text = &a->m->doubles[a->index].text;
    Tensor *c = in[0], *x = in[1], *o, *f;
    Modulation mx, mc;

    dg_scope_push(ctx, "transformer_blocks", a->index);
    mx = (Modulation) { dg_linear(ctx, in[2], &image->mod, DG_ACT_NONE), SHIFT1,
                        SCALE1 };
    mc = (Modulation) { dg_linear(ctx, in[2], &text->mod, DG_ACT_NONE), SHIFT1,
                        SCALE1 };
    dg_scope_push(ctx, "attn", -1);
    o = joint_attention(ctx, a, dg_op_modulate(ctx, c, &mc, EPS), &text->attn,
                        dg_op_modulate(ctx, x, &mx, EPS), &image->attn);
    if (o != NULL) {
        const int64_t T = c->dims[1], N = x->dims[1];

        f = dg_op_slice_tokens(ctx, o, T, N);
        f = dg_linear(ctx, f, &image->attn.out, DG_ACT_NONE);
        x = dg_op_gate(ctx, x, f, mx.mod, GATE1);
        f = dg_op_slice_tokens(ctx, o, 0, T);
        f = dg_linear(ctx, f, &text->attn.out, DG_ACT_NONE);
        c = dg_op_gate(ctx, c, f, mc.mod, GATE1);
    }
    dg_scope_pop(ctx);
    dg_scope_push(ctx, "ff", -1);
    out[1] = feed_forward(ctx, x, mx.mod, &image->ff);
    dg_scope_pop(ctx);
    dg_scope_push(ctx, "ff_context", -1);
    out[0] = feed_forward(ctx, c, mc.mod, &text->ff);
    dg_scope_pop(ctx);
    dg_scope_pop(ctx);
}

/* in = { joint sequence, sv }, out = { joint sequence } */
static void single_block(Context *ctx, const void *args, Tensor *const *in,
                         Tensor **out)
{
    const BlockArgs *a = args;
    const SingleBlock *s = &a->m->singles[a->index];
    Modulation md;
    Tensor *n, *o, *u;

    dg_scope_push(ctx, "single_transformer_blocks", a->index);
    md = (Modulation) { dg_linear(ctx, in[1], &s->mod, DG_ACT_NONE), SHIFT1,
                        SCALE1 };
    n = dg_op_modulate(ctx, in[0], &md, EPS);
    o = joint_attention(ctx, a, NULL, NULL, n, &s->attn);
    u = dg_linear(ctx, n, &s->mlp, DG_ACT_GELU_TANH);
    o = dg_linear2(ctx, o, u, &s->out); /* attention first */
    out[0] = dg_op_gate(ctx, in[0], o, md.mod, GATE1);
    dg_scope_pop(ctx);
}

/* MLP2(sinus(1000 t)); the product is formed in the model's dtype */
static Tensor *time_embedding(Context *ctx, const Mlp2 *mlp, const float *t,
                              int64_t B, int bf16)
{
    float *scaled = dg_arena_take(&ctx->meta, (size_t)B * sizeof *scaled);
    Tensor *s;

    if (scaled == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    for (int64_t b = 0; b < B; b++)
        scaled[b] =
            bf16 ? dg_round_bf16(dg_round_bf16(t[b]) * 1000) : t[b] * 1000;
    s = dg_op_sinusoid(ctx, scaled, B, TIME_WIDTH);
    return dg_mlp2(ctx, s, mlp);
}

/* silu(v), read by every modulation */
static Tensor *condition(const FluxTransformer *m, Context *ctx,
                         const FluxInputs *in)
{
    const int64_t B = in->hidden->dims[0];
    Tensor *v;

    dg_scope_push(ctx, "time_text_embed", -1);
    v = time_embedding(ctx, &m->time, in->t, B, in->bf16_compat);
    if (m->c.guidance_embeds)
        v = dg_op_add(ctx, v,
                      time_embedding(ctx, &m->guidance, in->guidance, B,
                                     in->bf16_compat));
    v = dg_op_add(ctx, v, dg_mlp2(ctx, in->pooled, &m->text));
    v = dg_op_act(ctx, v, DG_ACT_SILU);
    dg_scope_pop(ctx);
    return v;
}

static int check_inputs(const FluxTransformer *m, const FluxInputs *in,
                        const Grid *g)
{
    if (m->c.guidance_embeds && in->guidance == NULL)
        return dg_fail(DG_EINVAL, "flux: this network needs a guidance value");
    if (in->hidden->dims[1] != in->grid_h * in->grid_w)
        return dg_fail(DG_EINVAL,
                       "flux: %lld image tokens on a grid of "
                       "%lld x %lld",
                       (long long)in->hidden->dims[1], (long long)in->grid_h,
                       (long long)in->grid_w);
    if (g == NULL)
        return dg_fail(DG_EINVAL,
                       "flux: grid %lld x %lld with %lld text tokens was not "
                       "prepared",
                       (long long)in->grid_h, (long long)in->grid_w,
                       (long long)in->context->dims[1]);
    return DG_OK;
}

static Tensor *run_blocks(const FluxTransformer *m, Context *ctx,
                          const Rope *rope, Tensor *c, Tensor *x, Tensor *sv)
{
    BlockArgs args = { m, rope, 0 };
    TapeBlock b = { .args = &args, .args_bytes = sizeof args };
    Tensor *out[2] = { c, x };
    int64_t T, N;

    if (c == NULL || x == NULL || sv == NULL)
        return NULL;
    T = c->dims[1];
    N = x->dims[1];
    b.fn = double_block;
    b.num_in = 3;
    b.num_out = 2;
    b.in[2] = sv;
    for (args.index = 0; args.index < m->c.num_layers; args.index++) {
        b.in[0] = out[0];
        b.in[1] = out[1];
        b.weights = m->doubles[args.index].image.mod.w;
        dg_tape_block(ctx, &b, out);
    }
    out[0] = dg_op_concat_tokens(ctx, out[0], out[1]);
    b.fn = single_block;
    b.num_in = 2;
    b.num_out = 1;
    b.in[1] = sv;
    for (args.index = 0; args.index < m->c.num_single_layers; args.index++) {
        b.in[0] = out[0];
        b.weights = m->singles[args.index].mod.w;
        dg_tape_block(ctx, &b, out);
    }
    return dg_op_slice_tokens(ctx, out[0], T, N);
}

Tensor *dg_flux_forward(const FluxTransformer *m, Context *ctx,
                        const FluxInputs *in)
{
    const Grid *g;
    const Rope *rope;
    Tensor *c, *x, *sv;
    Modulation md;

    if (ctx->err || in->hidden == NULL || in->context == NULL ||
        in->pooled == NULL)
        return NULL;
    g = find_grid(m, in->grid_h, in->grid_w, in->context->dims[1]);
    ctx->err = check_inputs(m, in, g);
    if (ctx->err)
        return NULL;
    rope = dg_op_rope(ctx, &g->rope);
    if (rope == NULL)
        return NULL;
    x = dg_linear_in(ctx, in->hidden, &m->x_embedder, DG_ACT_NONE);
    c = dg_linear_in(ctx, in->context, &m->context_embedder, DG_ACT_NONE);
    sv = condition(m, ctx, in);
    x = run_blocks(m, ctx, rope, c, x, sv);
    dg_scope_push(ctx, "norm_out", -1);
    md = (Modulation) { dg_linear(ctx, sv, &m->norm_out, DG_ACT_NONE),
                        OUT_SHIFT, OUT_SCALE };
    x = dg_op_modulate(ctx, x, &md, EPS);
    x = dg_linear(ctx, x, &m->proj_out, DG_ACT_NONE);
    dg_scope_pop(ctx);
    return x;
}
