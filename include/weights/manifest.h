#ifndef DG_WEIGHTS_MANIFEST_H
#define DG_WEIGHTS_MANIFEST_H
/*
 * What a network needs, against what files hold. The check makes a plan of
 * which values go where, so that a flat buffer, or any range of it, can be
 * filled straight from the mapped files. Not collective.
 */
#include "nn/param.h"
#include "weights/source.h"

/* A tensor that a network needs. */
typedef struct WeightWant {
    const char *name; /* the program's: diffusers' or transformers' */
    int num_dims;
    int64_t dims[DG_WEIGHT_MAX_DIMS];
    int64_t at; /* its first value in the flat buffer */
} WeightWant;

typedef struct ManifestOpts {
    /* Tensors of the file that this network does not need, as patterns
       (remap.h): parts of a larger model. Others must all be used. */
    const char *const *ignore;
    int num_ignore;
} ManifestOpts;

typedef struct WeightPlan WeightPlan;

/**
 * The parameters of a set whose names start with prefix, which is taken off;
 * at is their place in the set's buffer. Names belong to the set. Free *out.
 * Errors: DG_ENOMEM; DG_EINVAL when there are none.
 */
int dg_manifest_of_params(WeightWant **out, int *num, const ParamSet *set,
                          const char *prefix);

/**
 * 1 if shapes are equal, or one is the other with 1s behind it: a linear
 * layer [out, in] is stored as a 1x1 convolution [out, in, 1, 1] by some.
 */
int dg_manifest_same_shape(int num_a, const int64_t *a, int num_b,
                           const int64_t *b);

/**
 * Checks that a source holds what is wanted, under its own or another known
 * name (remap.h), and nothing else; a fused tensor must be used to its last
 * row. source and the wants' names outlive the plan.
 * o  NULL: nothing more to ignore
 * Errors: DG_EFORMAT naming the source and, with their numbers, the first
 * missing, unexpected and differently shaped tensors; DG_ENOMEM.
 */
int dg_manifest_plan(WeightPlan **out, const WeightSource *source,
                     const WeightWant *wants, int num_wants,
                     const ManifestOpts *o);
/** NULL is allowed. */
void dg_manifest_free(WeightPlan *p);

/**
 * Values first .. first+num-1 of the flat buffer; those that belong to no
 * tensor (padding) are 0.
 * dst  [num] f32 out; unspecified after an error
 * Errors: as dg_source_read(): NaN and Inf name the tensor.
 */
int dg_manifest_fill(const WeightPlan *p, int64_t first, int64_t num,
                     float *dst);

#endif
