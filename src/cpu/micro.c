#include "micro.h"

/*
 * MR rows by NV vectors stay in registers; MR, NV are constants at every use
 * below, so that the loops vanish. Of 32 registers of sixteen lanes, 8 x 3
 * accumulators, 3 of b and a broadcast take 28; of 16 of eight lanes, where a
 * vector is two, 6 x 1 take 12, 2 and 1.
 */
#if defined(__AVX512F__)
enum { TILE_ROWS = 8, TILE_VECTORS = 3 };
#else
enum { TILE_ROWS = 6, TILE_VECTORS = 1 };
#endif
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
    V acc[TILE_ROWS][TILE_VECTORS];

    for (int i = 0; i < MR; ++i)
        for (int j = 0; j < NV; ++j)
            acc[i][j] = v_zero();
    if (p->bias != NULL)
        for (int i = 0; i < MR; ++i)
            for (int j = 0; j < NV; ++j)
                acc[i][j] = v_load(p->bias + j * VL);
    for (int i = 0; i < MR; ++i)
        for (int j = 0; j < NV; ++j)
            __builtin_prefetch(p->c + i * g->ld_c + j * VL, 1);
#pragma GCC unroll 2
    for (int64_t l = 0; l < g->k; ++l) {
        V bv[TILE_VECTORS];
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
#define TILE_FUNCTIONS(NV) \
    TILE_FUNCTION(4, NV)   \
    TILE_FUNCTION(2, NV)   \
    TILE_FUNCTION(1, NV)
TILE_FUNCTIONS(1)
#if defined(__AVX512F__)
TILE_FUNCTIONS(2)
TILE_FUNCTIONS(3)
TILE_FUNCTION(8, 1)
TILE_FUNCTION(8, 2)
TILE_FUNCTION(8, 3)
#else
TILE_FUNCTION(6, 1)
#endif

typedef void TileFunction(const Micro *g, const Place *p);

static TileFunction *const tiles[4][TILE_VECTORS] = {
#if defined(__AVX512F__)
    { tile_1_1, tile_1_2, tile_1_3 },
    { tile_2_1, tile_2_2, tile_2_3 },
    { tile_4_1, tile_4_2, tile_4_3 },
    { tile_8_1, tile_8_2, tile_8_3 },
#else
    { tile_1_1 },
    { tile_2_1 },
    { tile_4_1 },
    { tile_6_1 },
#endif
};
static const int tile_rows[4] = { 1, 2, 4, TILE_ROWS };

void dg_cpu_micro(const Micro *g)
{
    const int64_t most = TILE_VECTORS * VL; /* divides a panel */

    for (int64_t j = 0; j < g->n; j += most) {
        const int64_t wide = g->n - j < most ? g->n - j : most;
        Place p = { .b = g->b + j / DG_MICRO_PANEL * g->panel_b +
                         j % DG_MICRO_PANEL };
        if (g->bias != NULL && !g->accumulate)
            p.bias = g->bias + j;
        for (int64_t i = 0, mr; i < g->m; i += mr) {
            int row = 3;
            while (tile_rows[row] > g->m - i)
                --row;
            mr = tile_rows[row];
            p.a = g->a + i * g->row_a;
            p.c = g->c + i * g->ld_c + j;
            tiles[row][wide / VL - 1](g, &p);
        }
    }
}
