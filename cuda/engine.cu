#include "device.h"
#include "kernels.h"
#include "stream.h"

extern "C" {
#include "base/error.h"
#include "cuda/adamw.h"
#include "cuda/adamw8.h"
#include "cuda/comm.h"
#include "cuda/denoise.h"
#include "cuda/ema.h"
#include "cuda/engine.h"
#include "cuda/exact_sum.h"
#include "cuda/grad_norm.h"
#include "cuda/objective.h"
#include "cuda/philox.h"
#include "cuda/sde.h"
}

/* A thread takes elements first_index(), + index_step() ..; no shared memory,
 * blocks of THREADS. */
__global__ void swap_kernel(float *a, float *b, int64_t num)
{
    for (int64_t i = first_index(); i < num; i += index_step()) {
        const float was = get(a, i);
        put(a, i, get(b, i));
        put(b, i, was);
    }
}

static void swap(float *a, float *b, int64_t num)
{
    DG_LAUNCH(swap_kernel, dg_blocks(num, THREADS), THREADS, 0, a, b, num);
}

static void normal(float *out, int64_t num, const RngKey *key)
{
    dg_cuda_rng_normal(out, 0, num, key);
}

/* the noise is never stored: scratch is not needed */
static void next(float *z_next, const SdeStep *s, const float *z,
                 const float *u, const RngKey *key, float *, int64_t D)
{
    if (s->stochastic)
        dg_cuda_sde_draw(z_next, s, z, u, key, D);
    else
        dg_cuda_sde_next(z_next, s, z, u, NULL, D);
}

static int bcast(const Comm *c, void *at, size_t bytes, int root, int *done)
{
    *done = dg_cuda_comm_joined(c);
    return *done ? dg_cuda_comm_bcast(c, at, bytes, root) : DG_OK;
}

static Engine table_make(void)
{
    Engine t = {};

    t.normal = normal;
    t.next = next;
    t.x0 = dg_cuda_sde_x0;
    t.log_prob = dg_cuda_sde_log_prob;
    t.kl = dg_cuda_sde_kl;
    t.seed = dg_cuda_objective_seed;
    t.spoil = dg_cuda_denoise_spoil;
    t.error = dg_cuda_denoise_error;
    t.exact_init = dg_cuda_exact_init;
    t.exact_clear = dg_cuda_exact_clear;
    t.exact_add = dg_cuda_exact_add;
    t.exact_allreduce = dg_cuda_exact_allreduce;
    t.exact_sum_to = dg_cuda_exact_sum_to;
    t.bcast = bcast;
    t.sends = dg_cuda_comm_joined;
    t.descends = dg_cuda_comm_descends;
    t.send = dg_cuda_exact_send;
    t.slot = dg_cuda_comm_slot;
    t.sent = dg_cuda_comm_sent;
    t.fetch = dg_cuda_comm_fetch;
    t.beside = dg_cuda_comm_beside;
    t.turn = dg_cuda_comm_turn;
    t.leaves = dg_cuda_comm_leaves;
    t.pace = dg_cuda_comm_pace;
    t.nudge = dg_cuda_comm_nudge;
    t.exact_add_part = dg_cuda_exact_add_part;
    t.exact_check = dg_cuda_exact_check;
    t.exact_merge = dg_cuda_exact_merge;
    t.exact_read = dg_cuda_exact_read;
    t.flag = dg_cuda_flag;
    t.grad_norm = dg_cuda_grad_norm;
    t.norm_chunks = dg_cuda_grad_norm_chunks;
    t.adamw = dg_cuda_adamw_update;
    t.adamw8 = dg_cuda_adamw8_update;
    t.ema = dg_cuda_ema_update;
    t.swap = swap;
    return t;
}

static const Engine table = table_make();

extern "C" const Engine *dg_engine_cuda(void)
{
    return &table;
}
