#ifndef DG_TRAIN_LEARNER_H
#define DG_TRAIN_LEARNER_H
/*
 * The optimizer's side of a policy: gradient, moments, EMA, and their
 * checkpoints. All of it is the same on every rank.
 */
#include "optim/lr.h"
#include "parallel/exact_sum.h"
#include "policy/policy.h"
#include "tensor/mirror.h"
#include "train/engine.h"
#include "train/session.h"

typedef struct Learner {
    Policy *policy; /* borrowed */
    OptimConfig optim;
    LrOpts lr;
    int64_t num;     /* trained: policy->values[0 .. num-1] */
    int64_t updates; /* done so far */
    const Engine *engine;
    /* on the host: brought up to date by dg_learner_fetch() */
    float *grads, *m, *v;
    float *ema;                          /* NULL when optim.ema_decay is 0 */
    Mirror grads_in, m_in, v_in, ema_in; /* the same, and for kernels */
    void *norm_scratch;
} Learner;

typedef struct LearnerStep {
    double grad_norm; /* before clipping */
    double lr;
} LearnerStep;

/** Works where the policy was placed (dg_policy_place()).
 *  num  trained parameters, a prefix of policy->values
 *  num_updates  of the whole run, for the learning-rate schedule */
int dg_learner_create(Learner **out, Policy *policy, int64_t num,
                      const OptimConfig *o, int64_t num_updates);
void dg_learner_destroy(Learner *l);

/** What it reserves. */
size_t dg_learner_bytes(int64_t num, const OptimConfig *o);

/**
 * One update from a gradient summed over all ranks. Not collective: every
 * rank does the same.
 * Errors: DG_ENUMERIC when the gradient's norm is not finite; nothing is
 * changed then.
 */
int dg_learner_update(Learner *l, const ExactSum *sum, LearnerStep *out);

/** Brings gradient, moments, EMA and the policy's trained values to the host:
 *  nothing where kernels work on its memory. Errors: DG_EDEVICE. */
int dg_learner_fetch(const Learner *l);
/** Moments, EMA and values from the host to where kernels work. */
void dg_learner_send(const Learner *l);

/** Moves the EMA towards the weights. */
void dg_learner_average(Learner *l);

/** Exchanges weights and EMA (twice: as before). Nothing without EMA. */
void dg_learner_swap_ema(Learner *l);

/** Collective; errors as dg_checkpoint_write() and dg_checkpoint_resume(). */
int dg_learner_save(const Learner *l, const Session *s, const char *dir,
                    int64_t iteration);
int dg_learner_resume(Learner *l, const Session *s, const char *dir,
                      int64_t *iteration, int *found);

#endif
