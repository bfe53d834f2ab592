#include "kernels.h"

#include "columns.h"
#include "wide.h"

/*
 * Elementwise kernels: a thread takes packs of elements, see each<V>() and
 * each_of_plane<V>() in wide.h; no shared memory, blocks of THREADS.
 */

template <typename T, int V> __global__ void gate_kernel(GateArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t b, int64_t r, int64_t c) {
        const int64_t i = (b * a.rows + r) * a.width + c;
        const Pack<T, V> gate = fetch<T, V>(a.gate, b * a.ld_gate + c);
        const Pack<T, V> f = fetch<T, V>(a.f, i), res = fetch<T, V>(a.r, i);
        store<T, V>(a.y, i, [&](int k) {
            return fmaf(gate.at(k), f.at(k), res.at(k));
        });
    });
}

template <typename T, int V>
__global__ void gate_input_grad_kernel(GateArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t b, int64_t r, int64_t c) {
        const int64_t i = (b * a.rows + r) * a.width + c;
        const Pack<T, V> gate = fetch<T, V>(a.gate, b * a.ld_gate + c);
        const Pack<T, V> dy = fetch<T, V>(a.dy, i);
        store<T, V>(a.df, i, [&](int k) { return gate.at(k) * dy.at(k); });
    });
}

/* dy f of one sample, summed over rows; df is stored on the way */
template <typename T> struct GateTerm {
    static const int most = packed<T>;
    const float *dy, *f, *gate;
    float *df; /* or NULL */
    int64_t width;

    template <int V>
    __device__ void add(int64_t r, int64_t c, float (&sum)[1][V]) const
    {
        const int64_t i = r * width + c;
        const Pack<T, V> d = fetch<T, V>(dy, i), x = fetch<T, V>(f, i);
#pragma unroll
        for (int k = 0; k < V; ++k)
            sum[0][k] = fmaf(d.at(k), x.at(k), sum[0][k]);
        if (df == NULL)
            return;
        const Pack<T, V> g = fetch<T, V>(gate, c);
        store<T, V>(df, i, [&](int k) { return g.at(k) * d.at(k); });
    }
};

template <typename T> static int gate_aligned(const GateArgs *a)
{
    return a->ld_gate % packed<T> == 0 &&
           aligned(a->r, a->f, a->gate, a->y, a->dy, a->df);
}

template <typename T> void dg_cuda_gate(const GateArgs *a)
{
    DG_LAUNCH_PLANE(gate_kernel, T, gate_aligned<T>(a), a->batch, a->rows,
                    a->width, *a);
}

template <typename T> void dg_cuda_gate_grad(const GateArgs *a)
{
    if (a->dgate == NULL && a->df != NULL)
        DG_LAUNCH_PLANE(gate_input_grad_kernel, T, gate_aligned<T>(a), a->batch,
                        a->rows, a->width, *a);
    for (int64_t b = 0; a->dgate != NULL && b < a->batch; ++b) {
        const int64_t at = b * a->rows * a->width, gate = b * a->ld_gate;
        const GateTerm<T> term = { past<T>(a->dy, at), past<T>(a->f, at),
                                   past<T>(a->gate, gate), past<T>(a->df, at),
                                   a->width };
        const ColumnSums<1, T> to = { { past<T>(a->dgate, gate) } };
        dg_column_sums(term, a->rows, a->width, gate_aligned<T>(a), to);
    }
}

template <typename T, int V> __global__ void copy_kernel(CopyArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t b, int64_t r, int64_t c) {
        const int64_t to = b * a.dst_block + r * a.dst_ld + c;
        const Pack<T, V> x =
            fetch<T, V>(a.src, b * a.src_block + r * a.src_ld + c);
        Pack<T, V> before = {};
        if (a.accumulate)
            before = fetch<T, V>(a.dst, to);
        store<T, V>(a.dst, to, [&](int k) {
            return a.accumulate ? before.at(k) + x.at(k) : x.at(k);
        });
    });
}

template <typename T> void dg_cuda_copy(const CopyArgs *a)
{
    const int64_t pitches = a->src_block | a->src_ld | a->dst_block | a->dst_ld;

    DG_LAUNCH_PLANE(copy_kernel, T,
                    pitches % packed<T> == 0 && aligned(a->src, a->dst),
                    a->blocks, a->rows, a->width, *a);
}

template <typename T, int V> __global__ void embed_kernel(EmbedArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t, int64_t r, int64_t c) {
        const Pack<T, V> x =
            fetch<T, V>(a.table, (int64_t)a.ids[r] * a.width + c);
        store<T, V>(a.y, r * a.width + c, [&](int k) { return x.at(k); });
    });
}

/*
 * Block i looks at place i. If it is the first place of its id, the block
 * adds all places of that id to the table's row, in rising order, a thread a
 * column; otherwise another block does. So each row is one block's.
 */
template <typename T> __global__ void embed_grad_kernel(EmbedArgs a)
{
    for (int64_t i = blockIdx.x; i < a.count; i += gridDim.x) {
        const int32_t id = a.ids[i];
        int first = 1;
        for (int64_t j = 0; j < i && first; ++j)
            first = a.ids[j] != id;
        for (int64_t c = threadIdx.x; first && c < a.width; c += blockDim.x) {
            const int64_t to = (int64_t)id * a.width + c;
            float sum = get(a.dtable, to);
            for (int64_t j = i; j < a.count; ++j)
                if (a.ids[j] == id)
                    sum += get<T>(a.dy, j * a.width + c);
            put(a.dtable, to, sum);
        }
    }
}

template <typename T> void dg_cuda_embed(const EmbedArgs *a)
{
    DG_LAUNCH_PLANE(embed_kernel, T, aligned(a->table, a->y), 1, a->count,
                    a->width, *a);
}

template <typename T> void dg_cuda_embed_grad(const EmbedArgs *a)
{
    DG_LAUNCH(embed_grad_kernel<T>, dg_blocks(a->count, 1), THREADS, 0, *a);
}

template <typename T, int V>
__global__ void add_kernel(float *y, const float *a, const float *b,
                           int64_t count)
{
    each<V>(count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> x = fetch<T, N>(a, i), z = fetch<T, N>(b, i);
        store<T, N>(y, i, [&](int k) { return x.at(k) + z.at(k); });
    });
}

template <typename T, int V>
__global__ void scale_kernel(float *y, const float *x, float alpha,
                             int64_t count)
{
    each<V>(count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> z = fetch<T, N>(x, i);
        store<T, N>(y, i, [&](int k) { return z.at(k) * alpha; });
    });
}

template <typename T, int V>
__global__ void fill_kernel(float *y, float value, int64_t count)
{
    each<V>(count, [&](auto n, int64_t i) {
        store<T, decltype(n)::value>(y, i, [&](int) { return value; });
    });
}

template <typename T>
void dg_cuda_add(float *y, const float *a, const float *b, int64_t count)
{
    DG_LAUNCH_EACH(add_kernel, T, aligned(y, a, b), count, y, a, b, count);
}

template <typename T>
void dg_cuda_scale(float *y, const float *x, float alpha, int64_t count)
{
    DG_LAUNCH_EACH(scale_kernel, T, aligned(y, x), count, y, x, alpha, count);
}

template <typename T> void dg_cuda_fill(float *y, float value, int64_t count)
{
    DG_LAUNCH_EACH(fill_kernel, T, aligned(y), count, y, value, count);
}

/* The arithmetic is src/diffusion/guidance.c's; weight 0 and 1 copy. */
template <typename T, int V>
__global__ void combine_kernel(float *u, const float *uncond, const float *cond,
                               double w, int64_t count)
{
    const float scale = (float)w;

    each<V>(count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> a = fetch<T, N>(uncond, i), b = fetch<T, N>(cond, i);
        store<T, N>(u, i, [&](int k) {
            const float x = a.at(k), y = b.at(k);
            return w == 1 ? y : w == 0 ? x : x + scale * (y - x);
        });
    });
}

void dg_cuda_combine(float *u, const float *uncond, const float *cond, double w,
                     int64_t count)
{
    DG_LAUNCH_EACH(combine_kernel, float, aligned(u, uncond, cond), count, u,
                   uncond, cond, w, count);
}

/* The least index of what is not finite. -1 is the largest unsigned. */
template <typename T, int V>
__global__ void first_nonfinite_kernel(unsigned long long *found,
                                       const float *x, int64_t count)
{
    keep_first_bad<T, V>(found, x, count,
                         [](float value) { return isfinite(value); });
}

/* least: as above */
template <typename T, int V>
__global__ void flag_kernel(unsigned long long *least, unsigned long long value,
                            const float *x, int64_t count)
{
    each<V>(count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> z = fetch<T, N>(x, i);
        int bad = 0;
#pragma unroll
        for (int k = 0; k < N; ++k)
            bad |= !isfinite(z.at(k));
        if (bad)
            keep_least(least, value);
    });
}

void dg_cuda_flag(int64_t *least, int64_t value, const float *x, int64_t count)
{
    DG_LAUNCH_EACH(flag_kernel, float, aligned(x), count,
                   (unsigned long long *)least, (unsigned long long)value, x,
                   count);
}

template <typename T>
int64_t dg_cuda_first_nonfinite(const float *x, int64_t count)
{
    CudaStream *s = dg_cuda_current();

    dg_cuda_note(cudaMemsetAsync(s->result, 0xff, sizeof *s->result, s->stream),
                 "first_nonfinite");
    DG_LAUNCH_EACH(first_nonfinite_kernel, T, aligned(x), count,
                   (unsigned long long *)s->result, x, count);
    return dg_cuda_result(s, -1);
}

/* From one storage type to another, in packs of what a piece of the narrower
 * one holds. */
template <typename D, typename S, int V>
__global__ void cast_kernel(float *to, const float *from, int64_t count)
{
    each<V>(count, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<S, N> x = fetch<S, N>(from, i);
        store<D, N>(to, i, [&](int k) { return x.at(k); });
    });
}

template <typename D, typename S>
static void cast(void *to, const void *from, int64_t count)
{
    constexpr int V = packed < D >> packed<S> ? packed<D> : packed<S>;

    if (aligned((const char *)to, (const char *)from))
        DG_LAUNCH((cast_kernel<D, S, V>), dg_each_blocks(count, V), THREADS, 0,
                  (float *)to, (const float *)from, count);
    else
        DG_LAUNCH((cast_kernel<D, S, 1>), dg_each_blocks(count, 1), THREADS, 0,
                  (float *)to, (const float *)from, count);
}

void dg_cuda_cast(void *to, DType to_type, const void *from, DType from_type,
                  int64_t count)
{
    const int narrow_to = to_type == DG_BF16,
              from_narrow = from_type == DG_BF16;

    if (narrow_to && !from_narrow)
        cast<__nv_bfloat16, float>(to, from, count);
    else if (!narrow_to && from_narrow)
        cast<float, __nv_bfloat16>(to, from, count);
    else if (narrow_to)
        cast<__nv_bfloat16, __nv_bfloat16>(to, from, count);
    else
        cast<float, float>(to, from, count);
}

DG_BOTH(dg_cuda_gate, GateArgs)
DG_BOTH(dg_cuda_gate_grad, GateArgs)
DG_BOTH(dg_cuda_copy, CopyArgs)
DG_BOTH(dg_cuda_embed, EmbedArgs)
DG_BOTH(dg_cuda_embed_grad, EmbedArgs)

#define BOTH_PLAIN(T)                                                       \
    template void dg_cuda_add<T>(float *, const float *, const float *,     \
                                 int64_t);                                  \
    template void dg_cuda_scale<T>(float *, const float *, float, int64_t); \
    template void dg_cuda_fill<T>(float *, float, int64_t);                 \
    template int64_t dg_cuda_first_nonfinite<T>(const float *, int64_t);

BOTH_PLAIN(float)
BOTH_PLAIN(__nv_bfloat16)
