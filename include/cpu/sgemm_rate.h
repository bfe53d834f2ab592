#ifndef DG_CPU_SGEMM_RATE_H
#define DG_CPU_SGEMM_RATE_H
/* The library's own matrix product, for measuring ours against it. */
#include <stdint.h>

/** c[m,n] = a[m,k] b[k,n] by one bare library call on the calling thread;
 *  all three dense and row-major, the layout the library is fastest on. Not
 *  collective. Errors: none; dg_panic() if the library refuses. */
void dg_cpu_sgemm_bare(float *c, const float *a, const float *b, int64_t m,
                       int64_t n, int64_t k);

#endif
