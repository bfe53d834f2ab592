#ifndef DG_CPU_ATTENTION_H
#define DG_CPU_ATTENTION_H
/*
 * What forward and backward of attention share: tile sizes and packing.
 * Tile sizes depend on sk alone. Internal to src/cpu.
 */
#include "micro.h"

#include "base/arena.h"
#include "tensor/backend.h"

/* x rounded up to whole vectors */
V_INLINE int64_t att_pad(int64_t x)
{
    return (x + VL - 1) / VL * VL;
}

/* keys of a tile: at most 'most', tiles as equal as panels allow */
V_INLINE int64_t att_keys(int64_t sk, int64_t most)
{
    const int64_t tiles = (sk + most - 1) / most;
    const int64_t share = tiles > 0 ? (sk + tiles - 1) / tiles : 1;

    return (share + DG_MICRO_PANEL - 1) / DG_MICRO_PANEL * DG_MICRO_PANEL;
}

/* src's rows of d elements, pitch ld_src, to dst's */
V_INLINE void att_copy(float *dst, int64_t ld_dst, const float *src,
                       int64_t ld_src, int64_t rows, int64_t d)
{
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < d; i += VL)
            v_put(dst + r * ld_dst, i, d, v_get(src + r * ld_src, i, d));
}

/* A right-hand side [k, n] in panels of up to DG_MICRO_PANEL columns. */
typedef struct Packed {
    float *data;
    int64_t k, n;  /* n padded to vectors with zeros */
    int64_t panel; /* columns of a panel */
} Packed;

Packed dg_cpu_packed_take(Arena *arena, int64_t k, int64_t n);
/** dst[l, j] = src[l * ld + j], rows as they are. */
void dg_cpu_pack_rows(const Packed *dst, const float *src, int64_t ld,
                      int64_t n);
/** dst[l, j] = src[j * ld + l], n rows of src become columns. */
void dg_cpu_pack_columns(const Packed *dst, const float *src, int64_t ld,
                         int64_t n);

/* c[m, columns] (+)= a[m, k] p[row .. row+k-1, column ..]; column and
 * columns are multiples of VL, column of the panel. */
typedef struct PackedProduct {
    int64_t m, k, row, column, columns;
    const float *a;
    int64_t row_a, col_a;
    float *c;
    int64_t ld_c;
    int accumulate;
} PackedProduct;

void dg_cpu_packed_product(const Packed *p, const PackedProduct *x);

/** Places the backward pass's scratch, or counts it. */
void dg_cpu_attention_grad_layout(Arena *a, int64_t sq, int64_t sk, int64_t d);

#endif
