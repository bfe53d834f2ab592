#ifndef DG_SRC_REWARD_LINEAR_HEAD_H
#define DG_SRC_REWARD_LINEAR_HEAD_H
/*
 * Linear layers behind a network that have no activations between them and one
 * number at their end: together they are one affine map.
 */
#include "parallel/comm.h"

#include <stdint.h>

typedef struct LinearHead {
    int64_t width;
    double *weight; /* [width] */
    double bias;
} LinearHead;

/**
 * Reads layers.{0,2,4,6,7}.{weight,bias} of a file, whose widths are the
 * file's own, from width to 1, and multiplies them out in double. Rank 0 reads
 * and all have its numbers. Collective.
 * key   names the file in messages
 * *out  all zero before; dg_linear_head_fini() even after an error
 * Errors, agreed: DG_EIO, DG_EFORMAT naming file and tensor, DG_ENOMEM.
 */
int dg_linear_head_load(LinearHead *out, const Comm *comm, const char *path,
                        int64_t width, const char *key);
void dg_linear_head_fini(LinearHead *h);

/** Of its numbers: base/value_digest.h, each double as two values. */
uint64_t dg_linear_head_digest(const LinearHead *h);

/** weight . x + bias, x [width]. */
double dg_linear_head_apply(const LinearHead *h, const float *x);

#endif
