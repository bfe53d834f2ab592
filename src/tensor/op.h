#ifndef DG_SRC_TENSOR_OP_H
#define DG_SRC_TENSOR_OP_H
/* Shared by the ops_*.c files; not public. */
#include "tensor/ops.h"
#include "tensor/tape.h"

/** 1 if the op of these inputs must be recorded. */
static inline int dg_op_records(const Context *ctx, const Tensor *x,
                                const Tensor *w)
{
    return ctx->recording &&
           ((x != NULL && x->needs_grad) || dg_tape_trains(ctx, w));
}

/** The node of an op of one or two inputs (b NULL): t[0] is a, t[1] b. NULL
 *  when it must not be recorded. */
TapeNode *dg_op_push(Context *ctx, TapeBackFn back, Tensor *y, Tensor *a,
                     Tensor *b);

/** Last step of every op: checks the output if asked to, hands it out. */
Tensor *dg_op_finish(Context *ctx, Tensor *out, const char *op);

/** Host values where kernels can read them: themselves, or a copy in the step
 *  arena (in a plan NULL, and counted). NULL stays NULL; NULL on error. */
const void *dg_op_host(Context *ctx, const void *host, DType dtype,
                       int64_t count);

/** The kernels for values stored as t's are. */
static inline const Backend *dg_kernels(const Context *ctx, const Tensor *t)
{
    return t->dtype == DG_BF16 ? ctx->backend->bf16 : ctx->backend;
}

/** The address of stored values as kernels take it, whatever their type. */
static inline float *dg_data(const Tensor *t)
{
    return t == NULL ? NULL : t->dtype == DG_BF16 ? t->data : dg_tensor_f32(t);
}

/** The address of element i; NULL in a plan, and of NULL. */
static inline float *dg_data_at(const Tensor *t, int64_t i)
{
    if (t == NULL || t->data == NULL)
        return NULL;
    if (t->dtype == DG_BF16)
        return (void *)((uint16_t *)t->data + i);
    return dg_tensor_f32(t) + i;
}

/** An op's activations and parameters are stored alike: else the model's code
 *  is wrong. */
void dg_op_alike(const Tensor *x, const Tensor *w, const char *op);

/** Rows of one sample: 1 for [B,D], S for [B,S,D]. */
static inline int64_t dg_rows_per_sample(const Tensor *t)
{
    return dg_tensor_rows(t) / t->dims[0];
}

#endif
