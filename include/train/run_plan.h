#ifndef DG_TRAIN_RUN_PLAN_H
#define DG_TRAIN_RUN_PLAN_H
/*
 * What a run will need, counted by the run's own code over networks that
 * have sizes only: nothing of their memory is reserved, no weights are read.
 */
#include "train/session.h"

#include <stddef.h>
#include <stdint.h>

enum { DG_PLAN_LINES = 20 };

typedef struct PlanLine {
    const char *key;  /* of the JSON */
    const char *text; /* of the table */
    uint64_t value;
} PlanLine;

typedef struct PlanTable {
    PlanLine line[DG_PLAN_LINES];
    int num;
} PlanTable;

typedef struct RunPlan {
    int64_t ranks, threads; /* threads of each rank */
    int64_t items;          /* samples of the fullest rank */
    int64_t batch, train_batch;
    PlanTable parameters;  /* values */
    PlanTable memory;      /* bytes of the fullest rank, total last */
    PlanTable activations; /* bytes of one worker, phase by phase */
    PlanTable flops;       /* of one thing each, then of an iteration */
    /* what is not there, so that it could not be read: policy.path, whose
     * sizes are then the configuration's or the public ones, and
     * prompts.file, whose number of prompts is then an iteration's; or "" */
    char no_folder[DG_CONFIG_STRING], no_prompts[DG_CONFIG_STRING];
} RunPlan;

/** Plans c->... of the session for so many ranks with the session's threads
 *  each. Not collective.
 *  Errors: DG_EINVAL naming the key that does not fit; those of a prompts
 *  file that is there; DG_ENOMEM for the small structs. */
int dg_run_plan(RunPlan *out, const Session *s, int ranks);

/** A line's value; panics when there is none. */
uint64_t dg_run_plan_value(const PlanTable *t, const char *key);

/** Bytes of the memory's total that lie where kernels work. */
uint64_t dg_run_plan_device_bytes(const RunPlan *p);

/** The tables, to free. DG_ENOMEM. */
int dg_run_plan_text(char **text, const RunPlan *p);
/** The same as JSON. To free. */
int dg_run_plan_json(char **text, const RunPlan *p);

#endif
