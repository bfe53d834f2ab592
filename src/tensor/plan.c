#include "tensor/backend.h"

/* Kernels of a plan: the ops count bytes and FLOPs, nothing is computed. */
#define PLAN_KERNEL(name, Args)            \
    static void plan_##name(const Args *a) \
    {                                      \
        (void)a;                           \
    }

DG_KERNELS(PLAN_KERNEL)

static void plan_add(float *y, const float *a, const float *b, int64_t count)
{
    (void)y, (void)a, (void)b, (void)count;
}

static void plan_scale(float *y, const float *x, float alpha, int64_t count)
{
    (void)y, (void)x, (void)alpha, (void)count;
}

static void plan_fill(float *y, float value, int64_t count)
{
    (void)y, (void)value, (void)count;
}

static int64_t plan_first_nonfinite(const float *x, int64_t count)
{
    (void)x, (void)count;
    return -1;
}

static void plan_combine(float *u, const float *uncond, const float *cond,
                         double w, int64_t count)
{
    (void)u, (void)uncond, (void)cond, (void)w, (void)count;
}

static void plan_cast(void *to, DType to_type, const void *from,
                      DType from_type, int64_t count)
{
    (void)to, (void)to_type, (void)from, (void)from_type, (void)count;
}

#define PLAN_ENTRY(name, Args) .name = plan_##name,

void dg_backend_plan(Backend *out, const Backend *model)
{
    *out = (Backend) { .name = "plan",
                       .computes = 0,
                       .attention_scratch = model->attention_scratch,
                       .conv_scratch = model->conv_scratch,
                       .group_norm_scratch = model->group_norm_scratch,
                       .add = plan_add,
                       .scale = plan_scale,
                       .fill = plan_fill,
                       .first_nonfinite = plan_first_nonfinite,
                       .combine = plan_combine,
                       .apart = model->apart,
                       .bf16 = out, /* nothing is computed of either type */
                       .cast = plan_cast,
                       DG_KERNELS(PLAN_ENTRY) };
}
