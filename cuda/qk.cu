#include "kernels.h"

#include "columns.h"

/*
 * Heads of up to 32 packs of packed<T> values: a lane takes a pack, as many
 * lanes as a power of two a head, and the lanes of a block the heads of one
 * segment of a sample, which lie one after the other in x and y alike. A lane
 * that takes the same columns of head after head also adds what they give to
 * w's gradient. Heads of other sizes: see below. Which it is, and the order of
 * sums, follows from the head's size. WIDE: packs are moved as pieces. No
 * shared memory but for those sums.
 */

/* The heads of one segment: what begins at its first one, of sample 0. */
struct QkHeads {
    const float *x, *w, *dy, *cosines, *sines;
    float *y, *dx, *rstd;
    int64_t x_sample, y_sample, rstd_sample; /* pitches of samples */
    int64_t d, heads;
    uint32_t count; /* heads of all tokens */
    int lanes;
    float eps;
    Split by_token;
};

/* the place of a lane */
struct QkLane {
    int64_t b, x_at, y_at, stat; /* offsets of the head */
    int64_t turn;                /* of its token in cosines and sines */
    int c, n;                    /* first column, and how many; 0: none */
};

/* f(lane, is there a head) in all lanes of a warp alike */
template <int V, typename F>
__device__ inline void each_head(const QkHeads &h, int64_t b, F f)
{
    const uint32_t tall = THREADS / h.lanes, step = gridDim.x * tall;
    const int lane = (int)threadIdx.x % h.lanes;

    for (uint32_t first = blockIdx.x * tall; first < h.count; first += step) {
        const uint32_t i = first + threadIdx.x / h.lanes;
        const uint32_t t = split_quotient(h.by_token, i);
        QkLane l;
        l.b = b;
        l.x_at = b * h.x_sample + (int64_t)i * h.d;
        l.y_at = b * h.y_sample + (int64_t)i * h.d;
        l.stat = b * h.rstd_sample + i;
        l.turn = (int64_t)t * (h.d / 2);
        l.c = lane * V;
        l.n = i < h.count && l.c < h.d ? V : 0;
        f(l);
    }
}

__device__ inline float lanes_sum(float x, int lanes)
{
    for (int half = lanes / 2; half > 0; half /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, half);
    return x;
}

/* The cosines and sines of a lane's pairs; those of what does not turn. */
template <int V, int WIDE> struct Turns {
    float c[V / 2], s[V / 2];

    __device__ Turns(const QkHeads &h, const QkLane &l)
    {
#pragma unroll
        for (int k = 0; k < V / 2; ++k)
            c[k] = 1.0f, s[k] = 0.0f;
        if (h.cosines == NULL || l.n == 0)
            return;
        const int64_t at = l.turn + l.c / 2;
        if constexpr (WIDE && V == 8) {
            const Pack<float, 4> p = fetch<float, 4>(h.cosines, at);
            const Pack<float, 4> q = fetch<float, 4>(h.sines, at);
#pragma unroll
            for (int k = 0; k < 4; ++k)
                c[k] = p.at(k), s[k] = q.at(k);
        } else {
#pragma unroll
            for (int k = 0; k < V / 2; ++k)
                c[k] = h.cosines[at + k], s[k] = h.sines[at + k];
        }
    }
    /* elements 2k, 2k + 1 by (c, s), or back by sign -1 */
    __device__ void turn(float (&v)[V], float sign) const
    {
#pragma unroll
        for (int k = 0; k < V / 2; ++k) {
            const float even = v[2 * k] * c[k] - v[2 * k + 1] * (sign * s[k]);
            const float odd = v[2 * k] * (sign * s[k]) + v[2 * k + 1] * c[k];
            v[2 * k] = even;
            v[2 * k + 1] = odd;
        }
    }
};

template <typename T, int WIDE>
__global__ void qk_heads_kernel(QkHeads h, int64_t batch)
{
    constexpr int V = packed<T>;
    const int c = (int)threadIdx.x % h.lanes * V;
    Pack<T, V> w = {};

    if (h.w != NULL && c < h.d)
        w = fetch_some<T, WIDE>(h.w, c, V);
    for (int64_t b = blockIdx.y; b < batch; b += gridDim.y)
        each_head<V>(h, b, [&](const QkLane &l) {
            const Pack<T, V> x = fetch_some<T, WIDE>(h.x, l.x_at + l.c, l.n);
            const Turns<V, WIDE> turns(h, l);
            float v[V], rstd = 1.0f, sum = 0.0f;
#pragma unroll
            for (int k = 0; k < V; ++k) {
                v[k] = x.at(k);
                sum = fmaf(v[k], v[k], sum);
            }
            if (h.w != NULL) {
                sum = lanes_sum(sum, h.lanes);
                rstd = 1.0f / sqrtf(sum / (float)h.d + h.eps);
#pragma unroll
                for (int k = 0; k < V; ++k)
                    v[k] = v[k] * rstd * w.at(k);
            }
            turns.turn(v, 1.0f);
            store_some<T, WIDE>(h.y, l.y_at + l.c, l.n,
                                [&](int k) { return v[k]; });
            if (l.c == 0 && l.n > 0 && h.rstd != NULL)
                h.rstd[l.stat] = rstd;
        });
}

/*
 * dx of a head: rstd (g - xhat mean(g xhat)), g = dn w and dn what is turned
 * back; without w dx = dn. dn xhat of one sample is summed head after head,
 * then over the block, and left in parts[blockIdx.x][d]; parts NULL: it is not
 * wanted. Shared: a float per thread and column of its, static.
 */
template <typename T, int WIDE>
__global__ void qk_heads_grad_kernel(QkHeads h, int64_t batch, float *parts)
{
    constexpr int V = packed<T>;
    __shared__ float folded[V][THREADS];
    const int c = (int)threadIdx.x % h.lanes * V;
    Pack<T, V> w = {};
    float sum[V] = {};

    if (h.w != NULL && c < h.d)
        w = fetch_some<T, WIDE>(h.w, c, V);
    for (int64_t b = blockIdx.y; b < batch; b += gridDim.y)
        each_head<V>(h, b, [&](const QkLane &l) {
            const Pack<T, V> dy = fetch_some<T, WIDE>(h.dy, l.y_at + l.c, l.n);
            const Turns<V, WIDE> turns(h, l);
            float dn[V];
#pragma unroll
            for (int k = 0; k < V; ++k)
                dn[k] = dy.at(k);
            turns.turn(dn, -1.0f);
            if (h.w != NULL) {
                const Pack<T, V> x =
                    fetch_some<T, WIDE>(h.x, l.x_at + l.c, l.n);
                const float rstd = l.n > 0 ? h.rstd[l.stat] : 0.0f;
                float dot = 0.0f;
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    const float xhat = x.at(k) * rstd;
                    sum[k] = fmaf(dn[k], xhat, sum[k]);
                    dn[k] *= w.at(k);
                    dot = fmaf(dn[k], xhat, dot);
                }
                dot = lanes_sum(dot, h.lanes) / (float)h.d;
#pragma unroll
                for (int k = 0; k < V; ++k)
                    dn[k] = (dn[k] - x.at(k) * rstd * dot) * rstd;
            }
            if (h.dx != NULL)
                store_some<T, WIDE>(h.dx, l.x_at + l.c, l.n,
                                    [&](int k) { return dn[k]; });
        });
    if (parts == NULL)
        return;
#pragma unroll
    for (int k = 0; k < V; ++k)
        folded[k][threadIdx.x] = sum[k];
    __syncthreads();
    /* a thread adds a column of all heads that the block had at once */
    for (int i = (int)threadIdx.x; i < h.d; i += THREADS) {
        float all = 0.0f;
        for (int g = i / V; g < THREADS; g += h.lanes)
            all += folded[i % V][g];
        parts[blockIdx.x * h.d + i] = all;
    }
}

/* --- heads of other sizes -------------------------------------------------
 *
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
    static const int most = 1; /* a pair is turned together */
    QkArgs a;
    int64_t b, first; /* sample; token of the joint sequence */
    const float *x;   /* [tokens of the segment, heads d] of this sample */

    template <int V>
    __device__ void add(int64_t r, int64_t c, float (&sum)[1][V]) const
    {
        const int64_t all = a.tokens[0] + a.tokens[1];
        const int64_t token = first + r / a.heads;
        const int64_t head = (b * all + token) * a.heads + r % a.heads;
        float g0, g1;
        head_dn<T>(a, head * a.d, token, c / 2, &g0, &g1);
        const float xhat = get<T>(x, r * a.d + c) * a.rstd[head];
        sum[0][0] = fmaf(c % 2 ? g1 : g0, xhat, sum[0][0]);
    }
};

/* --- which of them -------------------------------------------------------- */

template <typename T> static int qk_packs(const QkArgs *a)
{
    const int64_t most = (int64_t)WARP * packed<T>;

    return a->d % packed<T> == 0 && a->d <= most;
}

template <typename T> static int qk_wide(const QkHeads &h)
{
    return aligned(h.x, h.w, h.dy, h.y, h.dx) && aligned(h.cosines, h.sines);
}

/* tokens first .. + count - 1 of segment s */
template <typename T>
static QkHeads qk_heads(const QkArgs *a, int s, int64_t first, int64_t count)
{
    const int64_t wide = a->heads * a->d, own = first * wide;
    const int64_t joint = (s ? a->tokens[0] : 0) + first;
    const int64_t all = a->tokens[0] + a->tokens[1];
    QkHeads h = {};

    h.x = past<T>(a->x[s], own);
    h.dx = past<T>(a->dx[s], own);
    h.w = a->w[s];
    h.y = past<T>(a->y, joint * wide);
    h.dy = past<T>(a->dy, joint * wide);
    h.rstd = past<float>(a->rstd, joint * a->heads);
    h.cosines = past<float>(a->cosines, joint * (a->d / 2));
    h.sines = past<float>(a->sines, joint * (a->d / 2));
    h.x_sample = a->tokens[s] * wide;
    h.y_sample = all * wide;
    h.rstd_sample = all * a->heads;
    h.d = a->d;
    h.heads = a->heads;
    h.count = (uint32_t)(count * a->heads);
    for (h.lanes = 1; h.lanes * packed<T> < a->d;)
        h.lanes *= 2;
    h.eps = a->eps;
    h.by_token = dg_split((uint32_t)a->heads);
    return h;
}

/* work(heads) for ranges of tokens whose heads are counted by 32 bits */
template <typename T, typename F>
static void each_range(const QkArgs *a, int s, F work)
{
    const int64_t most = DG_PLANE_PACKS / a->heads;
    const int64_t tall = most > 1 ? most : 1;

    for (int64_t first = 0; first < a->tokens[s]; first += tall) {
        const int64_t left = a->tokens[s] - first;
        work(qk_heads<T>(a, s, first, left < tall ? left : tall));
    }
}

/* blocks of a range, of a sample: at most so many, each then taking more */
static unsigned qk_blocks(const QkHeads &h, int64_t most)
{
    const int64_t tall = THREADS / h.lanes, all = (h.count + tall - 1) / tall;

    return (unsigned)(all < most ? all : most);
}

template <typename T> void dg_cuda_qk(const QkArgs *a)
{
    const int64_t heads = a->batch * (a->tokens[0] + a->tokens[1]) * a->heads;
    const unsigned deep = dg_side(a->batch);

    if (!qk_packs<T>(a)) {
        DG_LAUNCH(qk_kernel<T>, dg_blocks(heads, WARPS), THREADS, 0, *a);
        return;
    }
    for (int s = 0; s < 2; ++s)
        each_range<T>(a, s, [&](const QkHeads &h) {
            const dim3 grid(qk_blocks(h, DG_MOST_BLOCKS), deep);
            if (qk_wide<T>(h))
                DG_LAUNCH((qk_heads_kernel<T, 1>), grid, THREADS, 0, h,
                          a->batch);
            else
                DG_LAUNCH((qk_heads_kernel<T, 0>), grid, THREADS, 0, h,
                          a->batch);
        });
}

/* Of sample b, and w's gradient on the way; or of all of them. */
template <typename T>
static void heads_grad(const QkHeads &all, int64_t b, int64_t batch, float *dw)
{
    enum { MOST = 512 }; /* parts */
    const unsigned deep = dg_side(batch);
    float *parts = dw != NULL ? dg_cuda_current()->workspace : NULL;
    const ColumnSums<1, float> to = { { dw } };
    QkHeads h = all;

    h.x = past<T>(h.x, b * h.x_sample);
    h.dx = past<T>(h.dx, b * h.x_sample);
    h.dy = past<T>(h.dy, b * h.y_sample);
    h.rstd = past<float>(h.rstd, b * h.rstd_sample);
    const dim3 grid(qk_blocks(h, dw != NULL ? MOST : DG_MOST_BLOCKS), deep);
    if (qk_wide<T>(h))
        DG_LAUNCH((qk_heads_grad_kernel<T, 1>), grid, THREADS, 0, h, batch,
                  parts);
    else
        DG_LAUNCH((qk_heads_grad_kernel<T, 0>), grid, THREADS, 0, h, batch,
                  parts);
    if (dw != NULL)
        dg_column_fold((int64_t)grid.x, h.d, to);
}

template <typename T> static void pairs_grad(const QkArgs *a)
{
    const int64_t heads = a->batch * (a->tokens[0] + a->tokens[1]) * a->heads;

    DG_LAUNCH(qk_grad_kernel<T>, dg_blocks(heads, WARPS), THREADS, 0, *a);
    for (int64_t b = 0; b < a->batch; ++b)
        for (int s = 0; s < 2; ++s) {
            const int64_t wide = a->tokens[s] * a->heads * a->d;
            const QkTerm<T> term = { *a, b, s ? a->tokens[0] : 0,
                                     past<T>(a->x[s], b * wide) };
            const ColumnSums<1, float> to = { { a->dw[s] } };
            if (a->dw[s] != NULL && a->w[s] != NULL)
                dg_column_sums(term, a->tokens[s] * a->heads, a->d, 0, to);
        }
}

template <typename T> void dg_cuda_qk_grad(const QkArgs *a)
{
    if (!qk_packs<T>(a)) {
        pairs_grad<T>(a);
        return;
    }
    for (int s = 0; s < 2; ++s) {
        float *dw = a->w[s] != NULL ? a->dw[s] : NULL;
        if (dw == NULL && a->dx[s] == NULL)
            continue;
        if (dw == NULL)
            each_range<T>(a, s, [&](const QkHeads &h) {
                heads_grad<T>(h, 0, a->batch, NULL);
            });
        for (int64_t b = 0; dw != NULL && b < a->batch; ++b)
            each_range<T>(
                a, s, [&](const QkHeads &h) { heads_grad<T>(h, b, 1, dw); });
    }
}

DG_BOTH(dg_cuda_qk, QkArgs)
DG_BOTH(dg_cuda_qk_grad, QkArgs)
