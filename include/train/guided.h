#ifndef DG_TRAIN_GUIDED_H
#define DG_TRAIN_GUIDED_H
/*
 * Predictions with classifier-free guidance, forward and back.
 *
 * The branches with and without the prompt run one after the other, so that
 * the activations of one are held at a time, also in training:
 *   u  without the prompt, not recorded
 *   c  with it, recorded; the guided prediction and its gradient g follow
 *   c  back from w g
 *   u  again, recorded, and back from (1 - w) g
 * The last line is left to a second pass over a sample's steps: first all of
 * c, then all of u, in an order that grpo.micro_batch does not change. With w
 * = 0 there is u alone, and with guidance off c alone.
 *
 * Rollout, evaluation, update and replay all predict by this module; the plan
 * counts it. Nothing here is collective.
 */
#include "config/config.h"
#include "policy/policy.h"
#include "tensor/tape.h"

typedef struct Guidance {
    double scale; /* w; 1: off */
    CfgGrad grad;
    const float *uncond; /* condition of the empty prompt; NULL: off */
} Guidance;

/** 1 if an empty prompt's condition is needed. */
int dg_guided_wanted(const Config *c);

/** 1 if training has the second pass. */
int dg_guided_twice(const Guidance *g);

/**
 * The prediction for a batch, [B, tokens, features], not recorded. It alone
 * stays in the step arena. NULL on error, as dg_policy_predict().
 * b  with conditions
 */
Tensor *dg_guided_predict(const Policy *p, Context *ctx, const PolicyBatch *b,
                          const Guidance *g);

/**
 * The same, bit for bit, with the branch recorded that is trained first.
 * *branch  out: that branch's prediction, for dg_guided_back()
 */
Tensor *dg_guided_record(const Policy *p, Context *ctx, const PolicyBatch *b,
                         const Guidance *g, Tensor **branch);

/**
 * Back through the recorded branch.
 * grad  d loss / d prediction; its memory is used as working space
 */
int dg_guided_back(Context *ctx, const Guidance *g, Tensor *branch,
                   Tensor *grad);

/** Its first half: the branch waits for dg_tape_backward_all(). */
TapePass dg_guided_hold(Context *ctx, const Guidance *g, Tensor *branch,
                        Tensor *grad);

/**
 * The second pass: the branch without the prompt, forward and back. For
 * dg_guided_twice() only. The context is reset.
 * grad  [B] rows [elements] f32 of d loss / d prediction; ignored in a plan
 */
int dg_guided_back_uncond(const Policy *p, Context *ctx, const PolicyBatch *b,
                          const Guidance *g, const float *const *grad);

/** Its first half, with nothing reset. Errors: those of the context. */
int dg_guided_hold_uncond(TapePass *out, const Policy *p, Context *ctx,
                          const PolicyBatch *b, const Guidance *g,
                          const float *const *grad);

#endif
