#include "kernels.h"

#include "act.h"
#include "columns.h"
#include "gemm.h"

/* y = act(pre), or of what y holds; a thread takes packs, as in act.cu */
template <typename T, int V> __global__ void linear_finish_kernel(LinearArgs a)
{
    each<V>(a.rows * a.out, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> x = fetch<T, N>(a.pre != NULL ? a.pre : a.y, i);
        store<T, N>(a.y, i, [&](int k) { return act_value(a.act, x.at(k)); });
    });
}

/* The value before the activation (+)= x w^T + bias over one range of k; bias
 * goes with the last range. */
template <typename T>
static void product(const LinearArgs *a, const float *x, const float *w,
                    int64_t k, const float *bias, int adds)
{
    GemmArgs g = {};

    g.trans_b = 1;
    g.m = a->rows, g.n = a->out, g.k = k;
    g.lda = k, g.ldb = a->ldw, g.ldc = a->out;
    g.rows_per_sample = a->rows_per_sample;
    g.beta = adds ? 1.0f : 0.0f;
    g.a = x, g.b = w, g.c = a->pre != NULL ? a->pre : a->y;
    dg_cuda_gemm_to<T, T>(&g, bias);
}

/*
 * In bfloat16 the library's epilogue takes the tanh form of GELU, and stores
 * pre too. It is asked for pre whether that is wanted or not (ops_linear.c
 * gives it a place): what is recorded and what is not, a rollout and its
 * update, are then one computation. 0: not for this shape of a sample.
 */
static int gelu_fused(const LinearArgs *a)
{
    const int64_t per = a->rows_per_sample > 0 ? a->rows_per_sample : a->rows;
    GemmArgs g = {};

    if (a->act != DG_ACT_GELU_TANH || a->pre == NULL || a->x2 != NULL ||
        per < DG_FEW_ROWS || a->rows % per != 0 || a->out % 8 != 0)
        return 0;
    g.trans_b = 1;
    g.m = per, g.n = a->out, g.k = a->in;
    g.lda = a->in, g.ldb = a->ldw, g.ldc = a->out;
    g.a = a->x, g.b = a->w, g.c = a->y;
    return dg_cuda_gelu_products(&g, a->bias, a->pre, a->rows / per,
                                 per * a->in, per * a->out);
}

template <typename T> static int fused(const LinearArgs *a);
template <> int fused<float>(const LinearArgs *)
{
    return 0;
}
template <> int fused<__nv_bfloat16>(const LinearArgs *a)
{
    return gelu_fused(a);
}

template <typename T> void dg_cuda_linear(const LinearArgs *a)
{
    const int second = a->x2 != NULL && a->in2 > 0;

    if (fused<T>(a))
        return;
    product<T>(a, a->x, a->w, a->in, second ? NULL : a->bias, 0);
    if (second)
        product<T>(a, a->x2, past<T>(a->w, a->in), a->in2, a->bias, 1);
    if (a->pre != NULL || a->act != DG_ACT_NONE)
        DG_LAUNCH_EACH(linear_finish_kernel, T, aligned(a->pre, a->y),
                       a->rows * a->out, *a);
}

/*
 * dw += dy^T x for few rows: a thread takes an element of dw and adds all
 * rows of all samples in order, which is the sample-after-sample sum without
 * rereading dw. Block (32, 8) covers 32 columns and 8 rows of dw; grid
 * (columns / 32, rows / 8). No shared memory.
 */
template <typename T> __global__ void few_rows_grad_kernel(LinearGradArgs a)
{
    const int64_t i = (int64_t)blockIdx.x * WARP + threadIdx.x;
    const int64_t rows = a.batch * a.rows;

    for (int64_t o = (int64_t)blockIdx.y * blockDim.y + threadIdx.y;
         i < a.in && o < a.out; o += (int64_t)gridDim.y * blockDim.y) {
        float sum = get(a.dw, o * a.ldw + i);
        for (int64_t r = 0; r < rows; ++r)
            sum = fmaf(get<T>(a.dy, r * a.out + o), get<T>(a.x, r * a.in + i),
                       sum);
        put(a.dw, o * a.ldw + i, sum);
    }
}

template <typename T> static void weight_grad(const LinearGradArgs *a)
{
    GemmArgs g = {};

    g.trans_a = 1;
    g.m = a->out, g.n = a->in, g.k = a->rows;
    g.lda = a->out, g.ldb = a->in, g.ldc = a->ldw;
    g.beta = 1.0f;
    g.c = a->dw;
    for (int64_t b = 0; b < a->batch; ++b) {
        g.a = past<T>(a->dy, b * a->rows * a->out);
        g.b = past<T>(a->x, b * a->rows * a->in);
        dg_cuda_products<T, float>(&g, NULL, 1, a->rows * a->out,
                                   a->rows * a->in, 0);
    }
}

template <typename T>
void dg_cuda_bias_grad(float *dbias, const float *dy, int64_t batch,
                       int64_t rows, int64_t out)
{
    for (int64_t b = 0; dbias != NULL && b < batch; ++b) {
        const RowTerm<T> term = { past<T>(dy, b * rows * out), out };
        const ColumnSums<1, float> to = { { dbias } };
        dg_column_sums(term, rows, out, aligned(dy), to);
    }
}

template <typename T> void dg_cuda_linear_grad(const LinearGradArgs *a)
{
    const int64_t tall = (a->out + WARPS - 1) / WARPS;

    if (a->rows < DG_FEW_ROWS)
        DG_LAUNCH(few_rows_grad_kernel<T>,
                  dim3((unsigned)((a->in + WARP - 1) / WARP), dg_side(tall)),
                  dim3(WARP, WARPS), 0, *a);
    else
        weight_grad<T>(a);
    dg_cuda_bias_grad<T>(a->dbias, a->dy, a->batch, a->rows, a->out);
}

DG_BOTH(dg_cuda_linear, LinearArgs)
DG_BOTH(dg_cuda_linear_grad, LinearGradArgs)

#define BIAS(T)                                                       \
    template void dg_cuda_bias_grad<T>(float *dbias, const float *dy, \
                                       int64_t batch, int64_t rows,   \
                                       int64_t out);

BIAS(float)
BIAS(__nv_bfloat16)
