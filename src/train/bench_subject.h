#ifndef DG_SRC_TRAIN_BENCH_SUBJECT_H
#define DG_SRC_TRAIN_BENCH_SUBJECT_H
/* What a bench runs: a pass, and the bare calls it is measured against. Not
 * public. */
#include "models/flux_transformer.h"
#include "nn/resnet.h"
#include "policy/policy.h"
#include "tensor/mirror.h"
#include "tensor/tape.h"
#include "train/bench_blocks.h"

enum { DG_BENCH_CONVS = 3, DG_BENCH_BATCH = 16 };

typedef struct Subject Subject;
struct Subject {
    const BlockSizes *s;
    const Backend *backend;
    const BenchTools *tools;
    const char *name;
    /* the pass; inputs are made of 'input' */
    Tensor *(*forward)(const Subject *, Context *);
    /* the bare calls of one pass */
    void (*bare_pass)(const Subject *, int backward);
    ParamSet set;
    void *at;     /* its values on a device; NULL: on the host */
    int trained;  /* number of the set that takes gradients, */
    float *grads; /* kernel memory */
    int recompute;
    Mirror input;
    Resnet resnet;
    FluxTransformer *flux;
    /* a whole network in place of a block */
    const Policy *policy;
    int64_t batch;
    void *convs[DG_BENCH_CONVS];
    Meter meter;
    Mirror operand[3];
    uint64_t flops;
    double began;
};

/**
 * Bytes of kernel memory that a pass takes with weights of so many, an input
 * of so many numbers, and gradients where it goes back; nothing of it has to be
 * there. Errors: those of a plan.
 */
int dg_subject_bytes(Subject *b, uint64_t weights, int64_t input_count,
                     int backward, uint64_t *bytes);

/** Weights of b->set, so drawn that none is zero and every sum is done, where
 *  the backend's kernels are; gradients; an input of so many numbers. With
 *  b->forward it is looked first whether a GPU has room for its passes.
 *  Errors: DG_ENOMEM. */
int dg_subject_params(Subject *b, int64_t input_count);
/** Normal numbers. Errors: DG_ENOMEM. */
int dg_subject_normal(Mirror *m, const Backend *backend, int64_t count);

/** A bare_pass: the products that the ops of a pass asked for. */
void dg_subject_products(const Subject *b, int backward);

/** DG_EDEVICE: a device's clock has said why. */
int dg_subject_failed(const char *what);

/** Plans, then measures, and says at once what came of it. Errors: DG_ENOMEM; those of the pass. */
int dg_subject_measure(Subject *b, int backward, int repeats, BlockRate *out);

/** Of what dg_subject_params() and measuring have reserved. */
void dg_subject_close(Subject *b);

#endif
