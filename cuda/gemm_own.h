#ifndef DG_CUDA_GEMM_OWN_H
#define DG_CUDA_GEMM_OWN_H
/*
 * Products by kernels of this project, for whatever the library has no
 * algorithm for: any sizes, pitches and addresses. An element is one sum over
 * k in its order, whatever the tile it lies in, the batch, and the way its
 * operands are loaded: no size, address or neighbour shows in a bit.
 * Internal to cuda.
 */
#include "device.h"
#include "stream.h"

/* One sample's product, and how far it is to the next one's. */
typedef struct Product {
    int64_t m, n, k, lda, ldb, ldc;
    int64_t batch, step_a, step_b, step_c; /* elements from sample to sample */
    const float *a, *b, *bias;             /* bias: [n], as c, or NULL */
    float *c;
    int adds;  /* to what is in c */
    int pairs; /* two neighbours of c may be stored at once */
} Product;

/** dg_cuda_products() of values stored as bfloat16 on tensor cores, c stored as
 *  C; and of float32. */
template <typename C>
void dg_cuda_product_mma(const Product *p, int trans_a, int trans_b);
void dg_cuda_product_plain(const Product *p, int trans_a, int trans_b);

/* Blocks of one sample from which on tiles are the larger ones: as many as a
 * large GPU has processors. */
#ifndef DG_PRODUCT_LARGE_TILES
#define DG_PRODUCT_LARGE_TILES 132
#endif

static inline int64_t product_tiles(int64_t all, int64_t tile)
{
    return (all + tile - 1) / tile;
}

/* Whether one sample has tiles of this side for all processors. */
static inline int product_is_large(const Product *p, int64_t tile)
{
    return product_tiles(p->m, tile) * product_tiles(p->n, tile) >=
           DG_PRODUCT_LARGE_TILES;
}

/* rows of tiles, columns, samples; a kernel goes on by the grid in the last two */
static inline dim3 product_grid(const Product *p, int64_t tile)
{
    return dim3((unsigned)product_tiles(p->m, tile),
                dg_side(product_tiles(p->n, tile)), dg_side(p->batch));
}

/* f(sample, first row, first column) of a block's tiles of a side */
template <typename F>
__device__ inline void each_tile_of(const Product &p, int tile, F f)
{
    for (int64_t s = blockIdx.z; s < p.batch; s += gridDim.z)
        for (int64_t j = (int64_t)blockIdx.y * tile; j < p.n;
             j += (int64_t)gridDim.y * tile)
            f(s, (int64_t)blockIdx.x * tile, j);
}

/* what is stored of a sum: with what is there, then the bias of its column */
template <typename C>
__device__ inline float product_sum(const Product &p, int64_t at, int64_t j,
                                    float sum)
{
    if (p.adds)
        sum = get<C>(p.c, at) + sum;
    return p.bias != NULL ? sum + get<C>(p.bias, j) : sum;
}

#endif
