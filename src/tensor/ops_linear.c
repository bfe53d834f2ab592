#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"

TapeNode *dg_op_push(Context *ctx, TapeBackFn back, Tensor *y, Tensor *a,
                     Tensor *b)
{
    TapeNode *node = NULL;

    if (dg_op_records(ctx, a, NULL) || dg_op_records(ctx, b, NULL))
        node = dg_tape_push(ctx, back, y);
    if (node != NULL) {
        node->t[0] = a;
        node->t[1] = b;
    }
    return node;
}

Tensor *dg_op_finish(Context *ctx, Tensor *out, const char *op)
{
    int64_t at;
    char scope[256];

    if (ctx->err || out == NULL)
        return NULL;
    if (!ctx->check_finite || !ctx->backend->computes)
        return out;
    at = dg_kernels(ctx, out)->first_nonfinite(out->data, dg_tensor_count(out));
    if (at < 0)
        return out;
    dg_scope_text(ctx, scope, sizeof scope);
    ctx->err =
        dg_fail(DG_ENUMERIC,
                "layer %s: %s gave a value that is not finite "
                "(element %lld of %lld)",
                scope, op, (long long)at, (long long)dg_tensor_count(out));
    return NULL;
}

void dg_op_alike(const Tensor *x, const Tensor *w, const char *op)
{
    if (x != NULL && w != NULL && x->dtype != w->dtype)
        dg_panic("%s: values of type %s, parameters of type %s", op,
                 dg_dtype_name(x->dtype), dg_dtype_name(w->dtype));
}

/* --- linear ------------------------------------------------------------ */

/* through the columns of w that x met */
static void input_grad(Context *ctx, Tensor *x, const Tensor *dy,
                       const Tensor *w, int64_t column)
{
    int accumulate;
    Tensor *dx = dg_tape_grad(ctx, x, &accumulate);

    if (dx == NULL)
        return;
    dg_kernels(ctx, dx)->gemm(&(GemmArgs) {
        .m = dg_tensor_rows(dy),
        .n = dg_tensor_width(x),
        .k = dg_tensor_width(dy),
        .lda = dg_tensor_width(dy),
        .ldb = w->dims[1],
        .ldc = dg_tensor_width(x),
        .rows_per_sample = dg_rows_per_sample(dy),
        .beta = (float)accumulate,
        .a = dg_data(dy),
        .b = dg_data_at(w, column),
        .c = dg_data(dx),
    });
    ctx->flops += 2 * (uint64_t)(dg_tensor_rows(dy) * dg_tensor_width(x) *
                                 dg_tensor_width(dy));
}

static void weight_grad(Context *ctx, const Tensor *x, const Tensor *dy,
                        float *dw, float *dbias, int64_t ldw)
{
    dg_kernels(ctx, x)->linear_grad(&(LinearGradArgs) {
        .batch = dy->dims[0],
        .rows = dg_rows_per_sample(dy),
        .in = dg_tensor_width(x),
        .out = dg_tensor_width(dy),
        .ldw = ldw,
        .x = dg_data(x),
        .dy = dg_data(dy),
        .dw = dw,
        .dbias = dbias,
    });
    ctx->flops += 2 * (uint64_t)(dg_tensor_rows(dy) * dg_tensor_width(x) *
                                 dg_tensor_width(dy));
}

/* node: t[0] x, t[1] x2, t[2] pre; w[0] weight, w[1] bias; n[0] act */
static void linear_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *x2 = node->t[1], *pre = node->t[2];
    Tensor *dy = node->out->grad;
    const Tensor *w = node->w[0];
    const int64_t ldw = w->dims[1], in = dg_tensor_width(x);
    float *dw = dg_tape_param_grad(ctx, w);
    float *dbias = dg_tape_param_grad(ctx, node->w[1]);

    if (pre != NULL) {
        Tensor *dpre = dg_tensor_like(ctx, dy);

        if (dpre == NULL)
            return;
        dg_kernels(ctx, dy)->act_grad(&(ActArgs) {
            .act = (Act)node->n[0],
            .count = dg_tensor_count(dy),
            .x = dg_data(pre),
            .dy = dg_data(dy),
            .out = dg_data(dpre),
        });
        dy = dpre;
    }
    input_grad(ctx, x, dy, w, 0);
    if (dg_tape_trains(ctx, w))
        weight_grad(ctx, x, dy, dw, dbias, ldw);
    if (x2 == NULL)
        return;
    input_grad(ctx, x2, dy, w, in);
    if (dg_tape_trains(ctx, w))
        weight_grad(ctx, x2, dy, dw != NULL ? dw + in : NULL, NULL, ldw);
}

static void check_linear(const Tensor *x, const Tensor *x2, const Tensor *w)
{
    const int64_t in =
        dg_tensor_width(x) + (x2 != NULL ? dg_tensor_width(x2) : 0);

    if (w->dims[1] != in)
        dg_panic("linear: weight [%lld,%lld] on width %lld",
                 (long long)w->dims[0], (long long)w->dims[1], (long long)in);
    dg_op_alike(x, w, "linear");
    dg_op_alike(x2, w, "linear");
}

static Tensor *linear(Context *ctx, Tensor *x, Tensor *x2, const Tensor *w,
                      const Tensor *bias, Act act)
{
    const int64_t in = dg_tensor_width(x);
    const int64_t in2 = x2 != NULL ? dg_tensor_width(x2) : 0;
    const int records =
        dg_op_records(ctx, x, w) || dg_op_records(ctx, x2, NULL);
    const int keeps = act != DG_ACT_NONE && records;
    /* the place that LinearArgs.pre asks for */
    const int needs = act == DG_ACT_GELU_TANH && w->dtype == DG_BF16;
    int64_t dims[DG_MAX_DIMS];
    Tensor *y, *pre = NULL;
    TapeNode *node;
    size_t mark, meta;

    check_linear(x, x2, w);
    for (int i = 0; i < x->num_dims; i++)
        dims[i] = x->dims[i];
    dims[x->num_dims - 1] = w->dims[0];
    y = dg_tensor_new(ctx, w->dtype, x->num_dims, dims);
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    if (keeps || needs)
        pre = dg_tensor_new(ctx, w->dtype, x->num_dims, dims);
    if (ctx->err)
        return NULL;
    dg_kernels(ctx, w)->linear(&(LinearArgs) {
        .rows = dg_tensor_rows(x),
        .in = in,
        .in2 = in2,
        .out = w->dims[0],
        .ldw = w->dims[1],
        .rows_per_sample = dg_rows_per_sample(x),
        .x = dg_data(x),
        .x2 = dg_data(x2),
        .w = dg_data(w),
        .bias = dg_data(bias),
        .y = dg_data(y),
        .pre = dg_data(pre),
        .act = act,
    });
    if (!keeps) {
        dg_arena_release(&ctx->arena, mark);
        dg_arena_release(&ctx->meta, meta);
    }
    ctx->flops += 2 * (uint64_t)(dg_tensor_rows(x) * (in + in2) * w->dims[0]);
    node = records ? dg_tape_push(ctx, linear_back, y) : NULL;
    if (node != NULL) {
        node->t[0] = x;
        node->t[1] = x2;
        node->t[2] = pre;
        node->w[0] = w;
        node->w[1] = bias;
        node->n[0] = act;
    }
    return dg_op_finish(ctx, y, "linear");
}

Tensor *dg_op_linear(Context *ctx, Tensor *x, const Tensor *w,
                     const Tensor *bias, Act act)
{
    if (ctx->err || x == NULL)
        return NULL;
    return linear(ctx, x, NULL, w, bias, act);
}

Tensor *dg_op_linear2(Context *ctx, Tensor *x, Tensor *x2, const Tensor *w,
                      const Tensor *bias)
{
    if (ctx->err || x == NULL || x2 == NULL)
        return NULL;
    return linear(ctx, x, x2, w, bias, DG_ACT_NONE);
}

/* --- activations ------------------------------------------------------- */

static void act_back(Context *ctx, TapeNode *node)
{
    int accumulate;
    Tensor *dx = dg_tape_grad(ctx, node->t[0], &accumulate);

    if (dx == NULL)
        return;
    dg_kernels(ctx, dx)->act_grad(&(ActArgs) {
        .act = (Act)node->n[0],
        .count = dg_tensor_count(dx),
        .x = dg_data(node->t[0]),
        .dy = dg_data(node->out->grad),
        .out = dg_data(dx),
        .accumulate = accumulate,
    });
}

Tensor *dg_op_act(Context *ctx, Tensor *x, Act act)
{
    Tensor *y;
    TapeNode *node;

    if (ctx->err || x == NULL)
        return NULL;
    y = dg_tensor_like(ctx, x);
    if (y == NULL)
        return NULL;
    dg_kernels(ctx, x)->act(&(ActArgs) {
        .act = act,
        .count = dg_tensor_count(x),
        .x = dg_data(x),
        .out = dg_data(y),
    });
    node = dg_op_push(ctx, act_back, y, x, NULL);
    if (node != NULL)
        node->n[0] = act;
    return dg_op_finish(ctx, y, "activation");
}

static void gated_back(Context *ctx, TapeNode *node)
{
    Tensor *a = node->t[0], *g = node->t[1];
    Tensor *da = dg_tensor_like(ctx, a), *dg = dg_tensor_like(ctx, g);

    if (ctx->err)
        return;
    dg_kernels(ctx, a)->gated_grad(&(GatedArgs) {
        .act = (Act)node->n[0],
        .count = dg_tensor_count(a),
        .a = dg_data(a),
        .g = dg_data(g),
        .dy = dg_data(node->out->grad),
        .da = dg_data(da),
        .dg = dg_data(dg),
    });
    dg_tape_give(ctx, a, da);
    dg_tape_give(ctx, g, dg);
}

Tensor *dg_op_gated(Context *ctx, Tensor *a, Tensor *g, Act act)
{
    Tensor *y;
    TapeNode *node;

    if (ctx->err || a == NULL || g == NULL)
        return NULL;
    if (dg_tensor_count(a) != dg_tensor_count(g))
        dg_panic("gated: operands of different sizes");
    y = dg_tensor_like(ctx, a);
    if (y == NULL)
        return NULL;
    dg_kernels(ctx, a)->gated(&(GatedArgs) {
        .act = act,
        .count = dg_tensor_count(a),
        .a = dg_data(a),
        .g = dg_data(g),
        .y = dg_data(y),
    });
    node = dg_op_push(ctx, gated_back, y, a, g);
    if (node != NULL)
        node->n[0] = act;
    return dg_op_finish(ctx, y, "gated product");
}

/* --- the halves of one tensor ------------------------------------------ */

static GatedArgs halves_args(const Tensor *x, const Tensor *dx, Act act)
{
    const int64_t n = dg_tensor_width(x) / 2;
    GatedArgs a = { .act = act,
                    .count = n,
                    .rows = dg_tensor_rows(x),
                    .ld = 2 * n,
                    .a = dg_data(x),
                    .g = dg_data_at(x, n),
                    .da = dg_data(dx),
                    .dg = dg_data_at(dx, n) };

    return a;
}

static void halves_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *dx = dg_tensor_like(ctx, x);
    GatedArgs a;

    if (ctx->err)
        return;
    a = halves_args(x, dx, (Act)node->n[0]);
    a.dy = dg_data(node->out->grad);
    dg_kernels(ctx, x)->gated_grad(&a);
    dg_tape_give(ctx, x, dx);
}

Tensor *dg_op_gated_halves(Context *ctx, Tensor *x, Act act)
{
    int64_t dims[DG_MAX_DIMS];
    TapeNode *node;
    GatedArgs a;
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    if (dg_tensor_width(x) % 2)
        dg_panic("gated halves: width %lld is odd",
                 (long long)dg_tensor_width(x));
    for (int i = 0; i < x->num_dims; i++)
        dims[i] = x->dims[i];
    dims[x->num_dims - 1] /= 2;
    y = dg_tensor_new(ctx, x->dtype, x->num_dims, dims);
    if (y == NULL)
        return NULL;
    a = halves_args(x, NULL, act);
    a.y = dg_data(y);
    dg_kernels(ctx, x)->gated(&a);
    node = dg_op_push(ctx, halves_back, y, x, NULL);
    if (node != NULL)
        node->n[0] = act;
    return dg_op_finish(ctx, y, "gated product");
}
