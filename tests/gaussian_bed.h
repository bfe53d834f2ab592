#ifndef DG_TESTS_GAUSSIAN_BED_H
#define DG_TESTS_GAUSSIAN_BED_H
/*
 * The Gaussian testbed: data N(m, sd^2) per element have an exact velocity
 * under a rectified flow, so every marginal of a sampler is known.
 *   v(sigma) = (1 - sigma)^2 sd^2 + sigma^2
 *   u(z, sigma) = -m + k (z - (1 - sigma) m),
 *   k = (sigma - (1 - sigma) sd^2) / v
 */
#include <stdint.h>

static inline double bed_var(double sigma, double sd)
{
    return (1 - sigma) * (1 - sigma) * sd * sd + sigma * sigma;
}

static inline double bed_slope(double sigma, double sd)
{
    return (sigma - (1 - sigma) * sd * sd) / bed_var(sigma, sd);
}

static inline void bed_velocity(float *u, const float *z, int64_t n,
                                double sigma, double m, double sd)
{
    const double k = bed_slope(sigma, sd);

    for (int64_t i = 0; i < n; i++)
        u[i] = (float)(-m + k * ((double)z[i] - (1 - sigma) * m));
}

#endif
