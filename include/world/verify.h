#ifndef DG_WORLD_VERIFY_H
#define DG_WORLD_VERIFY_H
/*
 * Does a picture show what its caption asks for? A graded score for
 * training, a strict one for evaluation.
 */
#include "world/detect.h"
#include "world/meta.h"

enum { DG_WORLD_MAX_PARTS = 3 * DG_WORLD_MAX_CLAUSES };

typedef struct WorldScore {
    float graded;      /* S in [0, 1]; with tie_break S (1 + 0.1 Q) */
    int32_t strict;    /* 1: everything asked for and nothing else */
    float colour_fit;  /* Q in [0, 1], 0 without objects */
    int32_t extra;     /* objects beyond those wanted */
    int32_t num_parts; /* per clause: count, colour if any, position if any */
    float part[DG_WORLD_MAX_PARTS];
} WorldScore;

/**
 * Scores a detection against valid metadata.
 * tie_break  nonzero: adds 0.1 S Q, so that pictures of equal S differ
 * Thread-safe, allocates nothing, cannot fail.
 */
void dg_world_score(WorldScore *out, const WorldDetection *d,
                    const WorldMeta *m, int tie_break);

/**
 * GenEval's relation of box a to box b (x0 y0 x1 y1): 1 if a is
 * left of / right of / above / below b, 0 otherwise.
 */
int dg_world_related(const int32_t a[4], const int32_t b[4], int relation);

#endif
