#include "cpu/sgemm_rate.h"

#include "sgemm.h"

void dg_cpu_sgemm_bare(float *c, const float *a, const float *b, int64_t m,
                       int64_t n, int64_t k)
{
    dg_cpu_sgemm(&(GemmArgs) { .m = m,
                               .n = n,
                               .k = k,
                               .lda = k,
                               .ldb = n,
                               .ldc = n,
                               .a = a,
                               .b = b,
                               .c = c });
}
