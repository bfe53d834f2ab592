#include "kernels.h"

#include "columns.h"
#include "stream.h"

/*
 * Elementwise kernels: a thread takes elements first_index(), + index_step()
 * ..; no shared memory, blocks of THREADS.
 */

/* element i of [batch, rows, width]: its sample and column */
__device__ inline int64_t gate_at(const GateArgs &a, int64_t i)
{
    return i / (a.rows * a.width) * a.ld_gate + i % a.width;
}

template <typename T> __global__ void gate_kernel(GateArgs a)
{
    const int64_t count = a.batch * a.rows * a.width;

    for (int64_t i = first_index(); i < count; i += index_step())
        put<T>(a.y, i,
               fmaf(get<T>(a.gate, gate_at(a, i)), get<T>(a.f, i),
                    get<T>(a.r, i)));
}

template <typename T> __global__ void gate_input_grad_kernel(GateArgs a)
{
    const int64_t count = a.batch * a.rows * a.width;

    for (int64_t i = first_index(); i < count; i += index_step())
        put<T>(a.df, i, get<T>(a.gate, gate_at(a, i)) * get<T>(a.dy, i));
}

/* dy f of one sample, summed over rows */
template <typename T> struct GateTerm {
    const float *dy, *f;
    int64_t width;

    __device__ void add(int64_t r, int64_t c, float *sum) const
    {
        const int64_t i = r * width + c;
        sum[0] = fmaf(get<T>(dy, i), get<T>(f, i), sum[0]);
    }
};

template <typename T> void dg_cuda_gate(const GateArgs *a)
{
    DG_LAUNCH(gate_kernel<T>, dg_blocks(a->batch * a->rows * a->width, THREADS),
              THREADS, 0, *a);
}

template <typename T> void dg_cuda_gate_grad(const GateArgs *a)
{
    if (a->df != NULL)
        DG_LAUNCH(gate_input_grad_kernel<T>,
                  dg_blocks(a->batch * a->rows * a->width, THREADS), THREADS, 0,
                  *a);
    for (int64_t b = 0; a->dgate != NULL && b < a->batch; ++b) {
        const int64_t at = b * a->rows * a->width;
        const GateTerm<T> term = { past<T>(a->dy, at), past<T>(a->f, at),
                                   a->width };
        const ColumnSums<1, T> to = { { past<T>(a->dgate, b * a->ld_gate) } };
        dg_column_sums(term, a->rows, a->width, to);
    }
}

template <typename T> __global__ void copy_kernel(CopyArgs a)
{
    const int64_t count = a.blocks * a.rows * a.width;

    for (int64_t i = first_index(); i < count; i += index_step()) {
        const int64_t b = i / (a.rows * a.width);
        const int64_t r = i / a.width % a.rows, c = i % a.width;
        const int64_t to = b * a.dst_block + r * a.dst_ld + c;
        const float x = get<T>(a.src, b * a.src_block + r * a.src_ld + c);
        put<T>(a.dst, to, a.accumulate ? get<T>(a.dst, to) + x : x);
    }
}

template <typename T> void dg_cuda_copy(const CopyArgs *a)
{
    DG_LAUNCH(copy_kernel<T>,
              dg_blocks(a->blocks * a->rows * a->width, THREADS), THREADS, 0,
              *a);
}

template <typename T> __global__ void embed_kernel(EmbedArgs a)
{
    const int64_t count = a.count * a.width;

    for (int64_t i = first_index(); i < count; i += index_step())
        put<T>(a.y, i,
               get<T>(a.table,
                      (int64_t)a.ids[i / a.width] * a.width + i % a.width));
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
    DG_LAUNCH(embed_kernel<T>, dg_blocks(a->count * a->width, THREADS), THREADS,
              0, *a);
}

template <typename T> void dg_cuda_embed_grad(const EmbedArgs *a)
{
    DG_LAUNCH(embed_grad_kernel<T>, dg_blocks(a->count, 1), THREADS, 0, *a);
}

template <typename T>
__global__ void add_kernel(float *y, const float *a, const float *b,
                           int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        put<T>(y, i, get<T>(a, i) + get<T>(b, i));
}

template <typename T>
__global__ void scale_kernel(float *y, const float *x, float alpha,
                             int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        put<T>(y, i, get<T>(x, i) * alpha);
}

template <typename T>
__global__ void fill_kernel(float *y, float value, int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        put<T>(y, i, value);
}

template <typename T>
void dg_cuda_add(float *y, const float *a, const float *b, int64_t count)
{
    DG_LAUNCH(add_kernel<T>, dg_blocks(count, THREADS), THREADS, 0, y, a, b,
              count);
}

template <typename T>
void dg_cuda_scale(float *y, const float *x, float alpha, int64_t count)
{
    DG_LAUNCH(scale_kernel<T>, dg_blocks(count, THREADS), THREADS, 0, y, x,
              alpha, count);
}

template <typename T> void dg_cuda_fill(float *y, float value, int64_t count)
{
    DG_LAUNCH(fill_kernel<T>, dg_blocks(count, THREADS), THREADS, 0, y, value,
              count);
}

/* The arithmetic is src/diffusion/guidance.c's; weight 0 and 1 copy. */
__global__ void combine_kernel(float *u, const float *uncond, const float *cond,
                               double w, int64_t count)
{
    const float scale = (float)w;

    for (int64_t i = first_index(); i < count; i += index_step()) {
        const float a = get(uncond, i), b = get(cond, i);
        put(u, i, w == 1 ? b : w == 0 ? a : a + scale * (b - a));
    }
}

void dg_cuda_combine(float *u, const float *uncond, const float *cond, double w,
                     int64_t count)
{
    DG_LAUNCH(combine_kernel, dg_blocks(count, THREADS), THREADS, 0, u, uncond,
              cond, w, count);
}

/* A thread keeps its first index; the least of them all is an integer, whose
 * atomic minimum does not depend on the order. -1 is the largest unsigned. */
template <typename T>
__global__ void first_nonfinite_kernel(unsigned long long *found,
                                       const float *x, int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        if (!isfinite(get<T>(x, i))) {
            atomicMin(found, (unsigned long long)i);
            return;
        }
}

/* least: as above */
__global__ void flag_kernel(unsigned long long *least, unsigned long long value,
                            const float *x, int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        if (!isfinite(get(x, i))) {
            atomicMin(least, value);
            return;
        }
}

void dg_cuda_flag(int64_t *least, int64_t value, const float *x, int64_t count)
{
    DG_LAUNCH(flag_kernel, dg_blocks(count, THREADS), THREADS, 0,
              (unsigned long long *)least, (unsigned long long)value, x, count);
}

template <typename T>
int64_t dg_cuda_first_nonfinite(const float *x, int64_t count)
{
    CudaStream *s = dg_cuda_current();

    dg_cuda_note(cudaMemsetAsync(s->result, 0xff, sizeof *s->result, s->stream),
                 "first_nonfinite");
    DG_LAUNCH(first_nonfinite_kernel<T>, dg_blocks(count, THREADS), THREADS, 0,
              (unsigned long long *)s->result, x, count);
    return dg_cuda_result(s, -1);
}

/* from one storage type to another */
template <typename D, typename S>
__global__ void cast_kernel(float *to, const float *from, int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        put<D>(to, i, get<S>(from, i));
}

template <typename D, typename S>
static void cast(void *to, const void *from, int64_t count)
{
    DG_LAUNCH((cast_kernel<D, S>), dg_blocks(count, THREADS), THREADS, 0,
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
