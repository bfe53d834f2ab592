#include "diffusion/denoise.h"

#include "base/lanes.h"

void dg_denoise_spoil(float *z, float *target, const DenoiseLevel *l, int64_t D)
{
    const float keep = l->keep, spoil = l->spoil;

    for (int64_t i = 0; i < D; i++) {
        const float clean = z[i];

        z[i] = keep * clean + spoil * target[i];
        if (l->velocity)
            target[i] = target[i] - clean;
    }
}

void dg_denoise_error(double *error, float *grad, const float *u,
                      const float *target, float scale, int64_t D)
{
    double lane[DG_LANES] = { 0 };
    int64_t i = 0;

    for (; i + DG_LANES <= D; i += DG_LANES)
#pragma omp simd
        for (int l = 0; l < DG_LANES; l++) {
            const float d = u[i + l] - target[i + l];

            lane[l] += (double)d * (double)d;
            grad[i + l] = scale * d;
        }
    for (int l = 0; i < D; i++, l++) {
        const float d = u[i] - target[i];

        lane[l] += (double)d * (double)d;
        grad[i] = scale * d;
    }
    *error = dg_lanes_fold(lane);
}
