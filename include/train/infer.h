#ifndef DG_TRAIN_INFER_H
#define DG_TRAIN_INFER_H
/*
 * Commands that only use a policy: evaluation and sampling, both with the
 * ODE sampler of the evaluate.* keys.
 */
#include "train/session.h"

enum { DG_SAMPLE_SEEDS = 4, DG_SAMPLE_PROMPTS = 8 }; /* if none are given */

typedef struct InferOpts {
    int ema;         /* of a checkpoint: its EMA instead of its weights */
    const char *out; /* JSON file (evaluate) or PNG file (sample) */
    const char *const *prompts; /* sample: [num_prompts]; 0: the file's */
    int num_prompts;
    int64_t seeds; /* sample: pictures per prompt */
    int64_t num;   /* sample: prompts taken from the file */
    int scale;     /* sample: pixels of the grid per pixel */
    int dry;       /* 1: everything is opened, nothing computed or written */
} InferOpts;

/** Scores policy.weights on fixed prompts and seeds; prints the table on
 *  rank 0 and, with out, writes it as JSON. Collective. */
int dg_infer_evaluate(const Session *s, const InferOpts *o);

/** Paints a grid, a row per prompt, a column per seed, with prompts and seed
 *  in the PNG's texts. Collective. */
int dg_infer_sample(const Session *s, const InferOpts *o);

#endif
