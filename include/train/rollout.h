#ifndef DG_TRAIN_ROLLOUT_H
#define DG_TRAIN_ROLLOUT_H
/*
 * The first half of an iteration: prompts to trajectories to rewards. Item
 * n = prompt slot * G + generation; a rank owns a contiguous block of items,
 * groups may straddle ranks.
 */
#include "diffusion/schedule.h"
#include "diffusion/window.h"
#include "grpo/diversity.h"
#include "reward/reward.h"
#include "store/conditions.h"
#include "store/prompts.h"
#include "tensor/mirror.h"
#include "train/beside.h"
#include "train/sampling.h"
#include "train/session.h"

/* A rank of so many. */
typedef struct RankPlace {
    int rank, size;
} RankPlace;

/* Why a reward has no score: its first of an iteration. */
typedef struct RolloutWhy {
    int64_t item;
    char text[320]; /* "" where none is missing but by the sampler's fault */
} RolloutWhy;

/* Of Rollout.in: what kernels work on. */
enum {
    DG_ROLLOUT_CONDITIONS,
    DG_ROLLOUT_UNCOND,
    DG_ROLLOUT_LATENTS,
    DG_ROLLOUT_LOG_PROB,
    DG_ROLLOUT_FINAL,
    DG_ROLLOUT_MIRRORS
};

typedef struct Rollout {
    int64_t G, P, N;                   /* generations, prompts, items = P G */
    int64_t first, num;                /* this rank's items */
    int64_t first_prompt, num_prompts; /* prompt slots they belong to */
    int most_steps;                    /* of an iteration, whose steps are */
    int T;
    int64_t D, K; /* elements of a latent, rewards */
    int64_t iteration;
    int64_t *prompt;   /* [P] index into the prompt list */
    int64_t most;      /* prompts of the longest list, and */
    int32_t *order;    /* [most] their order in an epoch */
    Schedule schedule; /* of sampler.steps, and */
    Schedule fewer;    /* of an iteration by sampler.window_solver; or empty */
    SdeWindow window;
    SdeStep *steps; /* [most_steps] of them T */
    float *time;    /* the same, given to the network */
    ModelTime time_kind;
    Conditions *cache; /* borrowed: read in place of encoding; or NULL */
    /* on the host, brought up to date by dg_rollout_fetch(): */
    float *conditions; /* [num_prompts, condition] */
    float *uncond;     /* [condition] of the empty prompt; NULL: no cfg */
    int uncond_known;  /* encoded: once, the text encoders are frozen */
    float *latents;    /* [num, T+1, D] */
    float *log_prob;   /* [num, T] */
    float *final;      /* [num, D] latent that is decoded */
    Mirror in[DG_ROLLOUT_MIRRORS]; /* these five for kernels, see below */
    RewardScore *scores;     /* [N, K], all ranks' after dg_rollout_share() */
    GroupPictures *pictures; /* [P] of samples with a score, shared as they */
    int64_t num_features;
    struct Scoring *scoring; /* while it is done beside, or NULL */
    int fetched;             /* trajectories, beside */
    float *features; /* [num_prompts, num_features] of rewards with a network;
                        NULL: there are none */
    char note[512];  /* what first went wrong here; "" */
    int64_t note_item;
    RolloutWhy *why;   /* [K] of its first missing score, all ranks' after
                        dg_rollout_share(); without one item is N */
    RolloutWhy spoilt; /* the first picture that is not finite, likewise */
    Mirror witness; /* what another rank shows, see train/witness.h; or empty */
    size_t bytes;   /* reserved, */
    size_t host_bytes; /* of them, what only the host has, */
    int outline;       /* or only counted */
    /* another place on the host for all of 'in' that each iteration fills; the
     * bytes are not among those above */
    void *aside[DG_ROLLOUT_MIRRORS];
    size_t aside_bytes;
} Rollout;

/** Reserves all memory of an iteration. Not collective, but sizes follow
 *  from rank and size. most: prompts of the longest list that will be given
 *  to dg_rollout_begin(). Errors: DG_EINVAL naming the key, DG_ENOMEM. */
int dg_rollout_create(Rollout **out, const Session *s, const Policy *p,
                      int64_t most);
void dg_rollout_destroy(Rollout *r);

/** The same with its steps alone, for dg_update_check_steps(). */
int dg_rollout_of_steps(Rollout **out, const Config *c, const Policy *p);

/** The sizes of a rank's rollout and its first window, and in 'bytes' what it
 *  would reserve, with no memory behind them: for plans. */
int dg_rollout_outline(Rollout **out, const Config *c, const Policy *p,
                       RankPlace at, int64_t most);

/** Window and T of an iteration, as every rank and every run has them: of the
 *  configuration and the iteration alone. Errors: those of dg_window_at(). */
int dg_rollout_place(Rollout *r, const Config *c, int64_t iteration);

/** The next iteration with another window: dg_window_next(). */
int64_t dg_rollout_next_window(const Config *c, int64_t iteration);

/** Window, T, steps and their times of an iteration. Errors: those of the
 *  schedule. */
int dg_rollout_steps(Rollout *r, const Config *c, int64_t iteration);

/** Predictions that all samples of a prompt share in an iteration with such a
 *  window: those of the steps before it and of its first, where they have one
 *  first noise. At most T - 1. */
int dg_rollout_shared(const Config *c, const SdeWindow *w);

/** The same and its prompts. Pure function of the
 *  configuration and the number. Errors: those of the schedule. */
int dg_rollout_begin(Rollout *r, const Session *s, int64_t num_prompts,
                     int64_t iteration);

/** Reserves, or counts, what dg_rollout_set_aside() needs. Not collective.
 *  Errors: DG_ENOMEM. */
int dg_rollout_reserve_aside(Rollout *r);

/** What the members on the host point to now is left as it is, until the next
 *  time: the rollout goes on in another place. For what is written while the
 *  next iteration runs; the empty prompt's condition stays, it is the run's. */
void dg_rollout_set_aside(Rollout *r);

/** Encodes the prompts of this rank's items, and the empty one if guidance
 *  needs it and it is not known, or reads their conditions from r->cache.
 *  Not collective. */
int dg_rollout_encode(Rollout *r, Team *team, const Policy *p,
                      const PromptList *prompts);

/** Samples this rank's trajectories. A sample whose network output is not
 *  finite gets its rewards set missing. Not collective. */
int dg_rollout_sample(Rollout *r, const Session *s, Team *team,
                      const Policy *p);

/** Reserves what rewards with a network keep of each prompt; nothing where
 *  there are none. Before the first dg_rollout_score() of such rewards.
 *  Not collective. Errors: DG_ENOMEM. */
int dg_rollout_reserve_features(Rollout *r, const Reward *rewards);

/* What scores are made with, and of. */
typedef struct Scoring {
    Rollout *rollout;
    const Policy *policy;
    const PromptList *prompts;
    const Reward *rewards;
    Beside *beside; /* NULL: scores are for dg_rollout_score() to make */
    int fetch;      /* 1: trajectories are brought to the host beside, too */
} Scoring;

/** From now on dg_rollout_sample()'s samples are decoded and scored beside it,
 *  as they end; s stays until dg_rollout_score(). Nothing without s->beside. */
void dg_rollout_score_beside(Scoring *s);

/** Decodes and scores this rank's items, or waits for what is beside; a network
 *  sees each prompt once. Not collective. */
int dg_rollout_score(Scoring *s, Team *team);

/** All ranks' scores, and sums of pictures, to all ranks; of each reward why
 *  its first one is missing. Collective. */
void dg_rollout_share(Rollout *r, const Comm *c);

/** Trajectories and conditions from kernel memory to the host, and back.
 *  Errors: DG_EDEVICE. */
int dg_rollout_fetch(const Rollout *r);
void dg_rollout_send(const Rollout *r);

/** Condition of a local item, kernel memory. */
const float *dg_rollout_condition(const Rollout *r, const Policy *p,
                                  int64_t item);

/** The noise of an item's SDE steps, of any rank's; the step is left to set. */
RngKey dg_rollout_noise(const Rollout *r, const Config *c, int64_t item);

/** Guidance of all predictions of this rollout. */
Guidance dg_rollout_guidance(const Rollout *r, const Config *c);

/** The latent of item, step i, kernel memory. Local items only. */
static inline float *dg_rollout_latent(const Rollout *r, int64_t item, int i)
{
    return (float *)r->in[DG_ROLLOUT_LATENTS].at +
           ((item - r->first) * (r->T + 1) + i) * r->D;
}

/** Bytes of worker scratch that scoring needs. */
size_t dg_rollout_scratch(const Policy *p, const Reward *rewards, int64_t K);

#endif
