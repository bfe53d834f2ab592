#ifndef DG_TENSOR_TENSOR_H
#define DG_TENSOR_TENSOR_H
/*
 * A tensor: contiguous, row-major, batch first. Its memory belongs to an
 * arena (or to a parameter set), never to the tensor.
 */
#include <stdint.h>

enum { DG_MAX_DIMS = 5 };

typedef enum DType { DG_F32, DG_BF16, DG_F16, DG_I32, DG_I64, DG_U8 } DType;

typedef struct Tensor Tensor;
struct Tensor {
    void *data; /* NULL in a plan */
    DType dtype;
    int num_dims;
    int64_t dims[DG_MAX_DIMS];
    Tensor *grad;         /* same shape; NULL until backward reaches it */
    int needs_grad;       /* the tape wants d loss / d this */
    int grad_set;         /* grad holds a value: the next writer accumulates */
    int depth;            /* tape block the tensor was made in; 0 outermost */
    int param_set;        /* parameters: id of their set, 1..; 0 otherwise */
    int64_t param_offset; /* parameters: first element in the flat buffer */
    int param_group;      /* parameters: group of their set, 1..; 0: none */
};

/** Bytes of one element. */
int64_t dg_dtype_bytes(DType t);
/** "f32", "bf16", ... */
const char *dg_dtype_name(DType t);
/** Product of all dims; 1 for num_dims = 0. */
int64_t dg_tensor_count(const Tensor *t);
/** Product of all dims but the last: rows of a matrix of width dims[last]. */
int64_t dg_tensor_rows(const Tensor *t);
/** Size of the last dim. */
int64_t dg_tensor_width(const Tensor *t);
/** data as float32; the tensor must be DG_F32. */
float *dg_tensor_f32(const Tensor *t);

#endif
