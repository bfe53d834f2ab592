#include "attention.h"

#include "sgemm.h"

Packed dg_cpu_packed_take(Arena *arena, int64_t k, int64_t n)
{
    const int64_t wide = att_pad(n);
    const int64_t panel = wide < DG_MICRO_PANEL ? wide : DG_MICRO_PANEL;
    const int64_t panels = (wide + panel - 1) / panel;
    const size_t bytes = (size_t)(panels * panel * k) * sizeof(float);

    return (Packed) { dg_arena_take(arena, bytes), k, wide, panel };
}

void dg_cpu_pack_rows(const Packed *dst, const float *src, int64_t ld,
                      int64_t n)
{
    for (int64_t j = 0; j < dst->n; j += VL) {
        float *out =
            dst->data + j / dst->panel * dst->panel * dst->k + j % dst->panel;
        for (int64_t l = 0; l < dst->k; ++l)
            v_store(out + l * dst->panel, v_get(src + l * ld, j, n));
    }
}

/* 16 columns, rows l.. of a block that is not whole */
static void pack_corner(float *out, int64_t pitch, const float *src, int64_t ld,
                        int64_t rows, int64_t columns)
{
    for (int64_t l = 0; l < rows; ++l)
        for (int64_t j = 0; j < VL; ++j)
            out[l * pitch + j] = j < columns ? src[j * ld + l] : 0.0f;
}

void dg_cpu_pack_columns(const Packed *dst, const float *src, int64_t ld,
                         int64_t n)
{
    for (int64_t j = 0; j < dst->n; j += VL) {
        float *out =
            dst->data + j / dst->panel * dst->panel * dst->k + j % dst->panel;
        const int64_t columns = n - j < VL ? n - j : VL;
        int64_t l = 0;
        for (; columns == VL && l + VL <= dst->k; l += VL)
            dg_cpu_transpose16(out + l * dst->panel, dst->panel,
                               src + j * ld + l, ld);
        pack_corner(out + l * dst->panel, dst->panel, src + j * ld + l, ld,
                    dst->k - l, columns);
    }
}

void dg_cpu_packed_product(const Packed *p, const PackedProduct *x)
{
    dg_cpu_micro(&(Micro) { .m = x->m,
                            .n = x->columns,
                            .k = x->k,
                            .a = x->a,
                            .row_a = x->row_a,
                            .col_a = x->col_a,
                            .b = p->data + x->column * p->k + x->row * p->panel,
                            .ld_b = p->panel,
                            .panel_b = p->k * p->panel,
                            .c = x->c,
                            .ld_c = x->ld_c,
                            .accumulate = x->accumulate });
}
