#include "wide.h"

#define DG_INLINE static __host__ __device__ __forceinline__
#include "optim/moment_code.h"

extern "C" {
#include "cuda/adamw8.h"
}

/* values of a block's that a lane has */
enum { EACH = DG_MOMENT_BLOCK / WARP };

/* What of a block of moments a lane has, in registers: value k is the block's
 * at(k). WIDE: a whole block, in pieces of four that lanes move as one. */
template <int WIDE> struct Lane {
    int lane, num;

    __device__ int at(int k) const
    {
        return WIDE ? k / 4 * (4 * WARP) + 4 * lane + k % 4 : k * WARP + lane;
    }
    __device__ bool has(int k) const
    {
        return WIDE || at(k) < num;
    }
    __device__ void load(float (&x)[EACH], const float *p) const
    {
#pragma unroll
        for (int k = 0; k < EACH; k += WIDE ? 4 : 1)
            if constexpr (WIDE) {
                const Pack<float, 4> four = fetch<float, 4>(p, at(k));
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    x[k + j] = four.at(j);
            } else {
                x[k] = has(k) ? p[at(k)] : 0.0f;
            }
    }
    __device__ void load(uint32_t (&x)[EACH], const uint8_t *p) const
    {
#pragma unroll
        for (int k = 0; k < EACH; k += WIDE ? 4 : 1)
            if constexpr (WIDE) {
                const uint32_t four =
                    *reinterpret_cast<const uint32_t *>(p + at(k));
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    x[k + j] = four >> 8 * j & 255u;
            } else {
                x[k] = has(k) ? p[at(k)] : 0u;
            }
    }
    __device__ void keep(float *p, const float (&x)[EACH]) const
    {
#pragma unroll
        for (int k = 0; k < EACH; k += WIDE ? 4 : 1)
            if constexpr (WIDE)
                store<float, 4>(p, at(k), [&](int j) { return x[k + j]; });
            else if (has(k))
                p[at(k)] = x[k];
    }
    __device__ void keep(uint8_t *p, const uint32_t (&x)[EACH]) const
    {
#pragma unroll
        for (int k = 0; k < EACH; k += WIDE ? 4 : 1)
            if constexpr (WIDE)
                *reinterpret_cast<uint32_t *>(p + at(k)) =
                    x[k] | x[k + 1] << 8 | x[k + 2] << 16 | x[k + 3] << 24;
            else if (has(k))
                p[at(k)] = (uint8_t)x[k];
    }
};

/* the largest size of a block's values, or floor, in all lanes */
__device__ static inline float largest(const float (&x)[EACH], float floor)
{
    float most = floor;

#pragma unroll
    for (int k = 0; k < EACH; ++k)
        most = fmaxf(most, fabsf(x[k]));
    for (int half = WARP / 2; half > 0; half /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, half));
    return most;
}

/* One block, by a warp: values beyond num are zero and stay in registers. */
template <int WIDE>
__device__ static inline void update(float *w, const Moments8 &x,
                                     const float *grad, uint32_t first, int num,
                                     const AdamwStep &c)
{
    const Lane<WIDE> mine = { (int)threadIdx.x % WARP, num };
    const float m_scale = *x.m_scale, v_scale = *x.v_scale;
    uint32_t code_m[EACH], code_v[EACH];
    float old[EACH], grads[EACH], m[EACH], v[EACH];

    mine.load(code_m, x.m);
    mine.load(code_v, x.v);
    mine.load(grads, grad);
    mine.load(old, w);
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const float g = grads[k] * c.grad_scale;
        const float m0 = dg_moment_m(code_m[k], m_scale);
        m[k] = m0 + c.take1 * (g - m0);
        v[k] = c.beta2 * dg_moment_v(code_v[k], v_scale) + c.take2 * (g * g);
        old[k] =
            old[k] * c.decay - c.rate * (m[k] / (sqrtf(v[k]) * c.root + c.eps));
    }
    mine.keep(w, old);
    const float m_most = largest(m, DG_MOMENT_FLOOR_M);
    const float v_most = largest(v, DG_MOMENT_FLOOR_V);
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const uint32_t i = first + (uint32_t)mine.at(k);
        code_m[k] =
            dg_moment_store_m(m[k], m_most, dg_moment_dither_m(i, c.update));
        code_v[k] =
            dg_moment_store_v(v[k], v_most, dg_moment_dither_v(i, c.update));
    }
    mine.keep(x.m, code_m);
    mine.keep(x.v, code_v);
    if (mine.lane == 0) {
        *x.m_scale = m_most;
        *x.v_scale = v_most;
    }
}

/* A warp takes a block of moments, whose largest its lanes find among
 * themselves; no shared memory, blocks of THREADS. The arithmetic is
 * src/optim/adamw8.c's. */
template <int WIDE>
__global__ void adamw8_kernel(float *w, Moments8 x, const float *grad,
                              uint32_t first, int64_t num, AdamwStep c)
{
    enum { BLOCK = DG_MOMENT_BLOCK };
    const int64_t blocks = (num + BLOCK - 1) / BLOCK;

    for (int64_t b = warp_index(); b < blocks; b += warp_step()) {
        const int64_t at = b * BLOCK;
        const int n = at_most(num - at, BLOCK);
        const Moments8 here = { x.m + at, x.v + at, x.m_scale + b,
                                x.v_scale + b };
        if (WIDE && n == BLOCK)
            update<WIDE>(w + at, here, grad + at, first + (uint32_t)at, n, c);
        else
            update<0>(w + at, here, grad + at, first + (uint32_t)at, n, c);
    }
}

extern "C" void dg_cuda_adamw8_update(float *w, const Moments8 *x,
                                      const float *grad, int64_t first,
                                      int64_t num, const AdamwStep *s)
{
    const dim3 grid = dg_blocks(dg_moments8_blocks(num) * WARP, THREADS);

    if (aligned(w, grad) && aligned(x->m, x->v))
        DG_LAUNCH(adamw8_kernel<1>, grid, THREADS, 0, w, *x, grad,
                  (uint32_t)first, num, *s);
    else
        DG_LAUNCH(adamw8_kernel<0>, grid, THREADS, 0, w, *x, grad,
                  (uint32_t)first, num, *s);
}
