#ifndef DG_TRAIN_SAMPLING_H
#define DG_TRAIN_SAMPLING_H
/*
 * Trajectories: from noise to a clean latent, a batch of samples at a time.
 * Every sample's numbers depend on its own keys, condition and the weights
 * alone, whatever stands beside it in the batch.
 */
#include "base/philox.h"
#include "diffusion/sde.h"
#include "train/guided.h"
#include "train/team.h"

/* most samples of one forward pass */
enum { DG_SAMPLING_BATCH = DG_TEAM_NUMBERS };

/* One sample. Its arrays are kernel memory. */
typedef struct Sample {
    RngKey init;  /* of the first noise */
    RngKey noise; /* of the SDE steps; its step is set by the sampler */
    const float *condition;
    float *latents;  /* keep_all: [T+1, D]; else [D], overwritten */
    float *log_prob; /* [T], or NULL */
    float *final;  /* [D] latent to decode; NULL: it is not wanted, and no step
                        is of second order, which has this for its own before */
    int64_t twins; /* samples that part from it, see SamplingRun.room */
    int failed;    /* out: 1 when the network gave NaN or Inf */
    int failed_step;
    char reason[256]; /* out: layer and op that gave it first */
} Sample;

typedef struct SamplingRun {
    const Policy *policy;
    const SdeStep *steps; /* [T] */
    const float *time;    /* [T] given to the network */
    Guidance guidance;    /* zero: none */
    int num_steps;        /* T */
    int keep_all;
    DecodeFrom decode; /* settled: not auto */
    int score_given;   /* 1: latents are given, only log_prob is computed */
    int begun; /* 1: the first latent is given; steps may be later ones */
    /* Samples of one first noise and condition are the same until the first
     * step that is not the ODE's, whose prediction they share too. So one is
     * run until there, with keep_all: its twins stand behind it in memory, each
     * with room for so many steps, their noise's sample counts on from its own.
     * They get its latents and take the last step from there, each by noise of
     * its own: the bits of a run by itself. */
    int room;
} SamplingRun;

/** Samples of one forward pass: most, or all that a rank has at most of so many
 *  where that is less. Which it is does not show in a sample. */
int64_t dg_sampling_batch(int64_t most, int64_t samples, int ranks);

/** Bytes of worker scratch this needs. */
size_t dg_sampling_scratch(const Policy *p);

/**
 * Encodes a prompt on a worker; scratch is used. "" is the prompt of the
 * branch without one. condition: [shape.condition] f32 out, kernel memory.
 * Errors: those of dg_policy_tokenize() and dg_policy_encode().
 */
int dg_sampling_encode(Worker *w, const Policy *p, const char *prompt,
                       float *condition);

/**
 * Runs num <= DG_SAMPLING_BATCH samples on a worker; not recorded.
 * Errors: those of the context; NaN is no error but a failed sample.
 */
int dg_sampling_run(Worker *w, const SamplingRun *r, Sample *samples,
                    int64_t num);

/**
 * Latent to pixels, as dg_policy_decode(), of which all have to be finite.
 * latent [shape.elements], kernel memory; rgb [height, width, 3] f32 out.
 * Errors: DG_ENUMERIC naming what was not finite first, the latent after the
 * last step or a layer of the decoder: rgb then has NaN; those of
 * dg_policy_decode().
 */
int dg_sampling_paint(Worker *w, const Policy *p, const float *latent,
                      float *rgb);

#endif
