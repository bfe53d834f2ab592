#ifndef DG_TRAIN_BENCH_BLOCKS_H
#define DG_TRAIN_BENCH_BLOCKS_H
/*
 * Blocks of the public networks in their full size, one thread: a residual
 * block of Stable Diffusion's U-Net against the library's bare convolutions, a
 * double and a single block of FLUX.1 against its bare matrix products.
 */
#include "tensor/backend.h"
#include "train/bench.h"

#include <stdio.h>

/* The library's convolution; see cpu/conv_rate.h. */
typedef struct BenchConv {
    int (*create)(void **out, const ConvArgs *a, int way);
    void (*run)(const void *conv);
    void (*destroy)(void *conv);
} BenchConv;

typedef struct BlockSizes {
    int64_t side, channels;     /* of the map; 0: no residual block */
    int64_t heads, head_dim;    /* of FLUX.1; 0: none of its blocks */
    int64_t grid, text_tokens;  /* grid x grid image tokens */
    int64_t text_width, pooled; /* of the text states, the pooled text */
} BlockSizes;

/** 64 x 64 x 320; 24 heads of 128, 45 x 45 and 512 tokens (720 pixels). */
BlockSizes dg_bench_block_sizes(void);

typedef struct BlockRate {
    double flops;             /* of one pass */
    double rate, bare, ratio; /* FLOP/s of processor time; medians */
} BlockRate;

typedef struct BenchBlock {
    const char *name;
    double goal;             /* of the ratios */
    BlockRate forward, both; /* both: forward and backward */
} BenchBlock;

enum { DG_BENCH_BLOCKS = 3 };

/**
 * Fills out[0..*num-1], at most DG_BENCH_BLOCKS, with repeats pairs each of a
 * pass and the bare calls in turns. Needs 6 GB at full size. Not collective.
 * Errors: DG_ENOMEM; DG_EINVAL on bad repeats or sizes.
 */
int dg_bench_blocks(BenchBlock *out, int *num, const Backend *backend,
                    const BlockSizes *s, BenchProduct bare,
                    const BenchConv *conv, int repeats);

/** A line per block and pass. */
void dg_bench_blocks_text(FILE *f, const BenchBlock *blocks, int num);

#endif
