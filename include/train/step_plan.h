#ifndef DG_TRAIN_STEP_PLAN_H
#define DG_TRAIN_STEP_PLAN_H
/*
 * Memory and arithmetic of one step, counted before anything runs: the same
 * code as the run's goes through the plan backend.
 */
#include "reward/reward.h"
#include "train/guided.h"

#include <stddef.h>
#include <stdint.h>

/* Weights that a pass asks for, group by group (tensor/lender.h), whoever has them:
 * what is brought where the last one or two groups stay. */
enum { DG_LENT_ROOMS = 2 };

typedef struct LentPass {
    uint64_t
        values[DG_LENT_ROOMS]; /* with room for one, for two, and none of them
                                       here before */
    /* the first two groups and the last two, backwards, as numbers of their sets and
     * places; 0: there are fewer */
    int32_t first[2], last[2];
    uint64_t num[2]; /* values of the first two */
} LentPass;

typedef struct StepPlan {
    size_t encode_bytes;        /* arena of encoding one prompt */
    size_t rollout_bytes;       /* of predicting a batch, not recorded */
    size_t decode_bytes;        /* of painting one latent */
    size_t update_bytes;        /* of a training step, all of it */
    size_t step_bytes;          /* largest of these, and of rewards' */
    int64_t batch, train_batch; /* of the opts */
    uint64_t encode_flops;      /* of one prompt */
    uint64_t predict_flops;     /* of one batch */
    uint64_t decode_flops;      /* of one latent */
    uint64_t update_flops;      /* forward and backward of one batch */
    RewardPlan reward;          /* of rewards' networks */
    /* what each of these would be lent */
    LentPass encode_lent, predict_lent, update_lent;
} StepPlan;

typedef struct StepPlanOpts {
    int64_t batch;       /* predictions per forward pass of a rollout */
    int64_t train_batch; /* the same of an update */
    int64_t together;    /* predictions whose passes go back together, in
                            batches of that; 0: each pass by itself */
    int train_net;       /* count the way back through the network */
    int train_text;      /* also run and train the text encoders */
    int recompute;
    int cached;               /* conditions are read: nothing is encoded */
    const Guidance *guidance; /* of rollouts, and of training but for
                                 train_text; NULL: none. Its condition is
                                 not read */
    const Policy *reference;  /* of the KL term in training, or NULL */
    const Reward *rewards;    /* [num_rewards] that score, outlined */
    int64_t num_rewards;
    int *full; /* or NULL: becomes whether passes are of more tensors and nodes
                  than a worker holds, which is DG_ENOMEM too */
} StepPlanOpts;

/** Counts. Not collective. Errors: DG_ENOMEM for the small structs. */
int dg_step_plan(StepPlan *out, const Policy *p, const Backend *backend,
                 const StepPlanOpts *o);

#endif
