/* cublasLt.h on plain loops. */
#include "cublasLt.h"

#include "cuda_bf16.h"

#include <math.h>
#include <stdlib.h>

#include <array>
#include <atomic>
#include <mutex>
#include <set>

const char *cublasLtGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS            ? "success"
           : s == CUBLAS_STATUS_NOT_SUPPORTED    ? "not supported"
           : s == CUBLAS_STATUS_EXECUTION_FAILED ? "execution failed"
                                                 : "invalid value";
}

size_t cublasLtGetVersion(void)
{
    return 130002;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = nullptr;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

/* copies an attribute of the right size */
static cublasStatus_t take(void *to, size_t size, const void *value,
                           size_t bytes)
{
    if (bytes != size)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t l,
                                        cudaDataType type, uint64_t rows,
                                        uint64_t cols, int64_t ld)
{
    *l = cublasLtMatrixLayoutOpaque_t { rows, cols, ld, 0, 1, type };
    return ld >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS
                               : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attr,
    const void *value, size_t bytes)
{
    if (attr == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT)
        return take(&l->batch, sizeof l->batch, value, bytes);
    return take(&l->stride, sizeof l->stride, value, bytes);
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t d,
                                      cublasComputeType_t, cudaDataType_t)
{
    *d = cublasLtMatmulDescOpaque_t { CUBLAS_OP_N,
                                      CUBLAS_OP_N,
                                      CUBLASLT_EPILOGUE_DEFAULT,
                                      nullptr,
                                      nullptr,
                                      0,
                                      0 };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attr,
    const void *value, size_t bytes)
{
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&d->trans_a, sizeof d->trans_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&d->trans_b, sizeof d->trans_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&d->epilogue, sizeof d->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&d->bias, sizeof d->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return take(&d->aux, sizeof d->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return take(&d->aux_ld, sizeof d->aux_ld, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
        return take(&d->aux_stride, sizeof d->aux_stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t p)
{
    *p = cublasLtMatmulPreferenceOpaque_t { 0, 7, { 256, 256, 256, 256 } };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t attr,
    const void *value, size_t bytes)
{
    if (attr == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return take(&p->workspace, sizeof p->workspace, value, bytes);
    if (attr == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return take(&p->reduction, sizeof p->reduction, value, bytes);
    return take(&p->align[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                sizeof p->align[0], value, bytes);
}

/* the largest power of two up to 16 that an address is a multiple of */
static uint32_t address_align(const void *p)
{
    const uintptr_t all = (uintptr_t)p | 16;

    return (uint32_t)(all & (~all + 1));
}

/* what the epilogue's documentation, and the library's own messages, ask of
 * GELU's input */
static bool aux_fits(cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t l)
{
    const int64_t whole = (int64_t)l->cols * d->aux_ld;
    const bool apart =
        d->aux_stride >= whole || (d->aux_stride == 0 && l->batch == 1);

    return !(d->epilogue & CUBLASLT_EPILOGUE_GELU_AUX) ||
           (d->aux != nullptr && d->aux_ld % 8 == 0 &&
            d->aux_ld >= (int64_t)l->rows && d->aux_stride % 8 == 0 && apart);
}

/* A pointer where, and only where, the epilogue reads it, aligned to a value. */
static bool bias_fits(cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t l)
{
    const bool reads = d->epilogue & CUBLASLT_EPILOGUE_BIAS;

    return reads == (d->bias != nullptr) &&
           (uintptr_t)d->bias % (l->type == CUDA_R_16BF ? 2 : 4) == 0;
}

/* CUDA_EMULATION_NO_PRODUCT="all" or "some" in the environment: shapes for which
 * the library has nothing, some by their sides alone, as it would. */
static bool has_none(cublasLtMatrixLayout_t c, uint64_t k)
{
    const char *text = getenv("CUDA_EMULATION_NO_PRODUCT");

    return text != nullptr &&
           (strcmp(text, "all") == 0 || (c->rows + c->cols + k) / 4 % 2 == 0);
}

/* Which of them is wanted, see cublasLt.h; and its number, if it has one */
static bool products_are(const char *what, int *number = nullptr)
{
    const char *text = getenv("CUDA_EMULATION_PRODUCTS");
    const size_t length = strlen(what);

    if (text == nullptr || strncmp(text, what, length) != 0)
        return false;
    if (number != nullptr)
        *number = atoi(text + length);
    return true;
}

/* The best, and some with another order of sums; they do what the environment
 * says. */
static int offer(cublasLtMatmulHeuristicResult_t results[], int wanted,
                 const cublasLtMatmulAlgo_t &best)
{
    enum { OFFERED = 3 };
    const int first = products_are("few") ? OFFERED - 1 : 0;
    const int num = wanted < OFFERED - first ? wanted : OFFERED - first;
    int refuse = 0;

    products_are("refuse", &refuse);
    for (int i = 0; i < num; ++i) {
        results[i] = cublasLtMatmulHeuristicResult_t {};
        results[i].algo = best;
        results[i].algo.chunk += 3 * (uint32_t)(first + i);
        if (products_are("split") && i + 1 < OFFERED)
            results[i].algo.split = 2;
        results[i].algo.varies = products_are("vary");
        results[i].algo.refuses = i < refuse;
    }
    return num;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
    cublasLtMatmulPreference_t p, int wanted,
    cublasLtMatmulHeuristicResult_t results[], int *found)
{
    const uint64_t k = d->trans_a == CUBLAS_OP_N ? a->cols : a->rows;
    const uint64_t size = c->rows * c->cols * (uint64_t)c->batch;
    cublasLtMatmulAlgo_t algo = { 8, 1, 256, 1, 1, 0, 0 };

    cuda_emulation_asked();
    if (wanted < 1 || !aux_fits(d, c) || !bias_fits(d, c))
        return CUBLAS_STATUS_INVALID_VALUE;
    *found = 0;
    if ((d->epilogue & CUBLASLT_EPILOGUE_GELU_AUX) && c->rows % 64 == 56)
        return CUBLAS_STATUS_NOT_SUPPORTED; /* there are such shapes */
    if (has_none(c, k))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (uint64_t s = size; s > 64; s /= 2)
        algo.chunk = algo.chunk * 7 % 61 + 2; /* any rule will do */
    for (int i = 0; i < 4; ++i)
        if (p->align[i] < algo.align)
            algo.align = p->align[i];
    for (uint32_t all = algo.align; all > 16 && products_are("places");
         all /= 2)
        algo.chunk += 1;
    if (algo.align < 16) {
        algo.align = a->type == CUDA_R_16BF ? 2 : 4;
        algo.chunk += 1;
    }
    if (p->reduction != CUBLASLT_REDUCTION_SCHEME_NONE && k >= 32)
        algo.split = 2;
    if (d->epilogue & CUBLASLT_EPILOGUE_BIAS) { /* read as wide as it lies */
        algo.align_bias = address_align(d->bias);
        algo.chunk += algo.align_bias >= 16;
    }
    if (d->epilogue & CUBLASLT_EPILOGUE_GELU_AUX)
        algo.align_aux = address_align(d->aux);
    *found = offer(results, wanted, algo);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(
    const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attr,
    void *value, size_t bytes, size_t *written)
{
    const uint32_t values[] = { algo->split, algo->split > 1 ? 2u : 0u };

    if (bytes != sizeof values[0])
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(value, &values[attr == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME],
           bytes);
    *written = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(
    cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
    const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *out)
{
    cuda_emulation_asked();
    if (!aux_fits(desc, c) || !bias_fits(desc, c))
        return CUBLAS_STATUS_INVALID_VALUE;
    out->algo = *algo;
    out->workspaceSize = 0;
    out->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

namespace
{

/* Row i of a strided batch's matrix, element at of it. */
struct Matrix {
    const void *first;
    const cublasLtMatrixLayoutOpaque_t *l;

    size_t size() const
    {
        return l->type == CUDA_R_16BF ? sizeof(__nv_bfloat16) : sizeof(float);
    }
    const char *at(int64_t i) const
    {
        return (const char *)first + i * l->stride * (int64_t)size();
    }
    float get(int64_t i, int64_t at_element) const
    {
        const char *p = at(i) + at_element * (int64_t)size();

        return l->type == CUDA_R_16BF
                   ? __bfloat162float(*(const __nv_bfloat16 *)p)
                   : *(const float *)p;
    }
    void put(int64_t i, int64_t at_element, float x) const
    {
        char *p = (char *)at(i) + at_element * (int64_t)size();

        if (l->type == CUDA_R_16BF)
            *(__nv_bfloat16 *)p = __float2bfloat16_rn(x);
        else
            *(float *)p = x;
    }
};

/* one product of column-major matrices; at [k, m] is op(A) transposed, bt
 * [n, k] op(B), both widened */
struct Product {
    int64_t m, n, k;
    const float *at, *bt;
    Matrix d;
    Matrix bias; /* a column; first nullptr: none */
    Matrix aux;  /* GELU's input; first nullptr: no GELU */
    float alpha, beta;
    const cublasLtMatmulAlgo_t *algo;
    uint32_t chunk; /* in this call */
};

/* Adds columns first to last of at, four at a time, which is less to load and
 * to store; each sum stays in the order of columns. */
void add_columns(const Product *p, const float *b, int64_t first, int64_t last,
                 float *__restrict part)
{
    const int64_t m = p->m;
    int64_t l = first;

    for (; l + 4 <= last; l += 4) {
        const float *a = p->at + l * m;
        for (int64_t i = 0; i < m; ++i) {
            float x = fmaf(a[i], b[l], part[i]);
            x = fmaf(a[m + i], b[l + 1], x);
            x = fmaf(a[2 * m + i], b[l + 2], x);
            part[i] = fmaf(a[3 * m + i], b[l + 3], x);
        }
    }
    for (; l < last; ++l)
        for (int64_t i = 0; i < m; ++i)
            part[i] = fmaf(p->at[l * m + i], b[l], part[i]);
}

void add_range(const Product *p, int64_t j, int64_t first, int64_t last,
               float *__restrict sum, float *__restrict part)
{
    for (int64_t l = first; l < last; l += p->chunk) {
        const int64_t end = l + p->chunk < last ? l + p->chunk : last;
        add_columns(p, p->bt + j * p->k, l, end, part);
        for (int64_t i = 0; i < p->m; ++i) {
            sum[i] += part[i];
            part[i] = 0.0f;
        }
    }
}

/* of the sum itself, before it is rounded to aux's type */
float gelu_tanh(float x)
{
    return 0.5f * x *
           (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

void product(const Product *p, int64_t b, float *work)
{
    float *sum = work, *part = work + p->m;

    for (int64_t j = 0; j < p->n; ++j) {
        memset(work, 0, 2 * (size_t)p->m * sizeof *work);
        for (uint32_t s = 0; s < p->algo->split; ++s)
            add_range(p, j, p->k * s / p->algo->split,
                      p->k * (s + 1) / p->algo->split, sum, part);
        for (int64_t i = 0; i < p->m; ++i) {
            const int64_t to = j * p->d.l->ld + i;
            float x = p->alpha * sum[i];
            if (p->beta != 0.0f)
                x += p->beta * p->d.get(b, to);
            if (p->bias.first != nullptr)
                x += p->bias.get(0, i);
            if (p->aux.first != nullptr) {
                p->aux.put(b, j * p->aux.l->ld + i, x);
                x = gelu_tanh(x);
            }
            p->d.put(b, to, x);
        }
    }
}

float wide(float x)
{
    return x;
}

float wide(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* out[l, r] of in[l, r], each with its distances */
template <typename T>
void widen(float *__restrict out, int64_t out_l, int64_t out_r, const T *in,
           int64_t in_l, int64_t in_r, int64_t k, int64_t outer)
{
    if (out_r != 1) { /* then out_l is */
        widen(out, out_r, out_l, in, in_r, in_l, outer, k);
        return;
    }
    for (int64_t l = 0; l < k; ++l) {
        float *to = out + l * out_l;
        const T *from = in + l * in_l;
        if (in_r == 1)
            for (int64_t r = 0; r < outer; ++r)
                to[r] = wide(from[r]);
        else
            for (int64_t r = 0; r < outer; ++r)
                to[r] = wide(from[r * in_r]);
    }
}

/* op(M) of batch entry i, outer [rows] by inner [k] to out[inner, outer], or
 * with outer_first [outer, inner] */
void widen(float *out, const Matrix &m, int64_t i, int64_t outer, int64_t k,
           bool k_is_row, bool outer_first)
{
    const int64_t in_l = k_is_row ? 1 : m.l->ld, in_r = k_is_row ? m.l->ld : 1;
    const int64_t out_l = outer_first ? 1 : outer, out_r = outer_first ? k : 1;

    if (m.l->type == CUDA_R_16BF)
        widen(out, out_l, out_r, (const __nv_bfloat16 *)m.at(i), in_l, in_r, k,
              outer);
    else
        widen(out, out_l, out_r, (const float *)m.at(i), in_l, in_r, k, outer);
}

bool aligned(const void *p, uint32_t align)
{
    return (uintptr_t)p % align == 0;
}

bool types_fit(cudaDataType a, cudaDataType b, cudaDataType d)
{
    return a == b && (d == a || d == CUDA_R_32F);
}

bool sizes_fit(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
               cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t d)
{
    const bool ta = desc->trans_a == CUBLAS_OP_T,
               tb = desc->trans_b == CUBLAS_OP_T;

    return (ta ? a->cols : a->rows) == d->rows &&
           (tb ? b->rows : b->cols) == d->cols &&
           (ta ? a->rows : a->cols) == (tb ? b->cols : b->rows) &&
           a->batch == d->batch && b->batch == d->batch;
}

/* of a call of so many samples */
uint32_t chunk_of(const cublasLtMatmulAlgo_t *algo, int32_t num)
{
    static std::atomic<uint32_t> calls;
    int least = 0;
    uint32_t chunk = algo->chunk;

    if (algo->varies)
        chunk += ++calls % 2;
    if (products_are("batch", &least) && num >= least)
        chunk += 1;
    return chunk;
}

cublasLtMatrixLayoutOpaque_t aux_layout(cublasLtMatmulDesc_t desc,
                                        cublasLtMatrixLayout_t d)
{
    return {
        d->rows, d->cols, desc->aux_ld, desc->aux_stride, d->batch, d->type
    };
}

bool all_aligned(const Product *p, const Matrix &a, const Matrix &b, int64_t i)
{
    return aligned(a.at(i), p->algo->align) &&
           aligned(b.at(i), p->algo->align) &&
           aligned(p->d.at(i), p->algo->align) &&
           (p->aux.first == nullptr ||
            aligned(p->aux.at(i), p->algo->align_aux));
}

/* All samples; room: for at, bt and product()'s work. False: not aligned. */
bool batch(const Product *p, const Matrix &a, bool a_by_row, const Matrix &b,
           bool b_by_row, float *room)
{
    float *bt = room + p->m * p->k, *work = bt + p->n * p->k;

    for (int64_t i = 0; i < p->d.l->batch; ++i) {
        if (!all_aligned(p, a, b, i))
            return false;
        widen(room, a, i, p->m, p->k, a_by_row, false);
        widen(bt, b, i, p->n, p->k, b_by_row, true);
        product(p, i, work);
        const float first = p->d.get(i, 0);
        if (i == 0 ? cuda_emulation_wrong("product")
                   : fabsf(first) > 1e-4f && cuda_emulation_wrong("batch"))
            p->d.put(i, 0, nextafterf(first, INFINITY));
    }
    return true;
}

} // namespace

/* A problem's kernel is loaded with its first call. */
static void load(const cublasLtMatrixLayoutOpaque_t *a,
                 const cublasLtMatrixLayoutOpaque_t *d)
{
    static std::set<std::array<uint64_t, 6>> *const loaded =
        new std::set<std::array<uint64_t, 6>>;
    static std::mutex lock;

    lock.lock();
    const bool first = loaded
                           ->insert({ a->rows, a->cols, d->rows, d->cols,
                                      (uint64_t)d->batch, (uint64_t)a->type })
                           .second;
    lock.unlock();
    if (first)
        cuda_emulation_loads();
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                              const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta,
                              const void *C, cublasLtMatrixLayout_t, void *D,
                              cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algo, void *, size_t,
                              cudaStream_t stream)
{
    if (cuda_emulation_last() != cudaSuccess)
        return CUBLAS_STATUS_EXECUTION_FAILED; /* who has left that there? */
    if (algo->refuses)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    load(a, d);
    if (cuda_emulation_defers(stream)) {
        cuda_emulation_keep([=, is = *desc, one = *(const float *)alpha,
                             two = *(const float *)beta, la = *a, lb = *b,
                             ld = *d, how = *algo]() mutable {
            const cublasStatus_t e =
                cublasLtMatmul(nullptr, &is, &one, A, &la, B, &lb, &two, C, &ld,
                               D, &ld, &how, nullptr, 0, nullptr);
            return e ? cudaErrorInvalidValue : cudaSuccess;
        });
        return CUBLAS_STATUS_SUCCESS;
    }
    const bool ta = desc->trans_a == CUBLAS_OP_T,
               tb = desc->trans_b == CUBLAS_OP_T,
               biased = desc->epilogue & CUBLASLT_EPILOGUE_BIAS,
               gelu = desc->epilogue & CUBLASLT_EPILOGUE_GELU_AUX;
    const int64_t m = (int64_t)d->rows, n = (int64_t)d->cols;
    const int64_t k = (int64_t)(ta ? a->rows : a->cols);

    if (C != D || !sizes_fit(desc, a, b, d) ||
        !types_fit(a->type, b->type, d->type) || !aux_fits(desc, d) ||
        !bias_fits(desc, d) ||
        (biased && !aligned(desc->bias, algo->align_bias)))
        return CUBLAS_STATUS_INVALID_VALUE;
    const CudaEmulationOpen open;
    const cublasLtMatrixLayoutOpaque_t aux = aux_layout(desc, d);
    const Matrix ma = { A, a }, mb = { B, b }, md = { D, d };
    const Matrix mx = { gelu ? desc->aux : nullptr, &aux };
    const size_t floats = (size_t)(m * k + n * k + 2 * m);
    float *at = new float[floats];
    const Product p = { m,
                        n,
                        k,
                        at,
                        at + m * k,
                        md,
                        { biased ? desc->bias : nullptr, d },
                        mx,
                        *(const float *)alpha,
                        *(const float *)beta,
                        algo,
                        chunk_of(algo, d->batch) };
    const bool done = batch(&p, ma, ta, mb, !tb, at);
    delete[] at;
    return done ? CUBLAS_STATUS_SUCCESS
                : CUBLAS_STATUS_INVALID_VALUE; /* a fault on a device */
}
