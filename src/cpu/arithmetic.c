/* What the host's bits depend on, as text. */
#include "cpu/cpu.h"

#include <dnnl.h>
#include <gnu/libc-version.h>
#include <stdio.h>

/* oneDNN chooses its kernels when it runs, by what the processor has; those for
 * float32 differ by the width of vectors, of which a bit each tells. */
static const char *library_width(void)
{
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();

    if ((isa & 0x20) != 0)
        return "AVX-512";
    if ((isa & 0x4) != 0)
        return "AVX2";
    return (isa & 0x2) != 0 ? "AVX" : "SSE4.1";
}

static const char *own_width(void)
{
#if defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#else
    return "no AVX2";
#endif
}

void dg_cpu_arithmetic(char *text, size_t bytes)
{
    const dnnl_version_t *v = dnnl_version();

    snprintf(text, bytes,
             "CPU: kernels by gcc " __VERSION__
             " for %s, oneDNN %d.%d.%d with %s, glibc %s",
             own_width(), v->major, v->minor, v->patch, library_width(),
             gnu_get_libc_version());
}
