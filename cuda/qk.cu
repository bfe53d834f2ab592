#include "kernels.h"

#include "columns.h"
#include "stream.h"

/*
 * A warp takes one head of one token; its lanes take the pairs of elements
 * lane, lane + 32 .. that a rotation turns together (and, for an odd d, one
 * lane the last element). Heads of a block: WARPS. No shared memory.
 */

typedef struct Head {
    const float *x, *w; /* [d] */
    int64_t x_at, y_at; /* offsets in x[segment] and y, elements */
    int64_t joint;      /* row of rstd */
    int64_t token;      /* of the joint sequence */
    int segment;
} Head;

template <typename T> __device__ inline Head head_at(const QkArgs &a, int64_t i)
{
    const int64_t all = a.tokens[0] + a.tokens[1], wide = a.heads * a.d;
    const int64_t h = i % a.heads, row = i / a.heads, b = row / all;
    Head p;

    p.token = row % all;
    p.segment = p.token >= a.tokens[0];
    const int64_t own = p.token - (p.segment ? a.tokens[0] : 0);
    p.x_at = (b * a.tokens[p.segment] + own) * wide + h * a.d;
    p.y_at = row * wide + h * a.d;
    p.joint = i;
    p.x = past<T>(a.x[p.segment], p.x_at);
    p.w = a.w[p.segment];
    return p;
}

template <typename T>
__device__ inline float head_rstd(const float *x, int64_t d, float eps,
                                  int lane)
{
    float sum = 0.0f;

    for (int64_t i = lane; i < d; i += WARP) {
        const float v = get<T>(x, i);
        sum = fmaf(v, v, sum);
    }
    return 1.0f / sqrtf(warp_sum(sum) / (float)d + eps);
}

/* elements 2k, 2k+1 turned by (c, s) */
__device__ inline void turn(const QkArgs &a, int64_t token, int64_t k,
                            float sign, float *n0, float *n1)
{
    if (a.cosines == NULL)
        return;
    const int64_t at = token * (a.d / 2) + k;
    const float c = a.cosines[at], s = sign * a.sines[at];
    const float even = *n0 * c - *n1 * s, odd = *n0 * s + *n1 * c;
    *n0 = even;
    *n1 = odd;
}

template <typename T> __global__ void qk_kernel(QkArgs a)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t count = a.batch * (a.tokens[0] + a.tokens[1]) * a.heads;

    for (int64_t i = warp_index(); i < count; i += warp_step()) {
        const Head p = head_at<T>(a, i);
        float rstd = 1.0f;
        if (p.w != NULL)
            rstd = head_rstd<T>(p.x, a.d, a.eps, lane);
        for (int64_t k = lane; 2 * k < a.d; k += WARP) {
            const int pair = 2 * k + 1 < a.d;
            float n0 = get<T>(p.x, 2 * k);
            float n1 = pair ? get<T>(p.x, 2 * k + 1) : 0.0f;
            if (p.w != NULL) {
                n0 = n0 * rstd * get<T>(p.w, 2 * k);
                n1 = pair ? n1 * rstd * get<T>(p.w, 2 * k + 1) : 0.0f;
            }
            turn(a, p.token, k, 1.0f, &n0, &n1);
            put<T>(a.y, p.y_at + 2 * k, n0);
            if (pair)
                put<T>(a.y, p.y_at + 2 * k + 1, n1);
        }
        if (lane == 0 && a.rstd != NULL)
            a.rstd[p.joint] = rstd;
    }
}

/* dy of pair k turned back: the gradient of n */
template <typename T>
__device__ inline void head_dn(const QkArgs &a, int64_t y_at, int64_t token,
                               int64_t k, float *g0, float *g1)
{
    *g0 = get<T>(a.dy, y_at + 2 * k);
    *g1 = 2 * k + 1 < a.d ? get<T>(a.dy, y_at + 2 * k + 1) : 0.0f;
    turn(a, token, k, -1.0f, g0, g1);
}

/* dx of a head: rstd (g - xhat mean(g xhat)), g = dn w; without w dx = dn */
template <typename T> __global__ void qk_grad_kernel(QkArgs a)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t count = a.batch * (a.tokens[0] + a.tokens[1]) * a.heads;

    for (int64_t i = warp_index(); i < count; i += warp_step()) {
        const Head p = head_at<T>(a, i);
        float *dx = a.dx[p.segment];
        float rstd = 1.0f, dot = 0.0f, g0, g1;
        if (dx == NULL)
            continue;
        if (p.w != NULL) {
            rstd = a.rstd[p.joint];
            for (int64_t k = lane; 2 * k < a.d; k += WARP) {
                head_dn<T>(a, p.y_at, p.token, k, &g0, &g1);
                const int64_t e = 2 * k;
                dot = fmaf(g0 * get<T>(p.w, e), get<T>(p.x, e) * rstd, dot);
                if (e + 1 < a.d)
                    dot = fmaf(g1 * get<T>(p.w, e + 1),
                               get<T>(p.x, e + 1) * rstd, dot);
            }
            dot = warp_sum(dot) / (float)a.d;
        }
        for (int64_t k = lane; 2 * k < a.d; k += WARP) {
            head_dn<T>(a, p.y_at, p.token, k, &g0, &g1);
            for (int64_t e = 2 * k; e < 2 * k + 2 && e < a.d; ++e) {
                float g = e % 2 ? g1 : g0;
                if (p.w != NULL)
                    g = (g * get<T>(p.w, e) - get<T>(p.x, e) * rstd * dot) *
                        rstd;
                put<T>(dx, p.x_at + e, g);
            }
        }
    }
}

/* dn xhat of one sample's segment: rows are its heads, token after token */
template <typename T> struct QkTerm {
    QkArgs a;
    int64_t b, first, num; /* sample; tokens of the segment */
    const float *x;        /* [num, heads d] of this sample */

    __device__ void add(int64_t r, int64_t c, float *sum) const
    {
        const int64_t all = a.tokens[0] + a.tokens[1];
        const int64_t token = first + r / a.heads;
        const int64_t head = (b * all + token) * a.heads + r % a.heads;
        float g0, g1;
        head_dn<T>(a, head * a.d, token, c / 2, &g0, &g1);
        const float xhat = get<T>(x, r * a.d + c) * a.rstd[head];
        sum[0] = fmaf(c % 2 ? g1 : g0, xhat, sum[0]);
    }
};

template <typename T> void dg_cuda_qk(const QkArgs *a)
{
    const int64_t heads = a->batch * (a->tokens[0] + a->tokens[1]) * a->heads;

    DG_LAUNCH(qk_kernel<T>, dg_blocks(heads, WARPS), THREADS, 0, *a);
}

template <typename T> void dg_cuda_qk_grad(const QkArgs *a)
{
    const int64_t heads = a->batch * (a->tokens[0] + a->tokens[1]) * a->heads;

    DG_LAUNCH(qk_grad_kernel<T>, dg_blocks(heads, WARPS), THREADS, 0, *a);
    for (int64_t b = 0; b < a->batch; ++b)
        for (int s = 0; s < 2; ++s) {
            const int64_t wide = a->tokens[s] * a->heads * a->d;
            const QkTerm<T> term = { *a, b, s ? a->tokens[0] : 0, a->tokens[s],
                                     past<T>(a->x[s], b * wide) };
            const ColumnSums<1, float> to = { { a->dw[s] } };
            if (a->dw[s] != NULL && a->w[s] != NULL)
                dg_column_sums(term, a->tokens[s] * a->heads, a->d, to);
        }
}

DG_BOTH(dg_cuda_qk, QkArgs)
DG_BOTH(dg_cuda_qk_grad, QkArgs)
