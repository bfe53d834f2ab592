#ifndef DG_TRAIN_RUN_PLAN_H
#define DG_TRAIN_RUN_PLAN_H
/*
 * What a run will need, counted by the run's own code over networks that
 * have sizes only: nothing of their memory is reserved, no weights are read.
 */
#include "train/session.h"
#include "train/traffic.h"

#include <stddef.h>
#include <stdint.h>

enum { DG_PLAN_LINES = 24 };

/* Commands that run networks. */
typedef enum PlanCommand {
    DG_PLAN_TRAIN,
    DG_PLAN_PRETRAIN,
    DG_PLAN_SAMPLE,
    DG_PLAN_EVALUATE,
    DG_PLAN_ENCODE,
    DG_PLAN_REPLAY,
    DG_PLAN_COMMANDS
} PlanCommand;

typedef struct PlanLine {
    const char *key;  /* of the JSON */
    const char *text; /* of the table */
    uint64_t value;
} PlanLine;

typedef struct PlanTable {
    PlanLine line[DG_PLAN_LINES];
    int num;
} PlanTable;

/* Where a rank's bytes are when each has a GPU. */
typedef struct GpuPlan {
    int ranks;
    int offload;      /* parallel.offload_optimizer */
    int offload_sums; /* parallel.offload_sums alone */
    ShardLevel level;
    /* on the GPU */
    uint64_t weights;  /* of all networks */
    uint64_t masters;  /* float32, of weights that are stored as less */
    uint64_t gradient; /* of a sample, and of the update */
    uint64_t sums;     /* of samples' gradients */
    uint64_t moments, ema;
    uint64_t activations; /* of the phase that has most of them */
    uint64_t rest;        /* trajectories, conditions, pictures */
    uint64_t gpu, host;   /* all of it; and what the host has */
    uint64_t host_start;  /* what it has at most until all is in its place */
    Traffic traffic;      /* of an iteration, where it is a run of train; */
    int moves;            /* 1: that is known */
    /* what ranks of a node have together (parallel/node_memory.h): of host; until
     * all is in its place; and what each has beside that then, or before */
    uint64_t together, together_start, beside_start, before_start;
} GpuPlan;

/* Ranks of a node, as far as a plan tells what its host has. */
enum { DG_PLAN_NODE = 8 };

/** Bytes of the host of a node of so many of these ranks, when all is in its
 *  place; and at most until then. */
uint64_t dg_gpu_plan_node(const GpuPlan *g, int ranks);
uint64_t dg_gpu_plan_node_start(const GpuPlan *g, int ranks);

enum { DG_PLAN_GPUS = 96 };

typedef struct GpuPlans {
    GpuPlan plan[DG_PLAN_GPUS];
    int num;
    MomentKind moments; /* that they count, where something is trained */
} GpuPlans;

/* One of the rewards that are scored. */
typedef struct PlanReward {
    char name[64];
    int own;     /* a user's library or program, whose memory nobody knows */
    int network; /* the first reward that has its network, maybe itself */
} PlanReward;

typedef struct RunPlan {
    PlanCommand command;
    int64_t ranks, threads; /* threads of each rank */
    int borrowed_threads;   /* 1: run.threads = 0 was taken for ranks that are
                               not here, by the cores that are */
    int64_t items;          /* of the fullest rank: samples of an iteration,
                               work items of a step, pictures, prompts */
    int64_t batch, train_batch;
    PlanTable parameters;  /* values */
    PlanTable memory;      /* bytes of the fullest rank, total last */
    PlanTable activations; /* bytes of one worker, phase by phase */
    PlanTable flops;       /* of one thing each, then of an iteration, a step
                              or all there is to do */
    PlanTable traffic;     /* bytes of a rank among several in an iteration of
                              train; else no lines */
    GpuPlans gpus;         /* dg_run_plan_gpus(); or none */
    /* what is not there, so that it could not be read: policy.path, whose
     * sizes are then the configuration's or the public ones, policy.weights,
     * whose sizes are the configuration's, and prompts.file, whose number of
     * prompts is then an iteration's; or "" */
    char no_folder[DG_CONFIG_STRING], no_weights[DG_CONFIG_STRING],
        no_prompts[DG_CONFIG_STRING];
    char uneven[400]; /* what dg_update_uneven() says, or "" */
    char no_held_out[DG_CONFIG_STRING]; /* the file of evaluate.every's */
    PlanReward rewards[DG_CONFIG_REWARDS];
    int num_rewards;
} RunPlan;

/** Plans c->... of the session for so many ranks with the session's threads
 *  each. Not collective.
 *  Errors: DG_EINVAL naming the key that does not fit; those of a prompts
 *  file that is there; DG_ENOMEM for the small structs. */
int dg_run_plan(RunPlan *out, const Session *s, int ranks);

/**
 * The same of any command, which is counted as it counts itself: sample with
 * the prompts and seeds that it has when none are given, evaluate and pretrain
 * with all rewards that they score by, replay with what trajectory files of
 * such a run hold. Errors: as above; what the command says of its keys.
 */
int dg_command_plan(RunPlan *out, const Session *s, PlanCommand command,
                    int ranks);

/** Its name; and the command of that name. Errors: DG_EUSAGE naming --command
 *  and what there is. */
const char *dg_plan_command_name(PlanCommand command);
int dg_plan_command(PlanCommand *out, const char *name);

/** As dg_run_plan_gpus(); what does not train has one line, without levels. */
int dg_command_plan_gpus(GpuPlans *out, const Session *s, PlanCommand command,
                         int ranks);

/** Adds the same run on so many GPUs, a rank each, at every level of
 *  parallel.shard (of one: at none), without offloading, with
 *  parallel.offload_sums and with parallel.offload_optimizer. Errors: as
 *  above; DG_EUSAGE beyond DG_PLAN_GPUS. */
int dg_run_plan_gpus(GpuPlans *out, const Session *s, int ranks);

/** On the first, fullest rank the bytes of this very run that lie on its GPU;
 *  0 on others, and where kernels work on the host's memory.
 *  given  1: of its replay, whose conditions and scores are in the file
 *  Collective. Errors, agreed: those of dg_run_plan(). */
int dg_run_plan_placed(uint64_t *bytes, const Session *s, int given);

/** What fits a GPU of so many bytes on that many ranks: the lowest level
 *  without offloading, else with it what has the least on the host.
 *  NULL: nothing fits; *least is then what has the least on a GPU. */
const GpuPlan *dg_gpu_plan_fits(const GpuPlans *p, int ranks, uint64_t bytes,
                                const GpuPlan **least);

/** A line's value; panics when there is none. */
uint64_t dg_run_plan_value(const PlanTable *t, const char *key);

/** The tables, to free. DG_ENOMEM. */
int dg_run_plan_text(char **text, const RunPlan *p);
/** The same as JSON. To free. */
int dg_run_plan_json(char **text, const RunPlan *p);

#endif
