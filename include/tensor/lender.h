#ifndef DG_TENSOR_LENDER_H
#define DG_TENSOR_LENDER_H
/*
 * Weights that are not here all the time (parallel.shard = "parameters"): who
 * fetches a group of parameters when a block of the network is to run, and
 * takes the group's gradients behind its way back. One group is lent at a
 * time. Parameters in no group, and those of sets that the lender does not
 * know, are always there.
 */
#include "tensor/tensor.h"

typedef struct Lender Lender;

struct Lender {
    /* The weights of w's group are where their tensors' data is, until others
     * are lent; with grads also room for their gradients, zero. Other ranks
     * may be waited for. */
    int (*lend)(Lender *l, const Tensor *w, int grads);
    /* The gradients of w's group are complete. */
    int (*give)(Lender *l, const Tensor *w);
    /* Where the gradient of w goes. */
    float *(*grad)(const Lender *l, const Tensor *w);
};

#endif
