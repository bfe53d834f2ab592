#ifndef DG_TRAIN_LEARNER_H
#define DG_TRAIN_LEARNER_H
/*
 * The optimizer's side of a policy: gradient, moments, EMA, and their
 * checkpoints. A rank has them of its range of the trained values
 * (parallel/shard.h); the weights, and every bit, are the same on all ranks.
 */
#include "optim/adamw8.h"
#include "optim/lr.h"
#include "parallel/shard.h"
#include "policy/policy.h"
#include "store/checkpoint.h"
#include "train/engine.h"
#include "train/session.h"

struct WeightPool;

/* Where a learner's state is. */
typedef struct LearnerPlace {
    Shard shard;      /* size 0: all of it on this rank */
    int offload;      /* in the host's memory, and AdamW there */
    int ema_apart;    /* it is not, but the EMA is, */
    int sums_apart;   /* and, or, the sums of gradients are, */
    int64_t piece;    /* of which so many elements travel at once, whole chunks
                         of optim/grad_norm.h; 0: DG_LEARNER_PIECE */
    int host_threads; /* of that AdamW; 0: one */
} LearnerPlace;

enum { DG_LEARNER_PIECE = 1 << 24 };

enum { DG_LEARNER_NOTES = 3 + DG_CONFIG_REWARDS };

typedef struct Learner {
    Policy *policy; /* borrowed */
    OptimConfig optim;
    LrOpts lr;
    int64_t num;     /* trained: policy->values[0 .. num-1] */
    int64_t updates; /* done so far */
    LearnerPlace place;
    const Engine *engine; /* of where the state is */
    /* [place.shard.num], of elements place.shard.first ..: memory of where the
     * state is, of which the host has no copy */
    float *grads, *m, *v; /* grads, with sums apart: of a piece */
    Moments8 codes; /* with optim.moments = "int8"; m and v are then NULL */
    float *ema;     /* NULL when optim.ema_decay is 0; apart: the host's */
    float *stage;   /* with sums apart: a piece of them as float32, the host's;
                     with the EMA apart: of weights that change places with it */
    void *norm_scratch;
    struct WeightPool *pool; /* that follows the weights (train/pool.h), or
                                NULL: set by who makes it */
    double *chunks;          /* sums of squares of all ranks; NULL: not split,
                                and sums not apart */
    CheckpointCounter *more; /* [num_more] of its owner's, borrowed: they are in
                                its checkpoints too */
    int num_more;
    const CheckpointNote *notes; /* [num_notes] likewise, <= DG_LEARNER_NOTES */
    int num_notes;
    uint64_t spread; /* bytes of weights from their owners to all, of what
                        is no pool's (train/traffic.h) */
} Learner;

/* what dg_learner_get() and dg_learner_put() copy */
typedef enum LearnerState {
    DG_STATE_M, /* AdamW's moments */
    DG_STATE_V,
    DG_STATE_EMA
} LearnerState;

/* What a learner reserves, in bytes. */
typedef struct LearnerBytes {
    size_t gradient, moments, ema;
    size_t norm;          /* where the gradient is */
    size_t chunks, stage; /* on the host */
} LearnerBytes;

typedef struct LearnerStep {
    double grad_norm; /* before clipping */
    double lr;
} LearnerStep;

/** As the keys parallel.* of the session say, for num trained parameters. What
 *  a team has as TeamOpts.offload is place->offload || place->sums_apart. */
void dg_learner_place(LearnerPlace *out, const Session *s, int64_t num);

/** A shard of a learner's state of num parameters, for ranks that need not
 *  be there. */
void dg_learner_shard(Shard *out, ShardLevel level, int rank, int size,
                      int64_t num);

/** Works where the policy was placed (dg_policy_place()).
 *  num  trained parameters, a prefix of policy->values
 *  num_updates  of the whole run, for the learning-rate schedule
 *  place  NULL: all of it on this rank, where the policy is */
int dg_learner_create(Learner **out, Policy *policy, int64_t num,
                      const OptimConfig *o, int64_t num_updates,
                      const LearnerPlace *place);
void dg_learner_destroy(Learner *l);

/** What it reserves on a rank. */
void dg_learner_bytes(LearnerBytes *out, const LearnerPlace *place,
                      const OptimConfig *o);

/**
 * One update from this rank's range of a gradient summed over all ranks
 * (dg_team_own()). The norm is of the whole gradient, by the sums and in the
 * order of optim/grad_norm.h. Collective where ranges are split.
 * Errors, agreed: DG_ENUMERIC when the gradient's norm is not finite; nothing
 * is changed then. DG_EDEVICE.
 */
int dg_learner_update(Learner *l, const ExactSum *own, LearnerStep *out);

/** Brings the policy's trained values to the host: nothing where kernels work
 *  on its memory. Collective where ranges are split, then to be called by all
 *  ranks or none. c: of the calling thread. Errors: DG_EDEVICE. */
int dg_learner_fetch(const Learner *l, const Comm *c);
/** The policy's values from the host to where kernels work. */
void dg_learner_send(const Learner *l);

/** 1 where no rank has all weights, or none all masters, which are on GPUs
 *  alone: each then has those of its range. */
int dg_learner_in_ranges(const Learner *l);

/**
 * The digest (base/value_digest.h) of the trained weights as they are now, which
 * ranks do not change. Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE.
 */
int dg_learner_value_digest(const Learner *l, const Comm *c, uint64_t *digest);

/** The same of the text encoders behind the trained weights, which checkpoints have,
 *  too: not of adapters. Errors likewise. */
int dg_learner_text_digest(const Learner *l, const Comm *c, uint64_t *digest);

/**
 * Trained weights first .. first + num - 1 on the host of all ranks, wherever
 * they are; after dg_learner_fetch(). c: of the calling thread. Collective.
 * Errors, agreed: DG_EDEVICE.
 */
int dg_learner_gather(const Learner *l, const Comm *c, float *to, int64_t first,
                      int64_t num);

/** Elements first .. first + num - 1 of this rank's range of moments or EMA,
 *  to and from the host, wherever the state is. Moments in 8 bits as float32,
 *  whole blocks of optim/adamw8.h: what was got comes back as it was, other
 *  values are rounded to the nearest codes. Errors: DG_EDEVICE. */
int dg_learner_get(const Learner *l, LearnerState which, float *to,
                   int64_t first, int64_t num);
void dg_learner_put(const Learner *l, LearnerState which, const float *from,
                    int64_t first, int64_t num);

/** Moves the EMA towards the weights. Errors, not agreed: DG_EDEVICE, where the
 *  EMA is apart. */
int dg_learner_average(Learner *l);

/** Exchanges weights and EMA (twice: as before). Nothing without EMA.
 *  Collective where ranges are split. Errors, agreed: DG_EDEVICE. */
int dg_learner_swap_ema(Learner *l);

/** Digest of the trained weights in pieces, which all ranks and their threads
 *  take together, after dg_learner_fetch(); the same on all ranks. By any one
 *  thread, over s->comm. Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE. */
int dg_learner_digest(const Learner *l, const Session *s, char hex[65]);
/** SHA-256 of all their bytes: slow. Of ranks that have all weights each takes
 *  its own, of others rank 0 that of all. Collective; errors as above. */
int dg_learner_digest_whole(const Learner *l, const Comm *c, char hex[65]);

/** Both by any one thread, over s->comm. Collective; errors as
 *  dg_checkpoint_write() and dg_checkpoint_resume(). */
int dg_learner_save(const Learner *l, const Session *s, const char *dir,
                    int64_t iteration);
int dg_learner_resume(Learner *l, const Session *s, const char *dir,
                      int64_t *iteration, int *found);

#endif
