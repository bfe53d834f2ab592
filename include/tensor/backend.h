#ifndef DG_TENSOR_BACKEND_H
#define DG_TENSOR_BACKEND_H
/*
 * The table of kernels. Ops (ops.h) call through it and never ask which
 * backend it is. Three tables exist: cpu (src/cpu), plan (src/tensor/plan.c:
 * computes nothing) and cuda.
 *
 * Rules for every kernel of every backend
 *  - Row-major. 'ld' = elements between rows. 64-bit indices.
 *  - Stored values, that is activations, their gradients and weights, are
 *    float32, or bfloat16 for the functions of the table Backend.bf16, to
 *    which pointers to them are addresses, declared float * all the same.
 *    Always float32: mean, rstd, lse, cosines, sines, attention's bias and
 *    dbias, gradients of parameters (dw, db, dbias, dweight, dtable).
 *    Arithmetic is float32; a value is rounded to nearest even where it is
 *    stored.
 *  - A sample (batch entry) never influences another one's bits: outputs of
 *    sample b depend on sample b alone and on the shapes of ONE sample, not
 *    on batch. Sums into parameter gradients run over the batch entries in
 *    order, one after the other (so a batch of 4 gives the same bits as four
 *    batches of 1 into the same buffer).
 *  - 'accumulate': 0 overwrite, 1 add to what is there.
 *  - Fixed-order reductions; no allocation inside; scratch is given.
 *  - Nothing fails: arguments were checked by the op.
 *  - Data, ids of an embedding too, are kernel memory (Backend.apart).
 */
#include "tensor/tensor.h"

#include <stddef.h>
#include <stdint.h>

typedef enum Act {
    DG_ACT_NONE,
    DG_ACT_SILU,      /* x sigma(x) */
    DG_ACT_GELU_ERF,  /* x/2 (1 + erf(x/sqrt2)) */
    DG_ACT_GELU_TANH, /* x/2 (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3))) */
    DG_ACT_QUICK_GELU /* x sigma(1.702 x) */
} Act;

/* c[m,n] = op(a) op(b) + beta c; op(a) is [m,k], op(b) is [k,n]. The rows of
 * c belong to samples of rows_per_sample rows each. */
typedef struct GemmArgs {
    int trans_a, trans_b; /* 1: stored transposed */
    int64_t m, n, k, lda, ldb, ldc;
    int64_t rows_per_sample;
    float beta; /* 0 or 1 */
    const float *a, *b;
    float *c;
} GemmArgs;

/* y = act(x w^T + x2 w2^T + bias); x2 optional (a second K range whose
 * weights lie in the same rows of w: w2 = w + in, both with row pitch ldw) */
typedef struct LinearArgs {
    int64_t rows, in, in2, out, ldw; /* rows of all samples */
    int64_t rows_per_sample;
    const float *x;    /* [rows, in] */
    const float *x2;   /* [rows, in2] or NULL */
    const float *w;    /* [out, ldw]: columns 0..in-1, in..in+in2-1 */
    const float *bias; /* [out] or NULL */
    float *y;          /* [rows, out] */
    float *pre;        /* [rows, out] value before act, or NULL: not kept. Of
                          bfloat16 with DG_ACT_GELU_TANH there is always a
                          place for it */
    Act act;
} LinearArgs;

/* dw[out, 0..in-1] (pitch ldw) += sum over the rows of each sample, samples
 * in order, of dy^T x ; dbias[out] += column sums, likewise. */
typedef struct LinearGradArgs {
    int64_t batch, rows; /* rows per sample */
    int64_t in, out, ldw;
    const float *x;  /* [batch*rows, in] */
    const float *dy; /* [batch*rows, out] */
    float *dw;       /* accumulated */
    float *dbias;    /* accumulated, or NULL */
} LinearGradArgs;

typedef struct ActArgs { /* elementwise over count */
    Act act;
    int64_t count;
    const float *x;  /* pre-activation */
    const float *dy; /* backward only */
    float *out;      /* forward: y; backward: dx */
    int accumulate;  /* backward */
} ActArgs;

/* y = a * act(g) (T5, GEGLU); backward da = dy act(g), dg = dy a act'(g) */
typedef struct GatedArgs {
    Act act;
    int64_t count;
    const float *a, *g, *dy;
    float *y;       /* forward */
    float *da, *dg; /* backward: overwritten */
    /* rows > 1: of count elements each, which a, g, da, dg have at a pitch of
     * ld and y, dy without gaps */
    int64_t rows, ld;
} GatedArgs;

typedef enum NormKind { DG_NORM_LAYER, DG_NORM_RMS } NormKind;

/*
 * xhat = (x - mean) rstd  (RMS: x rstd), rstd = 1/sqrt(mean square + eps)
 * y = xhat * w + b,  w, b [width] or NULL
 * y = xhat * (1 + scale) + shift,  per sample, pitch ld_mod; w = b = NULL
 * Statistics are taken in one fixed order per row.
 */
typedef struct NormArgs {
    NormKind kind;
    int64_t batch, rows, width; /* rows per sample */
    float eps;
    const float *x;
    const float *w, *b;
    const float *shift, *scale; /* [batch] rows of pitch ld_mod, or NULL */
    int64_t ld_mod;
    float *y;
    float *mean, *rstd; /* [batch*rows] out in forward, in in backward;
                           mean unused for RMS (may be NULL) */
    /* backward */
    const float *dy;
    float *dx;
    int accumulate;         /* of dx; dx NULL: not wanted */
    float *dw, *db;         /* accumulated, or NULL */
    float *dshift, *dscale; /* accumulated, pitch ld_mod, or NULL */
} NormArgs;

/*
 * QK norm and RoPE in one pass, from up to two token segments into one joint
 * buffer: segment 0 (text) first.
 *   n = x rstd w  (per head, w [d]; w NULL: no norm, n = x)
 *   (y[2k], y[2k+1]) = (n[2k] c - n[2k+1] s, n[2k] s + n[2k+1] c)
 * cosines, sines [tokens0 + tokens1, d/2], or NULL: no rotation
 */
typedef struct QkArgs {
    int64_t batch, heads, d;
    float eps;
    int64_t tokens[2]; /* tokens[1] may be 0 */
    const float *x[2]; /* [batch, tokens[i], heads*d] */
    const float *w[2];
    const float *cosines, *sines;
    float *y;    /* [batch, tokens0+tokens1, heads*d] */
    float *rstd; /* [batch, tokens0+tokens1, heads] */
    /* backward */
    const float *dy;
    float *dx[2]; /* overwritten; NULL: not wanted */
    float *dw[2]; /* accumulated, or NULL */
} QkArgs;

/*
 * o = softmax(scale q k^T + bias, causal) v per sample and head, tiled:
 * memory linear in tokens. lse [batch, heads, sq] = log sum exp of the
 * scores. Backward recomputes P from q, k, lse.
 */
typedef struct AttentionArgs {
    int64_t batch, heads, d, sq, sk;
    float scale;       /* > 0 */
    int causal;        /* 1: key j > query i is not seen */
    const float *bias; /* [heads, sq, sk] added to scaled scores, or NULL */
    const float *q, *k, *v; /* [batch, s, heads*d] */
    float *o;               /* [batch, sq, heads*d] */
    float *lse; /* out in forward (NULL: not wanted), in in backward */
    /* backward */
    const float *d_o;
    float *dq, *dk, *dv; /* overwritten */
    float *dbias;        /* [heads, sq, sk] accumulated, or NULL */
    void *scratch;       /* attention_scratch() bytes */
} AttentionArgs;

/* y = r + gate f; gate [batch] rows of pitch ld_gate, width values each */
typedef struct GateArgs {
    int64_t batch, rows, width, ld_gate;
    const float *r, *f, *gate;
    float *y;
    /* backward */
    const float *dy;
    float *df;    /* overwritten: gate dy; or NULL */
    float *dgate; /* accumulated, pitch ld_gate, or NULL: sum_rows dy f */
} GateArgs;

/* blocks of rows x width between pitches: dst (+)= src */
typedef struct CopyArgs {
    int64_t blocks, rows, width;
    int64_t src_block, src_ld, dst_block, dst_ld; /* pitches, elements */
    const float *src;
    float *dst;
    int accumulate;
} CopyArgs;

typedef struct EmbedArgs {
    int64_t count, width, vocab;
    const int32_t *ids; /* [count], each in 0..vocab-1 (checked by the op) */
    const float *table; /* [vocab, width] */
    float *y;           /* [count, width] */
    const float *dy;
    float *dtable; /* accumulated in order of count */
} EmbedArgs;

/*
 * y[b, i, j, o] = bias[o] + sum over u, v, c of
 *     weight[o, c, u, v] x[b, i stride + u - top, j stride + v - left, c],
 * x being 0 outside its map (zeros below and to the right as far as out_h,
 * out_w reach). With zoom 2 the map is read as if each of its pixels stood four
 * times, twice as high and wide; else zoom is 1. Its last cut_h rows and cut_w
 * columns are then outside (0 or 1). Maps are channels-last; weights stand as
 * in the files.
 */
typedef struct ConvArgs {
    int64_t batch, h, w, in; /* of x */
    int64_t out_h, out_w, out;
    int64_t kernel_h, kernel_w, stride, top, left, zoom, cut_h, cut_w;
    const float *x;      /* [batch, h, w, in] */
    const float *weight; /* [out, in, kernel_h, kernel_w] */
    const float *bias;   /* [out] or NULL */
    float *y;            /* [batch, out_h, out_w, out] */
    /* backward */
    const float *dy;
    float *dx; /* conv_input_grad */
    int accumulate;
    float *dweight; /* conv_weight_grad: accumulated, sample after sample */
    float *dbias;   /* the same, or NULL */
    void *scratch;  /* conv_scratch() bytes */
} ConvArgs;

/*
 * y = act(xhat w + b), xhat = (x - mean) rstd with the mean and the biased
 * variance of a sample's group: all rows of width/groups successive channels.
 */
typedef struct GroupNormArgs {
    int64_t batch, rows, width, groups; /* rows: pixels of one sample */
    float eps;
    Act act;
    const float *x;     /* [batch, rows, width] */
    const float *w, *b; /* [width] */
    float *y;
    float *mean, *rstd; /* [batch, groups] out in forward, in in backward */
    /* backward */
    const float *dy;
    float *dx;      /* overwritten, never NULL */
    float *dw, *db; /* accumulated, or NULL */
    void *scratch;  /* group_norm_scratch() bytes */
} GroupNormArgs;

/* y = x + v, the vector v of its sample added to each row */
typedef struct AddRowsArgs {
    int64_t batch, rows, width;
    const float *x; /* [batch, rows, width] */
    const float *v; /* [batch, width] */
    float *y;
    /* backward */
    const float *dy;
    float *dv; /* [batch, width] accumulated */
} AddRowsArgs;

/* What the same device does on higher floors; opaque here, see
 * train/engine.h. */
struct Engine;

/* Kernels that take a struct of arguments, K(member, Args) for each. From this
 * list alone are their members below and what the tables say of all of them. */
#define DG_KERNELS(K)                 \
    K(gemm, GemmArgs)                 \
    K(linear, LinearArgs)             \
    K(linear_grad, LinearGradArgs)    \
    K(act, ActArgs)                   \
    K(act_grad, ActArgs)              \
    K(gated, GatedArgs)               \
    K(gated_grad, GatedArgs)          \
    K(norm, NormArgs)                 \
    K(norm_grad, NormArgs)            \
    K(qk, QkArgs)                     \
    K(qk_grad, QkArgs)                \
    K(attention, AttentionArgs)       \
    K(attention_grad, AttentionArgs)  \
    K(gate, GateArgs)                 \
    K(gate_grad, GateArgs)            \
    K(copy, CopyArgs)                 \
    K(embed, EmbedArgs)               \
    K(embed_grad, EmbedArgs)          \
    K(conv, ConvArgs)                 \
    K(conv_input_grad, ConvArgs)      \
    K(conv_weight_grad, ConvArgs)     \
    K(group_norm, GroupNormArgs)      \
    K(group_norm_grad, GroupNormArgs) \
    K(add_rows, AddRowsArgs)          \
    K(add_rows_grad, AddRowsArgs)

/* A part of what comes down: bytes from 'at' on. It is the callee's meanwhile. */
typedef int (*DrainFn)(void *user, const void *part, size_t at, size_t bytes);

#define DG_KERNEL_MEMBER(name, Args) void (*name)(const Args *);

/* Arrays of one kind that a step reads, see Backend.replay. Equal ones may be among
 * them. */
typedef struct Moving {
    const float **at; /* [num] each of [count] */
    int64_t num, count;
} Moving;

typedef struct Backend {
    const char *name;
    int computes; /* 0: a plan, data pointers may be NULL */
    size_t (*attention_scratch)(int64_t sq, int64_t sk, int64_t d,
                                int backward);
    size_t (*conv_scratch)(const ConvArgs *); /* the sizes are looked at */
    size_t (*group_norm_scratch)(int64_t width);
    DG_KERNELS(DG_KERNEL_MEMBER)
    /* y = a + b (y may alias either); y = alpha x; y = value */
    void (*add)(float *y, const float *a, const float *b, int64_t count);
    void (*scale)(float *y, const float *x, float alpha, int64_t count);
    void (*fill)(float *y, float value, int64_t count);
    /* index of the first NaN or Inf, or -1 */
    int64_t (*first_nonfinite)(const float *x, int64_t count);
    /* u = uncond + w (cond - uncond), see diffusion/guidance.h */
    void (*combine)(float *u, const float *uncond, const float *cond, double w,
                    int64_t count);
    /*
     * Memory of tensors, 'kernel memory'. 0: it is the host's own, and the
     * members below are NULL: a pointer is a pointer. 1: the host may neither
     * read nor write it, and copies by these, in order with the kernels.
     */
    int apart;
    /* 256-byte aligned, zeroed; an error is recorded */
    int (*take)(void **out, size_t bytes);
    void (*give)(void *p); /* NULL is allowed */
    /* bytes that nobody has taken, and all there are */
    int (*room)(size_t *unused, size_t *all);
    /* bytes that each process's driver takes of them besides, when it first
     * needs them: the code of kernels, graphs */
    size_t later;
    /* host may be written again at once */
    void (*upload)(void *to, const void *host, size_t bytes);
    /* waits; errors of what was queued before show here */
    int (*download)(void *host, const void *from, size_t bytes);
    /* the same part by part, in order: the next one comes while take() has one.
     * Its first error ends it. */
    int (*drain)(const void *from, size_t bytes, DrainFn take, void *user);
    /*
     * Streams of the same device for other threads: what is queued there has no
     * order with what is queued elsewhere, but by side_after(). NULL: none.
     * side          bytes of kernel memory that such a stream takes at most
     * side_use()    makes it the calling thread's; returns what was before
     * side_after()  what is queued there from now on comes after what was
     *               queued so far on the calling thread's
     */
    size_t side;
    int (*side_new)(void **out);
    void (*side_free)(void *side); /* NULL is allowed; waits */
    void *(*side_use)(void *side);
    void (*side_after)(void *side);
    /*
     * Runs step(user), whole or by a graph of the same launches; step may be
     * called more than once and has to do the same each time. It may not wait.
     * Arrays that change their place from call to call: copies of them, which
     * do not, take their place, and stay until the next replay whose moving are
     * others. Those of the first kind have to fit, or nothing is replayed;
     * those of another that does not stay where they are. NULL: the step is to
     * be called. See dg_context_replay().
     */
    void (*replay)(void (*step)(void *), void *user, const Moving *moving,
                   int kinds);
    const struct Engine *engine; /* NULL: the host's */
    /* The same kernels for values stored as bfloat16, without combine; NULL:
     * it has none. It has no table of its own. */
    const struct Backend *bf16;
    /* to = from, rounded to nearest even where it is narrower; DG_F32 or
     * DG_BF16 each. NULL where bf16 is. */
    void (*cast)(void *to, DType to_type, const void *from, DType from_type,
                 int64_t count);
} Backend;

/** The plan backend: every kernel does nothing; scratch sizes are the given
 *  backend's, so that a plan's bytes equal the run's. It has a table of bfloat16 even
 *  where the given one has none: out itself, which must stay in its place. */
void dg_backend_plan(Backend *out, const Backend *model);

#endif
