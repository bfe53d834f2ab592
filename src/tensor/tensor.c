#include "tensor/tensor.h"

#include "base/error.h"

int64_t dg_dtype_bytes(DType t)
{
    static const int64_t bytes[] = { 4, 2, 2, 4, 8, 1 };

    return bytes[t];
}

const char *dg_dtype_name(DType t)
{
    static const char *const names[] = { "f32", "bf16", "f16",
                                         "i32", "i64",  "u8" };

    return names[t];
}

int64_t dg_tensor_count(const Tensor *t)
{
    int64_t count = 1;

    for (int i = 0; i < t->num_dims; i++)
        count *= t->dims[i];
    return count;
}

int64_t dg_tensor_rows(const Tensor *t)
{
    return dg_tensor_count(t) / dg_tensor_width(t);
}

int64_t dg_tensor_width(const Tensor *t)
{
    return t->num_dims > 0 ? t->dims[t->num_dims - 1] : 1;
}

float *dg_tensor_f32(const Tensor *t)
{
    if (t->dtype != DG_F32)
        dg_panic("tensor of dtype %s used as f32", dg_dtype_name(t->dtype));
    return t->data;
}
