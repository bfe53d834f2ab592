#ifndef DG_TENSOR_OPS_H
#define DG_TENSOR_OPS_H
/*
 * Differentiable operations. Each runs at once through the context's backend
 * and records itself. Activations are [B, S, D], [B, D] or maps; B is the batch, an
 * entry of which is a sample whose bits never depend on its neighbours.
 * Parameters (w, bias, table) are tensors of a parameter set and may be NULL
 * where "or NULL" is said. Values are float32 or bfloat16: an op's inputs and
 * parameters are stored alike, and so is its output (attention's bias is
 * float32 always); dg_op_cast() stands between. Every op returns NULL once the context has failed,
 * and accepts NULL activations then. Shapes that do not fit are a broken
 * invariant of the model's code: dg_panic().
 */
#include "tensor/context.h"

/** y = act(x w^T + bias). x [B,..,in], w [out,in], bias [out] or NULL. */
Tensor *dg_op_linear(Context *ctx, Tensor *x, const Tensor *w,
                     const Tensor *bias, Act act);

/** y = [x, x2] w^T + bias without forming the concatenation.
 *  x [B,S,a], x2 [B,S,b], w [out, a+b]. */
Tensor *dg_op_linear2(Context *ctx, Tensor *x, Tensor *x2, const Tensor *w,
                      const Tensor *bias);

/* A low-rank adapter of a linear layer, W + scale B A. */
typedef struct LoraPair {
    const Tensor *a; /* [rank, in]; NULL: no adapter */
    const Tensor *b; /* [out, rank] */
    float scale;     /* alpha / rank */
} LoraPair;

/** Adds scale ([x, x2] A^T) B^T to y, in place: y must come straight from the
 *  linear layer of x (and x2, or NULL), without an activation. With B = 0 no
 *  bit of y changes. Returns y. Source: LoRA, arXiv:2106.09685. */
Tensor *dg_op_lora(Context *ctx, Tensor *y, Tensor *x, Tensor *x2,
                   const LoraPair *l);

Tensor *dg_op_act(Context *ctx, Tensor *x, Act act);

/** y = a act(g), elementwise. */
Tensor *dg_op_gated(Context *ctx, Tensor *a, Tensor *g, Act act);

/** y = a act(g) with a, g the first and the second half of x's last axis:
 *  [..,2n] -> [..,n]. */
Tensor *dg_op_gated_halves(Context *ctx, Tensor *x, Act act);

/** LayerNorm over the last axis; w, b [D] or both NULL. */
Tensor *dg_op_layer_norm(Context *ctx, Tensor *x, const Tensor *w,
                         const Tensor *b, float eps);

/** RMSNorm over the last axis; w [D]. */
Tensor *dg_op_rms_norm(Context *ctx, Tensor *x, const Tensor *w, float eps);

typedef struct Modulation {
    Tensor *mod;      /* [B, n D] */
    int shift, scale; /* chunks of D in mod, by index */
} Modulation;

/** LN(x)(1 + scale) + shift, no affine. x [B,S,D]. */
Tensor *dg_op_modulate(Context *ctx, Tensor *x, const Modulation *m, float eps);

/** r + gate f; gate = chunk of mod [B, n D]. r, f [B,S,D]. */
Tensor *dg_op_gate(Context *ctx, Tensor *r, Tensor *f, Tensor *mod,
                   int gate_chunk);

typedef struct Rope {
    const float *cosines, *sines; /* [tokens, d/2], NULL in a plan */
    int64_t tokens, d;
} Rope;

typedef struct QkSegment {
    Tensor *x;       /* [B, S_i, H d]; NULL: no such segment */
    const Tensor *w; /* [d] */
} QkSegment;

/** The tables where kernels can read them, alive until the end of the step:
 *  r itself, or a copy. NULL on error. */
const Rope *dg_op_rope(Context *ctx, const Rope *r);

/** Per-head RMS norm and RoPE of text (segment 0) and image tokens into one
 *  joint [B, S0+S1, H d] tensor. rope NULL: no rotation; else it has
 *  S0 + S1 tokens. */
Tensor *dg_op_qk(Context *ctx, const QkSegment seg[2], int heads, float eps,
                 const Rope *rope);

typedef struct AttentionOpts {
    int heads;
    float scale; /* 0: 1/sqrt(d) */
    int causal;
    Tensor *bias; /* [heads, Sq, Sk] or NULL; takes a gradient if it must */
} AttentionOpts;

/** q [B,Sq,H d], k, v [B,Sk,H d] -> [B,Sq,H d]. */
Tensor *dg_op_attention(Context *ctx, Tensor *q, Tensor *k, Tensor *v,
                        const AttentionOpts *o);

Tensor *dg_op_add(Context *ctx, Tensor *a, Tensor *b);

/** [B,Sa,D], [B,Sb,D] -> [B,Sa+Sb,D]. */
Tensor *dg_op_concat_tokens(Context *ctx, Tensor *a, Tensor *b);
/** [B,S,D] -> [B,count,D], tokens first..first+count-1. */
Tensor *dg_op_slice_tokens(Context *ctx, Tensor *x, int64_t first,
                           int64_t count);
/** [B,S,D] -> [B,D]: row index[b] of each sample (index in host memory). */
Tensor *dg_op_pick_token(Context *ctx, Tensor *x, const int32_t *index);

/** The same values stored otherwise, DG_F32 or DG_BF16, rounded to nearest
 *  even where that is narrower; x itself where it is no other type. The
 *  gradient is cast the other way. */
Tensor *dg_op_cast(Context *ctx, Tensor *x, DType dtype);

/** Same data, other shape (element count equal). */
Tensor *dg_op_reshape(Context *ctx, Tensor *x, int num_dims,
                      const int64_t *dims);

/** ids [B,S] i32 in host memory, alive until backward -> [B,S,D] rows of
 *  table [vocab,D], stored as that is. Errors: DG_EINVAL naming the first id out of range. */
Tensor *dg_op_embed(Context *ctx, const int32_t *ids, int64_t B, int64_t S,
                    const Tensor *table);

/** x [B,S,D] + table[0..S-1] (positions), table [>=S, D]. */
Tensor *dg_op_add_positions(Context *ctx, Tensor *x, const Tensor *table);

/* --- maps: [B, H, W, C], channels-last ---------------------------------- */

typedef struct ConvOpts {
    int64_t stride;                   /* >= 1 */
    int64_t top, left, bottom, right; /* zeros around the map, >= 0 */
    int upsample; /* 1: of the map with each pixel four times (nearest) */
} ConvOpts;

/**
 * Cross-correlation of x [B,H,W,in] with w [out,in,kh,kw], + bias [out] or
 * NULL. -> [B,H',W',out], H' = floor((H + top + bottom - kh) / stride) + 1,
 *  with upsample 2H for H: the larger map is never made.
 * A 1 x 1 convolution is dg_op_linear(): its weight [out,in,1,1] fits.
 */
Tensor *dg_op_conv2d(Context *ctx, Tensor *x, const Tensor *w,
                     const Tensor *bias, const ConvOpts *o);

typedef struct GroupNormOpts {
    int64_t groups; /* divides C; a group is C/groups successive channels */
    float eps;
    Act act; /* of the result: DG_ACT_NONE or DG_ACT_SILU */
} GroupNormOpts;

/** act(GroupNorm(x)) over a sample's pixels and a group's channels; w, b [C].
 *  x [B,..,C]. */
Tensor *dg_op_group_norm(Context *ctx, Tensor *x, const Tensor *w,
                         const Tensor *b, const GroupNormOpts *o);

/** [B,..,Ca], [B,..,Cb] -> [B,..,Ca+Cb]. */
Tensor *dg_op_concat_channels(Context *ctx, Tensor *a, Tensor *b);

/** x [B,..,C] + v [B,C], the same vector for every pixel of a sample. */
Tensor *dg_op_add_channels(Context *ctx, Tensor *x, Tensor *v);

/** [B,C,H,W] -> [B,H,W,C], and back: where maps enter and leave. */
Tensor *dg_op_channels_last(Context *ctx, Tensor *x);
Tensor *dg_op_channels_first(Context *ctx, Tensor *x);

/** T5's bias: out[h,i,j] = table[buckets[i,j], h]; table [n, H];
 *  buckets [S, S] i32 in host memory, alive until backward -> [H,S,S] f32. */
Tensor *dg_op_bias_table(Context *ctx, const int32_t *buckets, int64_t S,
                         const Tensor *table);

/** sinus(t, dim) = [cos(t f_i), sin(t f_i)], f_i = exp(-ln(10000) i/half);
 *  t [B] in host memory -> [B, dim]. No gradient. */
Tensor *dg_op_sinusoid(Context *ctx, const float *t, int64_t B, int64_t dim);

/** Copies host values into a new tensor of the given shape. */
Tensor *dg_op_input(Context *ctx, const float *host, int num_dims,
                    const int64_t *dims);

#endif
