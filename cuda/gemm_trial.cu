#include "gemm_trial.h"

/*
 * A library's bits are compared where they can be seen. Numbers have many
 * magnitudes, so that sums are rounded at every step (of numbers of one magnitude
 * sums in float32 would be exact, in any order), and the second half of k takes
 * away what the first has added: a sum is then nothing but what was rounded,
 * which another order changes, and which bfloat16 holds as well as float32.
 */
enum {
    ROOM = 64 << 20,
    SMALL_ROOM = 1 << 20, /* of a device with less than */
    SMALL_GB = 8,
    MOST_DEVICES = 64,
    ALIGN = 256
};

typedef struct Room {
    char *at;
    size_t bytes;
    int users; /* streams of the device */
} Room;

static Room rooms[MOST_DEVICES];
/* held by whoever opens, closes, or tries */
static pthread_mutex_t trials = PTHREAD_MUTEX_INITIALIZER;

/* --- room ---------------------------------------------------------------- */

int dg_cuda_trial_open(int device)
{
    size_t unused, all;
    cudaError_t e = cudaSuccess;

    if (device >= MOST_DEVICES)
        return DG_OK; /* without room nothing is tried */
    Room *r = &rooms[device];
    pthread_mutex_lock(&trials);
    if (r->users++ == 0) {
        e = cudaMemGetInfo(&unused, &all);
        if (e == cudaSuccess) {
            r->bytes = all >> 30 < SMALL_GB ? SMALL_ROOM : ROOM;
            e = cudaMalloc((void **)&r->at, r->bytes);
        }
        if (e != cudaSuccess)
            *r = Room {};
    }
    pthread_mutex_unlock(&trials);
    if (e == cudaSuccess)
        return DG_OK;
    cudaGetLastError();
    return dg_fail(e == cudaErrorMemoryAllocation ? DG_ENOMEM : DG_EDEVICE,
                   "CUDA: room for trials of products: %s",
                   cudaGetErrorString(e));
}

void dg_cuda_trial_close(int device)
{
    if (device >= MOST_DEVICES)
        return;
    Room *r = &rooms[device];
    pthread_mutex_lock(&trials);
    if (r->users > 0 && --r->users == 0) {
        cudaFree(r->at);
        *r = Room {};
    }
    pthread_mutex_unlock(&trials);
}

/* --- numbers ------------------------------------------------------------- */

/* how a matrix lies along k, which of its rows or columns are */
typedef struct AlongK {
    int64_t k, ld;
    int rows;
    int falls; /* the second half has the other sign */
} AlongK;

/* The same numbers in both halves of k, 2^-16 to 1 and either sign; 0 where k
 * is odd and at its end. Blocks of THREADS, no shared memory. */
template <typename T>
__global__ void trial_draw_kernel(float *at, int64_t count, AlongK by)
{
    const int64_t half = by.k / 2;

    for (int64_t i = first_index(); i < count; i += index_step()) {
        const int64_t row = i / by.ld, col = i % by.ld;
        const int64_t l = (by.rows ? row : col) % by.k;
        const int64_t same = i - (l < half ? 0 : by.rows ? half * by.ld : half);
        uint32_t x = (uint32_t)same * 0x9e3779b9u + 1;
        x = (x ^ x >> 16) * 0x85ebca6bu;
        x = (x ^ x >> 13) * 0xc2b2ae35u;
        const float z =
            ldexpf(1.0f + (float)(x >> 25) / 128.0f, -1 - (int)(x >> 16 & 15u));
        const int minus = (x & 1u) != (uint32_t)(by.falls && l >= half);
        put<T>(at, i, l >= 2 * half ? 0.0f : minus ? -z : z);
    }
}

/* *least becomes the first word that differs. */
__global__ void trial_compare_kernel(unsigned long long *least,
                                     const uint32_t *x, const uint32_t *y,
                                     int64_t words)
{
    for (int64_t i = first_index(); i < words; i += index_step())
        if (x[i] != y[i])
            keep_least(least, (unsigned long long)i);
}

static void compare(const char *x, const char *y, size_t bytes)
{
    const int64_t words = (int64_t)(bytes / sizeof(uint32_t));

    DG_LAUNCH(trial_compare_kernel, dg_blocks(words, THREADS), THREADS, 0,
              (unsigned long long *)dg_cuda_current()->result,
              (const uint32_t *)x, (const uint32_t *)y, words);
}

/* --- a trial ------------------------------------------------------------- */

/* a range of the room, and an address in it of just the alignment wanted */
typedef struct Piece {
    char *from, *at; /* NULL: there is no room, or none is wanted */
    size_t bytes;    /* from 'from' on */
    int64_t count;   /* elements at 'at' */
} Piece;

typedef struct Pieces {
    Piece a, b, bias;
    Piece c[2], pre[2];
} Pieces;

static void take(Piece *p, Room *left, int64_t elements, int32_t type,
                 uint32_t align)
{
    const size_t bytes = (size_t)elements * dg_cuda_gemm_size(type);

    if (align == 0 || left->at == NULL)
        return;
    p->count = elements;
    p->from = left->at;
    p->at = left->at + (align < ALIGN ? align : 0);
    p->bytes = (bytes + 2 * ALIGN - 1) / ALIGN * ALIGN;
    if (p->bytes > left->bytes) {
        left->at = NULL;
        return;
    }
    left->at += p->bytes;
    left->bytes -= p->bytes;
}

static int64_t span(int64_t rows, int64_t cols, int64_t ld)
{
    return (rows - 1) * ld + cols;
}

/* 0: they do not fit */
static int lay(Pieces *p, Room left, const GemmShape *s, const GemmSamples *by)
{
    const int64_t more = by->num - 1;

    *p = Pieces {};
    take(&p->a, &left,
         more * by->a +
             span(s->trans_a ? s->k : s->m, s->trans_a ? s->m : s->k, s->lda),
         s->type, s->align_a);
    take(&p->b, &left,
         more * by->b +
             span(s->trans_b ? s->n : s->k, s->trans_b ? s->k : s->n, s->ldb),
         s->type, s->align_b);
    take(&p->bias, &left, s->n, s->type_c, s->align_bias);
    for (int i = 0; i < 2; ++i) {
        const int64_t c = more * by->c + span(s->m, s->n, s->ldc);
        take(&p->c[i], &left, c, s->type_c, s->align_c);
        take(&p->pre[i], &left, c, s->type_c, s->align_pre);
    }
    return left.at != NULL;
}

static const float *of_sample(const Piece *p, int64_t elements, int32_t type)
{
    return dg_cuda_gemm_past((const float *)p->at, elements, type);
}

static void draw(const Piece *p, int32_t type, const AlongK &by)
{
    const dim3 grid = dg_blocks(p->count, THREADS);

    if (type == CUDA_R_16BF)
        DG_LAUNCH(trial_draw_kernel<__nv_bfloat16>, grid, THREADS, 0,
                  (float *)p->at, p->count, by);
    else
        DG_LAUNCH(trial_draw_kernel<float>, grid, THREADS, 0, (float *)p->at,
                  p->count, by);
}

/* Factors are drawn. What is added to a sum is 0, so that it hides nothing. */
static void prepare(const Pieces *p, const GemmShape *s)
{
    const Piece *none[] = { &p->bias, &p->c[0], &p->c[1], &p->pre[0],
                            &p->pre[1] };
    const AlongK a = { s->k, s->lda, s->trans_a, 0 };
    const AlongK b = { s->k, s->ldb, !s->trans_b, 1 };

    draw(&p->a, s->type, a);
    draw(&p->b, s->type, b);
    for (size_t i = 0; i < sizeof none / sizeof *none; ++i)
        if (none[i]->bytes > 0)
            dg_cuda_note(cudaMemsetAsync(none[i]->from, 0, none[i]->bytes,
                                         dg_cuda_current()->stream),
                         "trial of a product");
}

/* samples from the given one on, to one of the two results; 0: refused */
static int multiply(cublasLtHandle_t h, const GemmShape *s,
                    const GemmSamples *by, const Pieces *p, int to,
                    int64_t first, const cublasLtMatmulAlgo_t *algo)
{
    const int64_t past = first * by->c;
    const GemmFinish f = { (const float *)p->bias.at,
                           dg_cuda_gemm_past((float *)p->pre[to].at, past,
                                             s->type_c) };
    GemmCall call;

    dg_cuda_gemm_describe_samples(&call, s, &f, by);
    const cublasStatus_t e = dg_cuda_gemm_multiply(
        h, &call, s->adds ? 1.0f : 0.0f,
        of_sample(&p->a, first * by->a, s->type),
        of_sample(&p->b, first * by->b, s->type),
        dg_cuda_gemm_past((float *)p->c[to].at, past, s->type_c), algo);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED)
        return 0;
    dg_cuda_gemm_note(e, "trial of a product");
    return 1;
}

static GemmTrial try_out(cublasLtHandle_t h, const GemmShape *s,
                         const GemmSamples *by, const Pieces *p,
                         const cublasLtMatmulAlgo_t *algo)
{
    const GemmSamples one = { 1, by->a, by->b, by->c };
    CudaStream *stream = dg_cuda_current();

    int ran = 1;

    prepare(p, s);
    for (int64_t i = 0; i < by->num && ran; ++i)
        ran = multiply(h, s, &one, p, 0, i, algo);
    ran = ran && multiply(h, s, by, p, 1, 0, algo);
    dg_cuda_note(cudaMemsetAsync(stream->result, 0xff, sizeof *stream->result,
                                 stream->stream),
                 "trial of a product");
    /* c and pre lie side by side */
    compare(p->c[0].from, p->c[1].from, p->c[0].bytes + p->pre[0].bytes);
    /* waits in any case: the room is the next trial's */
    const int same = dg_cuda_result(stream, 0) < 0;
    return !ran ? DG_TRIAL_REFUSED : same ? DG_TRIAL_SAME : DG_TRIAL_DIFFERS;
}

GemmTrial dg_cuda_trial(cublasLtHandle_t h, const GemmShape *s,
                        const GemmSamples *by, const cublasLtMatmulAlgo_t *algo)
{
    CudaStream *stream = dg_cuda_current();
    const StreamMode mode = stream->mode;
    GemmTrial found = DG_TRIAL_NO_ROOM;
    Pieces p;

    if (stream->device >= MOST_DEVICES)
        return found;
    pthread_mutex_lock(&trials);
    if (rooms[stream->device].at != NULL &&
        lay(&p, rooms[stream->device], s, by)) {
        stream->mode = DG_STREAM_RUNS;
        found = try_out(h, s, by, &p, algo);
        stream->mode = mode;
    }
    pthread_mutex_unlock(&trials);
    return found;
}
