#ifndef DG_SRC_MODELS_PATCHES_H
#define DG_SRC_MODELS_PATCHES_H
/* A picture as a vision transformer's tokens: a class token and its patches,
 * row by row, with their positions; not public. */
#include "tensor/ops.h"

typedef struct Patches {
    const Tensor *w;           /* [width, 3, patch, patch] */
    const Tensor *b;           /* [width] or NULL */
    const Tensor *class_token; /* [width], and 1s before it */
    const Tensor *positions;   /* [tokens, width], and 1s before them */
} Patches;

/** 1 + (side / patch)^2: pixels beyond the last whole patch are not seen. */
int64_t dg_patches_tokens(int64_t side, int64_t patch);

/** pixels [B, side, side, 3] -> [B, tokens, width]. */
Tensor *dg_patches(Context *ctx, const Patches *p, Tensor *pixels);

/** B zeros in host memory, alive as long as the step: which token is picked.
 *  NULL on error. */
const int32_t *dg_patches_first(Context *ctx, int64_t B);

/** Whether pixels are [B, side, side, 3]: else the context's error, of which
 *  of names. */
int dg_patches_check(Context *ctx, const Tensor *pixels, int64_t side,
                     const char *of);

#endif
