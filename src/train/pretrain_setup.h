#ifndef DG_SRC_TRAIN_PRETRAIN_SETUP_H
#define DG_SRC_TRAIN_PRETRAIN_SETUP_H
/* State of a pretraining run, and how it begins and ends. Not public. */
#include "files.h"
#include "store/metrics.h"
#include "store/prompts.h"
#include "store/rundir.h"
#include "train/evaluate.h"
#include "train/learner.h"
#include "train/pool.h"
#include "train/pretrain.h"
#include "train/team.h"
#include "world/world.h"

typedef struct Pretrain {
    const Session *session;
    RunDir dir;
    Policy *policy;
    Policy *teacher; /* frozen, guided; NULL: the pictures teach */
    Team *team;
    Learner *learner;
    WeightPool *pool; /* of weights that no rank has whole, or NULL */
    Files *files;     /* checkpoints are written beside steps; NULL: between */
    int64_t saved;    /* the step whose checkpoint is being written */
    FilesTime took;   /* of the last one that was waited for */
    Metrics *metrics; /* rank 0 */
    PromptList heldout; /* not to be shown; evaluated on */
    uint64_t *excluded;
    WorldStream stream;
    Reward rewards[DG_CONFIG_REWARDS];
    int64_t batch, items;  /* pictures of a step; work items of a step */
    int64_t first, num;    /* this rank's items */
    int64_t step;          /* done so far */
    double *loss;          /* [items] of the step in work */
    CheckpointNote taught; /* whose weights teach: no checkpoint has them */
    char taught_digest[20];
    float alpha_bar[DG_TRAIN_TIMES]; /* for epsilon */
} Pretrain;

/* One item's places in a worker's scratch. */
typedef struct PretrainScratch {
    WorldScene scene;
    float *rgb, *time, *weight;
    float *clean;      /* latents on the host */
    float *z, *target; /* [size, elements] each, kernel memory */
    const Backend *on; /* whose; NULL: the host's, and clean is z */
    const float **rows;
    int32_t *t5_ids, *clip_ids;
    int32_t *t5_none, *clip_none; /* the empty prompt's */
} PretrainScratch;

/** Lays the item's arrays over memory of the host and room, as much kernel
 *  memory where the policy was placed, else the same; returns the bytes needed
 *  (both NULL: only that). */
size_t dg_pretrain_scratch(PretrainScratch *x, const Policy *p, int64_t size,
                           void *memory, void *room);

/** Fills entry b of an item's batch from the stream's picture 'index'. */
int dg_pretrain_picture(const Pretrain *t, PretrainScratch *x, int64_t b,
                        int64_t index);

/** The item's weighted square errors by the divisor; grad out, as u: its
 *  derivative by u. errors [u->dims[0]] f64 are written. Waits.
 *  Errors: DG_EDEVICE. */
int dg_pretrain_loss(double *loss, const Mirror *errors, const Tensor *u,
                     Tensor *grad, const PretrainScratch *x, double divisor);

/** Puts the teacher's guided predictions in the targets' place. The context
 *  is reset. num  pictures in x. Errors: those of a prediction. */
int dg_pretrain_distill(const Pretrain *t, Context *ctx, PretrainScratch *x,
                        int64_t num);

int dg_pretrain_open(Pretrain *t, const Session *s);
/** The same without a run folder and what is in it, for a dry run. */
int dg_pretrain_build(Pretrain *t, const Session *s);
void dg_pretrain_close(Pretrain *t);
int dg_pretrain_evaluate(Pretrain *t, Evaluation *e);
/** Until the checkpoint that was started is there: before anything changes
 *  weights, moments or EMA. Collective. Errors, agreed: those of writing it. */
int dg_pretrain_wait_files(Pretrain *t);
/** What that evaluates: held-out prompts, by the first reward. */
EvaluateJob dg_pretrain_job(const Pretrain *t);
int dg_pretrain_write_weights(Pretrain *t);

#endif
