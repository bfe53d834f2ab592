#ifndef DG_TRAIN_EVALUATE_H
#define DG_TRAIN_EVALUATE_H
/*
 * Evaluation: fixed prompts and seeds, the ODE sampler, scores with bootstrap
 * intervals. Source of the protocol: DanceGRPO section 3.1.
 */
#include "reward/reward.h"
#include "store/conditions.h"
#include "store/prompts.h"
#include "train/sampling.h"
#include "train/session.h"

enum { DG_EVALUATE_TAGS = 64 }; /* more have no row, and a warning says so */

/* 95 %, percentile bootstrap over prompts. Of one prompt there is a mean alone,
 * and low and high are NAN. */
typedef struct Interval {
    double mean, low, high;
} Interval;

typedef struct EvaluateTag {
    char tag[64];
    int64_t pictures;
    Interval reward; /* of the first reward */
    Interval strict; /* NAN if it has none */
} EvaluateTag;

/* One of the rewards, over all pictures. */
typedef struct EvaluateReward {
    char name[64];
    int64_t missing;
    Interval reward, strict; /* strict: NAN if it has none */
} EvaluateReward;

typedef struct Evaluation {
    int64_t prompts, seeds, missing; /* missing: of the first reward */
    EvaluateTag all;
    EvaluateTag mean_of_tags; /* GenEval's figure: every tag counts the same */
    int num_tags;
    EvaluateTag tags[DG_EVALUATE_TAGS];
    int num_rewards;
    EvaluateReward rewards[DG_CONFIG_REWARDS];
    Interval
        sum;     /* of all rewards by their weights, as reward_mean of training;
                     a picture that lacks one is left out */
    int stopped; /* 1: given up for a stop, and nothing else is told */
} Evaluation;

typedef struct EvaluateJob {
    const Session *session;
    Team *team;
    const Policy *policy;
    const PromptList *prompts;
    const Reward *rewards; /* the first one is reported by task */
    Conditions *cache;     /* read in place of encoding; or NULL */
    int64_t num_prompts;   /* of the list's first; 0: all */
    int64_t seeds;         /* pictures per prompt */
    int64_t batch;
    uint64_t seed;
    uint8_t *pictures; /* [prompts * seeds, height, width, 3] 8-bit, filled with
                          all ranks' pictures; NULL: not kept */
    int with_scores;   /* how many of the rewards score; 0: pictures only */
} EvaluateJob;

/* An evaluation that is run again and again, of a policy that changes: what it
 * needs is reserved once, and prompts are encoded the first time, by encoders
 * that do not change. */
typedef struct Eval Eval;

/** job is copied, what it points to is borrowed. Collective. Errors, agreed:
 *  DG_ENOMEM; those of dg_policy_schedule(). */
int dg_evaluate_open(Eval **out, const EvaluateJob *job);
void dg_evaluate_close(Eval *e); /* NULL is allowed */

/** What the next runs are of, such as "averaged weights", for warnings. It is
 *  borrowed; "", as in the beginning: nothing is said of it. */
void dg_evaluate_tell_as(Eval *e, const char *what);

/**
 * As dg_evaluate().
 * seconds  not NULL: given up, with out->stopped, as soon as dg_stop_wanted() of
 *          so many seconds says so, which is asked after each batch of pictures
 */
int dg_evaluate_run(Evaluation *out, Eval *e, const double *seconds);

/** Runs it once. Collective; the result is the same on all ranks, and for any
 *  number of ranks and threads. Errors: those of sampling, agreed. */
int dg_evaluate(Evaluation *out, const EvaluateJob *job);

/** Kernel memory that it takes on this rank, beside the team, which need not
 *  be there yet. */
size_t dg_evaluate_bytes(const EvaluateJob *job);

/** The table printed by `evaluate`. To free. DG_ENOMEM. */
int dg_evaluation_text(char **text, const Evaluation *e);
/** The same as JSON. To free. */
int dg_evaluation_json(char **text, const Evaluation *e);

/** mean_of_tags of its tags; its interval is as of means that are independent. */
void dg_evaluation_average(Evaluation *out);

/** Mean and 95 % bootstrap interval of n group means (NAN: left out); NAN where
 *  none is left, and a mean alone where one is. Not collective. Errors: DG_ENOMEM. */
int dg_bootstrap(Interval *out, const double *value, int64_t n,
                 int64_t resamplings, uint64_t seed);

/** "0.250 [0.125, 0.375]", "0.250 [none]", "none". */
enum { DG_INTERVAL_BYTES = 96 };
void dg_interval_text(char text[DG_INTERVAL_BYTES], const Interval *v,
                      int digits);

#endif
