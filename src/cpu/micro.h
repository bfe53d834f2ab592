#ifndef DG_CPU_MICRO_H
#define DG_CPU_MICRO_H
/*
 * A small matrix product for operands that already lie in cache:
 * c[m,n] (+)= a b, n a multiple of VL. Every element is
 * one chain of multiply-adds in the order of k, whatever the tile it falls
 * into. Internal to src/cpu.
 */
#include "simd.h"

enum { DG_MICRO_PANEL = 3 * VL };

typedef struct Micro {
    int64_t m, n, k;
    const float *a; /* element (i, l) at a[i row_a + l col_a] */
    int64_t row_a, col_a;
    const float *b;        /* [k, n] in panels of DG_MICRO_PANEL columns */
    int64_t ld_b, panel_b; /* between rows of a panel; between panels */
    float *c;              /* [m, n], pitch ld_c */
    int64_t ld_c;
    const float *bias; /* [n]: c = a b + bias, or NULL */
    int accumulate;    /* then bias is not looked at */
} Micro;

void dg_cpu_micro(const Micro *g);

#endif
