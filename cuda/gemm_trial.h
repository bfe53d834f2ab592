#ifndef DG_CUDA_GEMM_TRIAL_H
#define DG_CUDA_GEMM_TRIAL_H
/*
 * An algorithm of cuBLASLt tried before it counts: whether a sample has the
 * same bits alone, again, and in a batch. What the library's manual says of
 * that is little, and promise 1 rests on it. Internal to cuda.
 */
#include "gemm_call.h"

typedef enum GemmTrial {
    DG_TRIAL_SAME,
    DG_TRIAL_DIFFERS,
    DG_TRIAL_REFUSED, /* the library does not run it */
    DG_TRIAL_NO_ROOM  /* nothing was tried */
} GemmTrial;

/** Room for trials on the current device, one for all of its streams, of
 *  64 MB; 1 MB of a device of less than 8 GB, on which little can be tried.
 *  Errors: DG_ENOMEM, DG_EDEVICE. */
int dg_cuda_trial_open(int device);
void dg_cuda_trial_close(int device);

/**
 * Products of drawn numbers on the current stream, which is waited for: one
 * sample after the other, and then by->num in one call; of one sample, it
 * twice. All bits are compared, c's, what lies between its rows, and of an
 * epilogue that stores the value before GELU that too. Not while a step is
 * captured; a step that is walked does not see it.
 */
GemmTrial dg_cuda_trial(cublasLtHandle_t h, const GemmShape *s,
                        const GemmSamples *by,
                        const cublasLtMatmulAlgo_t *algo);

#endif
