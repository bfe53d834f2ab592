#include "device.h"
#include "stream.h"

extern "C" {
#include "cuda/objective.h"
}

typedef struct Seed {
    const float *z, *u, *z_next;
    const float *u_ref, *u_old; /* NULL: no KL term, no drift */
    float mean_z, mean_u, coef, kl_coef, drift_coef;
} Seed;

/* A thread takes elements first_index(), + index_step() ..; no shared memory,
 * blocks of THREADS. The arithmetic is dg_sde_grad_u()'s, dg_sde_grad_kl()'s. */
__global__ void objective_seed_kernel(float *grad_u, Seed s, int64_t D)
{
    for (int64_t i = first_index(); i < D; i += index_step()) {
        const float u = get(s.u, i);
        const float mu = s.mean_z * get(s.z, i) + s.mean_u * u;
        float g = s.coef * (get(s.z_next, i) - mu);
        if (s.u_ref != NULL)
            g += s.kl_coef * (u - get(s.u_ref, i));
        if (s.u_old != NULL)
            g += s.drift_coef * (u - get(s.u_old, i));
        put(grad_u, i, g);
    }
}

extern "C" void dg_cuda_objective_seed(float *grad_u, const ObjectiveTerm *term,
                                       const SdeStep *s,
                                       const ObjectiveTensors *x, int64_t D)
{
    const Seed seed = { x->z,
                        x->u,
                        x->z_next,
                        term->kl_coef != 0 ? x->u_ref : NULL,
                        term->drift_coef != 0 ? x->u_old : NULL,
                        s->mean_z,
                        s->mean_u,
                        (float)term->coef,
                        (float)term->kl_coef,
                        (float)term->drift_coef };

    DG_LAUNCH(objective_seed_kernel, dg_blocks(D, THREADS), THREADS, 0, grad_u,
              seed, D);
}
