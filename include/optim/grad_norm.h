#ifndef DG_OPTIM_GRAD_NORM_H
#define DG_OPTIM_GRAD_NORM_H
/*
 * The global gradient norm and the clipping factor.
 *
 * The flat buffer is cut into chunks of DG_GRAD_NORM_CHUNK elements counted
 * from its beginning. A chunk's sum of squares is in double and in the order
 * of base/lanes.h; the chunk sums are then added pairwise in a fixed tree.
 * So threads and shards may share the work, as long as they cut at chunk
 * borders, and the norm keeps its bits.
 */
#include <stdint.h>

enum { DG_GRAD_NORM_CHUNK = 4096 };

/** Chunks of num elements: num / 4096 rounded up. */
int64_t dg_grad_norm_num_chunks(int64_t num);

/**
 * Sums of squares of all chunks of a range that begins at a chunk border.
 * partial  [dg_grad_norm_num_chunks(num)] f64 out
 * grad     [num] f32; a NaN or Inf makes its chunk's sum not finite
 * Shared out over the OpenMP threads when called outside a parallel region; the
 * bits are the same. Not collective.
 */
void dg_grad_norm_chunks(double *partial, const float *grad, int64_t num);

/** Sum of the chunk sums; partial is overwritten. num 0 gives 0. */
double dg_grad_norm_fold(double *partial, int64_t num_chunks);

/**
 * Norm of a whole buffer in one call, by the same sums.
 * scratch  [dg_grad_norm_num_chunks(num)] f64
 */
double dg_grad_norm(const float *grad, int64_t num, double *scratch);

/**
 * Factor that brings norm down to max_norm: min(1, max_norm/(norm + 1e-6)).
 * max_norm  > 0; 0: no clipping, factor 1
 * Errors: DG_ENUMERIC when norm is not finite; *scale is then untouched.
 */
int dg_grad_norm_scale(double *scale, double norm, double max_norm);

#endif
