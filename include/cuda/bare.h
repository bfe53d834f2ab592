#ifndef DG_CUDA_BARE_H
#define DG_CUDA_BARE_H
/* The library's own matrix product and the device's own clock, for measuring
 * ours against them. On the current stream. Not collective. */
#include <stdint.h>

typedef struct CudaBare CudaBare;

/* How numbers are stored and multiplied; sums are float32. */
typedef enum CudaArithmetic {
    DG_CUDA_FLOAT32,
    DG_CUDA_TF32, /* float32, rounded to 10 bits of fraction when multiplied */
    DG_CUDA_BFLOAT16,
    DG_CUDA_OWN_FLOAT32, /* by this project's kernels, which stand in for the */
    DG_CUDA_OWN_BFLOAT16, /* library: nothing is asked of it */
    DG_CUDA_ARITHMETICS
} CudaArithmetic;

/** Errors: DG_EDEVICE, DG_ENOMEM. */
int dg_cuda_bare_create(CudaBare **out, CudaArithmetic how);
/** NULL is allowed. */
void dg_cuda_bare_destroy(CudaBare *b);

/**
 * c[m,n] = a[m,k] b[k,n], dense and row-major in device memory, by the
 * library's first choice for the whole of it, with a workspace, whatever its
 * order of sums. The choice is kept: ask once before measuring.
 * bare  CudaBare. Failures: as of kernels, by dg_cuda_wait().
 */
void dg_cuda_bare_product(void *bare, float *c, const float *a, const float *b,
                          int64_t m, int64_t n, int64_t k);

/** Seconds of the device from start to stop, which waits; NAN where it failed,
 *  which is the last error then. bare  CudaBare. */
void dg_cuda_bare_start(void *bare);
double dg_cuda_bare_stop(void *bare);

#endif
