#ifndef DG_TRAIN_BENCH_BLOCKS_H
#define DG_TRAIN_BENCH_BLOCKS_H
/*
 * Blocks of the public networks in their full size, one thread or a GPU: a
 * residual block of Stable Diffusion's U-Net against the library's bare
 * convolutions, a double and a single block of FLUX.1 against its bare matrix
 * products. On a GPU the network of the configuration too, and all of it
 * against the machine's own rate as well: that of a large bare product.
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

/* What is measured against, and by which clock. */
typedef struct BenchTools {
    const char *name; /* of the arithmetic: "float32", "TF32", "bfloat16" */
    void *user;       /* of the functions */
    /* c[m,n] = a[m,k] b[k,n], nothing around it; kernel memory */
    void (*product)(void *user, float *c, const float *a, const float *b,
                    int64_t m, int64_t n, int64_t k);
    const BenchConv *conv; /* NULL: the products of its windows */
    DType dtype;           /* how a block stores its values */
    /* a device's clock: seconds from start to stop, which waits; NULL: the
     * thread's processor time, and nothing is warmed up */
    void (*start)(void *user);
    double (*stop)(void *user);
} BenchTools;

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

enum { DG_BENCH_BLOCKS = 3, DG_BENCH_REPEATS = 64, DG_BENCH_TOOLS = 5 };

/**
 * Fills out[0..*num-1], at most DG_BENCH_BLOCKS, with repeats pairs each of a
 * pass and the bare calls in turns. Needs 6 GB at full size. Not collective.
 * Errors: DG_ENOMEM; DG_EINVAL on bad repeats or sizes.
 */
int dg_bench_blocks(BenchBlock *out, int *num, const Backend *backend,
                    const BlockSizes *s, const BenchTools *tools, int repeats);

/** A line per block and pass. */
void dg_bench_blocks_text(FILE *f, const BenchBlock *blocks, int num);

/* --- on a GPU ------------------------------------------------------------ */

typedef struct DeviceBenchOpts {
    const BenchTools *tools; /* [num_tools], at most DG_BENCH_TOOLS */
    int num_tools;
    int used;         /* which of them is the network's own arithmetic */
    int64_t side;     /* of the machine's product */
    int blocks;       /* blocks in place of the configuration's network */
    int repeats;      /* pairs of measurements */
    BlockSizes sizes; /* of the blocks */
} DeviceBenchOpts;

typedef struct DeviceBench {
    int num_tools, used;
    const char *tool[DG_BENCH_TOOLS];
    int64_t side;
    double product[DG_BENCH_TOOLS]; /* the machine's rates, FLOP/s */
    int num;
    BenchBlock block[DG_BENCH_BLOCKS];
    char note[256]; /* why a pass is missing, its ratio NAN; or empty */
} DeviceBench;

/**
 * The machine's rates, then the configuration's network or the blocks. Weights
 * are random: no file is read, so that networks of any size can be measured
 * that the device holds. One whose gradients do not fit is measured forward
 * alone. Not collective.
 * Errors: DG_EINVAL on bad repeats or sizes; DG_ENOMEM; DG_EDEVICE.
 */
int dg_bench_device(DeviceBench *out, const Session *s,
                    const DeviceBenchOpts *o);

/** Text for people, JSON for programs; to free. DG_ENOMEM. */
int dg_device_bench_text(char **text, const DeviceBench *b);
int dg_device_bench_json(char **text, const DeviceBench *b);

#endif
