#ifndef DG_CUDA_CONV_MMA_H
#define DG_CUDA_CONV_MMA_H
/*
 * Convolutions of 3 x 3 taps of values stored as bfloat16, on tensor cores,
 * without gathered windows. What a block reads of the map lies in shared memory
 * once and is seen by all nine taps; weights are read as they stand, tap within
 * channel. Sums are float32. A result's products follow in an order that one
 * sample's sizes settle, so its bits do not depend on the batch. Queued on the
 * current stream. Internal to cuda.
 */
#include "device.h"

#ifndef DG_CONV_TILE_FLOATS /* tests take less, so that small maps have many */
#define DG_CONV_TILE_FLOATS (8 << 20)
#endif

/** Bytes of ConvArgs.scratch that the three ask for; by one sample's sizes. */
size_t dg_cuda_conv_mma_scratch(const ConvArgs *a);

/**
 * Twins of dg_cuda_conv(), dg_cuda_conv_input_grad() and of the weights' part
 * of dg_cuda_conv_weight_grad(). Each returns 1, or 0 with nothing done where
 * it is not made for the arguments: other kernels than 3 x 3, strides beyond
 * 2, channels that are no multiple of 8 (forward: those of the result, no
 * multiple of 4), places not aligned to 16 bytes, a device whose blocks have
 * too little shared memory.
 */
int dg_cuda_conv_mma(const ConvArgs *a);
int dg_cuda_conv_mma_input_grad(const ConvArgs *a);
int dg_cuda_conv_mma_weight_grad(const ConvArgs *a);

/* --- what they share -------------------------------------------------------- */

enum { TAPS = 9, SIDE = 8 /* of a patch of the result */ };

/* 16 bytes of float32, loaded at once */
struct alignas(16) Four {
    float x[4];
};
/* one product; 'seen': the map that taps look at, zoomed or spread out */
typedef struct Windows {
    int h, w, in;           /* of the map as it is stored */
    int seen_h, seen_w;     /* and as it is seen: */
    int zoom, spread;       /* each pixel zoom^2 times; or zeros between */
    int rows, columns, out; /* of the result */
    int top, left;
    int pool; /* so many rows and columns of it are stored as their sum */
    int batch, parts;
    const float *from; /* [batch, h, w, in] */
    const float *weight;
    const float *bias; /* [out] or NULL */
    float *to;         /* [batch, rows, columns, out], stored as bfloat16 */
    int accumulate;
    float *sums; /* [parts, batch, rows, columns, out] instead, or NULL */
} Windows;

/* A patch of the result: sample, first row, first column. */
typedef struct Patch {
    int n, row, column;
} Patch;

__host__ __device__ inline int patches_of(int pixels)
{
    return (pixels + SIDE - 1) / SIDE;
}

__device__ inline Patch patch_at(const Windows &v, int i)
{
    const int wide = patches_of(v.columns), all = patches_of(v.rows) * wide;
    const Patch p = { i / all, i % all / wide * SIDE, i % wide * SIDE };

    return p;
}

/* The same number, but what follows from it is worked out where it stands: the
 * compiler keeps none of it in registers meanwhile. */
__device__ inline int worked_out_here(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* the next one of the same sample, or the first of the next sample */
__device__ inline void patch_step(const Windows &v, Patch *p)
{
    p->column += SIDE;
    if (p->column < v.columns)
        return;
    p->column = 0;
    p->row += SIDE;
    if (p->row < v.rows)
        return;
    p->row = 0;
    ++p->n;
}

/** Whether the two gradients are made for these. */
int dg_cuda_conv_mma_fits(const ConvArgs *a);

/** The map and the result of a; no addresses, parts 0. */
Windows dg_cuda_conv_windows(const ConvArgs *a);

/** Floats of scratch for a few samples' sums, where one sample's are 'sums'. */
int64_t dg_cuda_conv_room(int64_t sums);

/** Floats that one sample's gradient of weights takes in the scratch. */
int64_t dg_cuda_conv_weight_sums(const ConvArgs *a);

#endif
