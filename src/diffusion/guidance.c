#include "diffusion/guidance.h"

#include <string.h>

void dg_guidance_combine(float *u, const float *uncond, const float *cond,
                         double w, int64_t num)
{
    const float scale = (float)w;

    /* the formula would round: a + (b - a) is not always b */
    if (w == 0 || w == 1) {
        memmove(u, w == 1 ? cond : uncond, sizeof *u * (size_t)num);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < num; i++)
        u[i] = uncond[i] + scale * (cond[i] - uncond[i]);
}
