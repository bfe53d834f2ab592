#include "family.h"

#include "base/error.h"
#include "tensor/mirror.h"

Tensor *dg_policy_rows(Context *ctx, const float *const *rows, int64_t offset,
                       int num_dims, const int64_t *dims)
{
    Tensor *y = dg_tensor_new(ctx, DG_F32, num_dims, dims);
    int64_t count;

    if (y == NULL || !ctx->backend->computes)
        return y;
    count = dg_tensor_count(y) / dims[0];
    for (int64_t b = 0; b < dims[0]; b++)
        dg_kernel_copy(ctx->backend, dg_tensor_f32(y) + b * count,
                       rows[b] + offset, count);
    return y;
}

const float *dg_policy_on_host(Context *ctx, const float *at, int64_t num)
{
    const size_t bytes = sizeof(float) * (size_t)num;
    float *host;

    if (!ctx->backend->apart)
        return at;
    host = dg_arena_take(&ctx->meta, bytes);
    ctx->err =
        host != NULL ? ctx->backend->download(host, at, bytes) : DG_ENOMEM;
    return ctx->err ? NULL : host;
}
