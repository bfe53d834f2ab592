#ifndef DG_SRC_TRAIN_PLAN_OUTLINE_H
#define DG_SRC_TRAIN_PLAN_OUTLINE_H
/* What plans are counted over, shared by run_plan.c and gpu_plan.c: a run's
 * parts without their memory. Not public. */
#include "train/run_plan.h"
#include "trainer.h"

typedef struct Outline {
    const Session *session;
    const Config *config;
    Policy *policy, *reference;
    Reward rewards[DG_CONFIG_REWARDS];
    Rollout *rollout; /* of the first rank, which no other exceeds */
    Update update;
    TeamOpts team;
    StepPlan kept, again; /* without and with recomputation */
    TrainerParts parts;
    TrainerSteps ways; /* with the run's choice of these */
    int steps;         /* timesteps trained of each sample */
    int state_away;    /* moments, masters, EMA are the host's; sums as team has
                       them */
    int cached;
    int together;   /* a sample's passes of an update go back together */
    int lent_rooms; /* dg_pool_rooms() */
    int lends_text; /* prompts are encoded by weights that no rank has whole */
    int given;      /* a replay: it keeps copies of all networks */
    uint64_t pictures; /* kernel memory of those of the report, for a while */
    uint64_t held_out; /* of what evaluate.every paints, all the time */
    int64_t num_held_out; /* its pictures, of all ranks */
    int no_prompts;       /* prompts.file is not there, */
    int no_held_out;      /* nor that of dg_trainer_heldout_path() */
} Outline;

/** The first of so many ranks. To be closed after an error too. Errors: as
 *  dg_run_plan().
 *  given  1: conditions and scores are there already, as in a replay */
int dg_outline_open(Outline *o, const Session *s, int ranks, int given);
void dg_outline_close(Outline *o);

/** A run's plan, or with given = 1 that of its replay. Errors: as
 *  dg_run_plan(). */
int dg_run_plan_of(RunPlan *out, const Session *s, int ranks, int given);
int dg_run_plan_gpus_of(GpuPlans *out, const Session *s, int ranks, int given);

/** What goes between o's ranks in an iteration, the first one, of which no sample is
 *  set aside: steps that the clip leaves without a gradient are not gone back
 *  through, and take less. None of one rank.
 *  together  1: a sample's passes of an update go back together */
Traffic dg_outline_traffic(const Outline *o, int together);

/** The session as if it were on GPUs, by *kernels, which it may
 *  fill. */
Session dg_outline_on_gpu(const Session *s, Backend *kernels);

/** 0 where the trainer gives the text encoders back: nothing needs them. */
int dg_outline_keeps_text(const Outline *o);

/** Of rewards' networks. */
int64_t dg_outline_reward_values(const Outline *o);

#endif
