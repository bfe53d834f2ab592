#include "optim/grad_norm.h"

#include <math.h>

#include "base/error.h"
#include "base/lanes.h"

int64_t dg_grad_norm_num_chunks(int64_t num)
{
    return (num + DG_GRAD_NORM_CHUNK - 1) / DG_GRAD_NORM_CHUNK;
}

static double sum_squares(const float *x, int64_t num)
{
    double lane[DG_LANES] = { 0 };
    int64_t i = 0;

    for (; i + DG_LANES <= num; i += DG_LANES)
#pragma omp simd
        for (int l = 0; l < DG_LANES; l++)
            lane[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; i < num; i++, l++)
        lane[l] += (double)x[i] * (double)x[i];
    return dg_lanes_fold(lane);
}

void dg_grad_norm_chunks(double *partial, const float *grad, int64_t num)
{
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < num; at += DG_GRAD_NORM_CHUNK) {
        const int64_t left = num - at;

        partial[at / DG_GRAD_NORM_CHUNK] = sum_squares(
            grad + at, left < DG_GRAD_NORM_CHUNK ? left : DG_GRAD_NORM_CHUNK);
    }
}

double dg_grad_norm_fold(double *partial, int64_t num_chunks)
{
    if (num_chunks == 0)
        return 0.0;
    /* neighbours at distance 1, 2, 4, ...: the tree depends on the count
     * alone */
    for (int64_t step = 1; step < num_chunks; step *= 2)
        for (int64_t i = 0; i + step < num_chunks; i += 2 * step)
            partial[i] += partial[i + step];
    return partial[0];
}

double dg_grad_norm(const float *grad, int64_t num, double *scratch)
{
    dg_grad_norm_chunks(scratch, grad, num);
    return sqrt(dg_grad_norm_fold(scratch, dg_grad_norm_num_chunks(num)));
}

int dg_grad_norm_scale(double *scale, double norm, double max_norm)
{
    if (!isfinite(norm))
        return dg_fail(DG_ENUMERIC, "gradient norm is not finite");

    const double factor = max_norm / (norm + 1e-6);

    *scale = max_norm > 0 && factor < 1 ? factor : 1.0;
    return DG_OK;
}
