/* Low-rank adapters on linear layers. */
#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"

/* c[rows, n] (+)= a[rows, k] b; b is [k, n], or stored [n, k] with trans */
static void product(Context *ctx, const Tensor *like, int trans, int64_t n,
                    int64_t k, const GemmArgs *rest)
{
    GemmArgs g = *rest;

    g.m = dg_tensor_rows(like);
    g.n = n;
    g.k = k;
    g.trans_b = trans;
    g.rows_per_sample = dg_rows_per_sample(like);
    dg_kernels(ctx, like)->gemm(&g);
    ctx->flops += 2 * (uint64_t)(g.m * n * k);
}

/* dx (+)= dh A, the columns of A that x met */
static void input_back(Context *ctx, Tensor *x, const Tensor *dh,
                       const Tensor *a, int64_t column)
{
    int accumulate;
    Tensor *dx = dg_tape_grad(ctx, x, &accumulate);

    if (dx == NULL)
        return;
    product(ctx, dh, 0, dg_tensor_width(x), a->dims[0],
            &(GemmArgs) { .lda = a->dims[0],
                          .ldb = a->dims[1],
                          .ldc = dg_tensor_width(x),
                          .beta = (float)accumulate,
                          .a = dg_data(dh),
                          .b = dg_data_at(a, column),
                          .c = dg_data(dx) });
}

/* dw (+)= dy^T x, dw of row pitch ld */
static void param_back(Context *ctx, const Tensor *x, const Tensor *dy,
                       float *dw, int64_t ld)
{
    dg_kernels(ctx, x)->linear_grad(&(LinearGradArgs) {
        .batch = dy->dims[0],
        .rows = dg_rows_per_sample(dy),
        .in = dg_tensor_width(x),
        .out = dg_tensor_width(dy),
        .ldw = ld,
        .x = dg_data(x),
        .dy = dg_data(dy),
        .dw = dw,
    });
    ctx->flops += 2 * (uint64_t)(dg_tensor_rows(dy) * dg_tensor_width(x) *
                                 dg_tensor_width(dy));
}

/* node: t[0] x, t[1] x2, t[2] h = scale x A^T; w[0] A, w[1] B; f[0] scale.
 * y = base + h B^T: the base's node takes the same gradient of y. */
static void lora_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *x2 = node->t[1], *h = node->t[2];
    const Tensor *dy = node->out->grad, *a = node->w[0], *b = node->w[1];
    const int64_t rank = a->dims[0], in = dg_tensor_width(x);
    float *da = dg_tape_param_grad(ctx, a);
    Tensor *dh = dg_tensor_like(ctx, h);

    if (dh == NULL)
        return;
    if (dg_tape_trains(ctx, b))
        param_back(ctx, h, dy, dg_tape_param_grad(ctx, b), rank);
    product(ctx, dy, 0, rank, b->dims[0],
            &(GemmArgs) { .lda = b->dims[0],
                          .ldb = rank,
                          .ldc = rank,
                          .a = dg_data(dy),
                          .b = dg_data(b),
                          .c = dg_data(dh) });
    dg_kernels(ctx, dh)->scale(dg_data(dh), dg_data(dh), node->f[0],
                               dg_tensor_count(dh));
    if (dg_tape_trains(ctx, a))
        param_back(ctx, x, dh, da, a->dims[1]);
    input_back(ctx, x, dh, a, 0);
    if (x2 == NULL)
        return;
    if (dg_tape_trains(ctx, a))
        param_back(ctx, x2, dh, da != NULL ? da + in : NULL, a->dims[1]);
    input_back(ctx, x2, dh, a, in);
}

static void check_shapes(const Tensor *y, int64_t in, const Tensor *a,
                         const Tensor *b)
{
    if (a->dims[1] != in || b->dims[1] != a->dims[0] ||
        b->dims[0] != dg_tensor_width(y))
        dg_panic("lora: A [%lld,%lld], B [%lld,%lld] between widths %lld and "
                 "%lld",
                 (long long)a->dims[0], (long long)a->dims[1],
                 (long long)b->dims[0], (long long)b->dims[1], (long long)in,
                 (long long)dg_tensor_width(y));
}

/* h = scale [x, x2] A^T */
static Tensor *low_rank(Context *ctx, Tensor *x, Tensor *x2, const Tensor *a,
                        float scale)
{
    const int64_t in2 = x2 != NULL ? dg_tensor_width(x2) : 0;
    int64_t dims[DG_MAX_DIMS];
    Tensor *h;

    for (int i = 0; i < x->num_dims; i++)
        dims[i] = x->dims[i];
    dims[x->num_dims - 1] = a->dims[0];
    h = dg_tensor_new(ctx, x->dtype, x->num_dims, dims);
    if (h == NULL)
        return NULL;
    dg_kernels(ctx, x)->linear(&(LinearArgs) {
        .rows = dg_tensor_rows(x),
        .in = dg_tensor_width(x),
        .in2 = in2,
        .out = a->dims[0],
        .ldw = a->dims[1],
        .rows_per_sample = dg_rows_per_sample(x),
        .x = dg_data(x),
        .x2 = dg_data(x2),
        .w = dg_data(a),
        .y = dg_data(h),
        .act = DG_ACT_NONE,
    });
    ctx->flops += 2 * (uint64_t)(dg_tensor_rows(x) * a->dims[1] * a->dims[0]);
    dg_kernels(ctx, h)->scale(dg_data(h), dg_data(h), scale,
                              dg_tensor_count(h));
    return h;
}

Tensor *dg_op_lora(Context *ctx, Tensor *y, Tensor *x, Tensor *x2,
                   const LoraPair *l)
{
    TapeNode *node;
    Tensor *h;

    if (ctx->err || y == NULL || x == NULL)
        return NULL;
    check_shapes(y, dg_tensor_width(x) + (x2 ? dg_tensor_width(x2) : 0), l->a,
                 l->b);
    dg_op_alike(x, l->a, "lora");
    dg_op_alike(y, l->b, "lora");
    h = low_rank(ctx, x, x2, l->a, l->scale);
    if (h == NULL)
        return NULL;
    product(ctx, y, 1, dg_tensor_width(y), l->a->dims[0],
            &(GemmArgs) { .lda = l->a->dims[0],
                          .ldb = l->a->dims[0],
                          .ldc = dg_tensor_width(y),
                          .beta = 1,
                          .a = dg_data(h),
                          .b = dg_data(l->b),
                          .c = dg_data(y) });
    node = dg_op_records(ctx, x, l->a) || dg_op_records(ctx, x2, l->b)
               ? dg_tape_push(ctx, lora_back, y)
               : NULL;
    if (node != NULL) {
        node->t[0] = x;
        node->t[1] = x2;
        node->t[2] = h;
        node->w[0] = l->a;
        node->w[1] = l->b;
        node->f[0] = l->scale;
    }
    return dg_op_finish(ctx, y, "adapter");
}
