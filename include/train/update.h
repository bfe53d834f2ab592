#ifndef DG_TRAIN_UPDATE_H
#define DG_TRAIN_UPDATE_H
/*
 * The second half of an iteration: scores to advantages, selection, chosen
 * timesteps, and the gradient of the clipped objective by replaying them.
 *
 * With classifier-free guidance a sample's steps are passed through twice
 * (train/guided.h); between the passes its seeds wait in the worker's scratch.
 */
#include "grpo/advantage.h"
#include "grpo/objective.h"
#include "grpo/timesteps.h"
#include "train/learner.h"
#include "train/rollout.h"

/* Why a kept item gave no gradient. */
typedef enum Aside {
    DG_ASIDE_NOT,
    DG_ASIDE_FAILED,  /* log-prob or gradient not finite: update not applied */
    DG_ASIDE_NO_SCORE /* all its rewards are missing, or, with
                         grpo.adv_agg = "reward_sum", one of weight not 0 */
} Aside;

/* What one kept item's replay gave at one of its timesteps. */
typedef struct StepResult {
    int32_t step; /* index in the trajectory */
    int32_t clipped;
    float log_prob; /* of the replay */
    int32_t seeded; /* 1: it has a gradient */
    double ratio;   /* a last bit of log_prob shows in it */
    double loss, kl;
    double approx_kl; /* of the ratio, see grpo/objective.h */
} StepResult;

typedef struct Update {
    int num_parts;      /* updates of a pass: the samples are dealt to them */
    int epochs;         /* passes */
    int num_updates;    /* per iteration: of all passes */
    int steps_per_item; /* T_sub */
    int64_t num_kept;   /* of all N items */
    int64_t *kept;      /* [num_kept] item numbers, rising */
    int32_t *belongs;   /* [num_kept] of num_parts, in each pass */
    float *advantage;   /* [N, K] */
    float *total;       /* [N] */
    RewardStats *stats; /* [K] */
    int32_t *steps;     /* [num_local_kept, T] chosen first */
    StepResult *result; /* [num_kept, T_sub] all ranks' after sharing, of the
                           last pass */
    int32_t *set_aside; /* [num_kept] an Aside, of the last pass */
    int64_t *local;     /* scratch: this rank's items of one update */
    double *weight;     /* [T] of a step's advantages */
    int64_t first_kept, num_local; /* this rank's part of kept */
    float *reward;                 /* [N, K] */
    uint8_t *missing;              /* [N, K] */
    /* [K] whether a sample that lacks the reward is not trained */
    uint8_t needed[DG_CONFIG_REWARDS];
    char note[512];
    int64_t note_item;
    int told_small; /* that the sum has lost a part of a gradient */
    size_t bytes;   /* reserved, */
    int outline;    /* or only counted */
} Update;

typedef struct UpdateStats {
    double ratio_max_deviation; /* of the first update: must be 0; NAN where no
                                   sample of it was trained */
    double clip_fraction, loss, kl;
    /* Of the updates after the first, where the policy is no longer the
     * rollout's: over their terms that have a ratio, NAN where none has. Only
     * the extremes of the ratio: its spread about 1 is sqrt(2 approx_kl). */
    double approx_kl, ratio_min, ratio_max;
    int64_t later_terms;
    double clip_low, clip_high; /* clip_fraction by sides of 1 */
    double grad_norm;           /* largest of the iteration's updates */
    double lr;
    int64_t set_aside;
    int64_t skipped_updates; /* not applied: gradient not finite */
} UpdateStats;

int dg_update_create(Update **out, const Session *s, const Rollout *r);
void dg_update_destroy(Update *u);

/** The sizes of an update, and in 'bytes' what it would reserve, with no
 *  memory behind them: for plans. r may be an outline. */
int dg_update_outline(Update *out, const Config *c, const Rollout *r);

/** Bytes of worker scratch that dg_update_run() needs. Errors: DG_EINVAL
 *  naming the key that leaves no step to train. */
int dg_update_scratch(size_t *out, const Policy *p, const Config *c);

/** Updates of an iteration. */
int64_t dg_update_number(const Config *c);

/** Rows of D floats at its beginning that grpo.ratio = guard takes: of noise, and
 *  of a batch's answers. */
int64_t dg_update_guard_rows(const Config *c);

/** Steps of one sample that are trained, at most: a window's size varies.
 *  Errors as above. */
int dg_update_most_steps(int *out, const Config *c);

/** The same where r's window stands. Errors: those of dg_timesteps_count(). */
int dg_update_steps(int *out, const Config *c, const Rollout *r);

/** Whether each window that the run comes to has SDE steps, and a step to
 *  train, before anything is computed. Sets r's steps and window.
 *  Errors: DG_EINVAL naming the key, and the iteration if it is a later one. */
int dg_update_check_steps(const Config *c, Rollout *r);

/** Advantages, Best-of-N, timesteps. Every rank computes the same. */
int dg_update_prepare(Update *u, const Session *s, const Rollout *r);

/** 1 if all rewards of an item are missing, or one of weight other than 0 where
 *  their sum is what counts: it teaches nothing, and its trajectory may not even be
 *  finite. After dg_update_prepare(). */
int dg_update_unscored(const Update *u, const Rollout *r, int64_t item);

/** The same by other scores, which differ within every group: so every sample is
 *  replayed forward and back whatever the present weights paint. For trials. */
int dg_update_spread(Update *u, const Session *s, Rollout *r);

typedef struct UpdateJob {
    const Session *session;
    Update *update;
    const Rollout *rollout;
    Team *team;
    Learner *learner;
    const Policy *policy;
    const Policy *reference; /* NULL when grpo.kl_beta is 0 */
    int dry;                 /* 1: weights stay, the sum is dg_team_own() */
} UpdateJob;

/**
 * All updates of the iteration. Collective.
 * Errors: DG_EPROMISE naming sample and timestep where the first update's
 * ratio is not exactly 1; DG_ENUMERIC with run.on_nan = "stop".
 */
int dg_update_run(const UpdateJob *job, UpdateStats *stats);

/** Items of an update of a pass that the rank with most of them has, of so many
 *  ranks and P groups. Where only the best are kept nobody knows whose they are:
 *  as if all ranks had equally many. Not collective. */
int64_t dg_update_most_items(const Update *u, const Config *c, int64_t P,
                             int ranks, int part);
/** The sum of these over the updates of a pass: ranks wait for each other after
 *  each. */
int64_t dg_update_longest(const Update *u, const Config *c, int64_t P,
                          int ranks);
/** 1 if ranks would wait less for each other by another grpo.update_split; then
 *  text says so, for people, else it is "". */
int dg_update_uneven(char *text, size_t size, const Update *u, const Config *c,
                     int64_t P, int ranks);

#endif
