#include "micro.h"

/*
 * MR rows by NV vectors stay in registers (8 x 3 accumulators, 3 of b and a
 * broadcast: 28 of 32). MR, NV are constants at every use below, so that the
 * loops vanish.
 */
#define TILE_INLINE static inline __attribute__((always_inline))

/* What moves from tile to tile. */
typedef struct Place {
    const float *a, *b, *bias;
    float *c;
} Place;

TILE_INLINE void tile(const Micro *g, const Place *p, const int MR,
                      const int NV)
{
    const float *a = p->a, *b = p->b;
    V acc[8][3];

    for (int i = 0; i < MR; ++i)
        for (int j = 0; j < NV; ++j)
            acc[i][j] = p->bias != NULL ? v_load(p->bias + j * VL) : v_zero();
    for (int i = 0; i < MR; ++i)
        for (int j = 0; j < NV; ++j)
            __builtin_prefetch(p->c + i * g->ld_c + j * VL, 1);
#pragma GCC unroll 2
    for (int64_t l = 0; l < g->k; ++l) {
        V bv[3];
        for (int j = 0; j < NV; ++j)
            bv[j] = v_load(b + l * g->ld_b + j * VL);
        for (int i = 0; i < MR; ++i) {
            const V av = v_set(a[i * g->row_a + l * g->col_a]);
            for (int j = 0; j < NV; ++j)
                acc[i][j] = v_fma(av, bv[j], acc[i][j]);
        }
    }
    for (int i = 0; i < MR; ++i)
        for (int j = 0; j < NV; ++j) {
            float *to = p->c + i * g->ld_c + j * VL;
            v_store(to,
                    g->accumulate ? v_add(v_load(to), acc[i][j]) : acc[i][j]);
        }
}

#define TILE_FUNCTION(MR, NV)                                    \
    static void tile_##MR##_##NV(const Micro *g, const Place *p) \
    {                                                            \
        tile(g, p, MR, NV);                                      \
    }
TILE_FUNCTION(8, 3)
TILE_FUNCTION(8, 2)
TILE_FUNCTION(8, 1)
TILE_FUNCTION(4, 3)
TILE_FUNCTION(4, 2)
TILE_FUNCTION(4, 1)
TILE_FUNCTION(2, 3)
TILE_FUNCTION(2, 2)
TILE_FUNCTION(2, 1)
TILE_FUNCTION(1, 3)
TILE_FUNCTION(1, 2)
TILE_FUNCTION(1, 1)

typedef void TileFunction(const Micro *g, const Place *p);

static TileFunction *const tiles[4][3] = {
    { tile_1_1, tile_1_2, tile_1_3 },
    { tile_2_1, tile_2_2, tile_2_3 },
    { tile_4_1, tile_4_2, tile_4_3 },
    { tile_8_1, tile_8_2, tile_8_3 },
};

void dg_cpu_micro(const Micro *g)
{
    for (int64_t j = 0; j < g->n; j += DG_MICRO_PANEL) {
        const int64_t wide =
            g->n - j < DG_MICRO_PANEL ? g->n - j : DG_MICRO_PANEL;
        Place p = { .b = g->b + j / DG_MICRO_PANEL * g->panel_b };
        if (g->bias != NULL && !g->accumulate)
            p.bias = g->bias + j;
        for (int64_t i = 0, mr; i < g->m; i += mr) {
            const int64_t left = g->m - i;
            const int row = left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
            mr = (int64_t)1 << row;
            p.a = g->a + i * g->row_a;
            p.c = g->c + i * g->ld_c + j;
            tiles[row][wide / VL - 1](g, &p);
        }
    }
}
