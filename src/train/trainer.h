#ifndef DG_SRC_TRAIN_TRAINER_H
#define DG_SRC_TRAIN_TRAINER_H
/* State of a training run, shared by trainer*.c and replay.c. Not public. */
#include "store/metrics.h"
#include "store/rundir.h"
#include "train/evaluate.h"
#include "train/learner.h"
#include "train/pool.h"
#include "train/rollout.h"
#include "train/step_plan.h"
#include "train/trainer.h"
#include "train/update.h"

typedef struct Phases {
    double rollout, reward, update, io, total; /* s */
    /* of the files of the iteration before, where they are written beside: what
     * that took, and how much of it was waited for, which is in io */
    double writing, waiting;
} Phases;

/* See dg_trainer_check_scores(). */
enum { DG_TRAINER_UNSCORED = 256, DG_TRAINER_MISSING = 640 };

typedef struct TrainerFiles TrainerFiles; /* trainer_files.c */
typedef struct Trajectory Trajectory;     /* trainer_trajectory.c */

typedef struct Trainer {
    const Session *session;
    RunDir dir;
    PromptList prompts, heldout;
    PromptList evaluated; /* of evaluate.file, where it is read; else heldout */
    Reward rewards[DG_CONFIG_REWARDS];
    Policy *policy, *reference;
    Conditions *cache; /* of prompts.cache, or NULL */
    Learner *learner;
    Team *team;
    int reads_copies; /* of networks on the host: what is placed is read into
                         them, which stay then */
    int together;     /* a sample's passes of an update go back together */
    WeightPool *pool; /* of weights, or gradients, that no rank has whole, or
                         NULL */
    TeamOpts besides; /* what decodes and scores beside the rollout needs, */
    Beside *beside;   /* and does it, or NULL */
    Rollout *rollout;
    Update *update;
    TrainerFiles *files; /* written beside, or NULL: between iterations */
    Eval *eval;          /* of evaluate.every, or NULL */
    int owed;            /* this iteration's evaluation is still to be done */
    Metrics *metrics;    /* rank 0 */
    int64_t iteration;   /* done so far, */
    int64_t saved;       /* and with the newest checkpoint; 0: none */
    /* of each reward: prompts in a row without any score, up to the iteration
     * that is done, as checkpoints have them */
    CheckpointCounter unscored[DG_CONFIG_REWARDS];
    char unscored_name[DG_CONFIG_REWARDS][24];
    /* of what no checkpoint has: prompts; weights of KL's reference, of the
     * decoder, of rewards */
    CheckpointNote frozen[DG_LEARNER_NOTES];
    char frozen_text[DG_LEARNER_NOTES][3][80]; /* key, value, of what */
    /* of the iteration, how often a reward's programs were started anew, -1
     * where it has none */
    int64_t restarts[DG_CONFIG_REWARDS];
    size_t plan_bytes; /* arena of a worker, from the plan */
    float *before;     /* weights, moments before an iteration that is to be
                          written: [3, this rank's range]; NULL when none
                          ever is */
    int64_t updates_before;
    char digest_before[65];
    Phases phases;
    double flops;        /* of this rank in the iteration */
    Traffic traffic;     /* with other ranks in it */
    double checkpoint_s; /* the last one's writing, where it is not beside,
                            counted in the next iteration's io: metrics are
                            written before it */
    UpdateStats stats;
    double started;  /* of this process, and */
    int64_t resumed; /* the iteration it began with */
} Trainer;

/** Reads prompts and policy, then reserves everything but run folder and
 *  checkpoints. Collective. */
int dg_trainer_build(Trainer *t, const Session *s);

/** A policy's weights to where networks run: all, or this rank's range. Not
 *  collective. Errors: DG_ENOMEM. */
int dg_trainer_place(Policy *p, const Session *s);

/** All that follows from configuration and t->policy: team, learner,
 *  rollout, update. Collective. */
int dg_trainer_reserve(Trainer *t);

/* What a worker's memory follows from. */
typedef struct TrainerParts {
    const Session *session;
    int ranks; /* which need not be the session's */
    const Policy *policy, *reference;
    const Reward *rewards;
    int cached;    /* conditions are read, nothing is encoded */
    int recompute; /* blocks again at backward */
    int together;  /* a sample's passes of an update go back together */
} TrainerParts;

/* A step in which passes go back each by itself, and together; below adapters
 * there is but the first. */
typedef struct TrainerSteps {
    StepPlan apart, joint;
    int too_many; /* passes for the second, which is not known */
} TrainerSteps;

/** Counts both, and says what team they need; policy and reference may be
 *  outlines. t->together is set. */
int dg_trainer_steps(TrainerSteps *steps, TeamOpts *team, TrainerParts *t);

/** Which it is on such a team, by its shard and parallel.passes; and so a
 *  worker's arena, and what of a gradient it has room for.
 *  apart  kernel memory is not the host's
 *  Errors: DG_ENOMEM where they are too many. */
int dg_trainer_join(TeamOpts *team, int *together, const TrainerParts *t,
                    int apart, const TrainerSteps *steps);

/** Bytes of the copies that trajectory files need, of a rank. */
size_t dg_trainer_kept_bytes(const Config *c, const Shard *shard);

/** 1 if trajectories are set aside to be written. */
int dg_trainer_sets_aside(const Config *c);

/** room: 1 if the device has so many bytes and a stream's own to spare on all
 *  ranks, with a margin; where kernels' memory is the host's, always.
 *  Collective. Errors, agreed: DG_EDEVICE. */
int dg_trainer_room_beside(int *room, const Session *s, size_t bytes);

/** Whether GPUs have room for what a run places there, before anything is.
 *  Collective. Errors, agreed: DG_ENOMEM saying what helps; those of
 *  dg_run_plan(). */
int dg_trainer_check_room(const Session *s);

/** Most samples of one forward pass in a rollout, or of pictures that are
 *  painted beside training; of so many ranks. */
int64_t dg_trainer_batch(const Config *c, int ranks);

/** Configurations that no training can have. */
int dg_trainer_check(const Config *c);
/** Reads the prompts, prepares the rewards, and refuses all that can be refused
 *  without weights. Collective. Errors, agreed. */
int dg_trainer_check_all(Trainer *t);
/** Has checkpoints say which prompts and frozen weights the run has, and which
 *  versions the programs that score state, and a resume compare them. Before the
 *  first of either, and when the programs are ready. Collective. Errors, agreed. */
int dg_trainer_note_frozen(Trainer *t);
void dg_trainer_close(Trainer *t);

/** An update of the trainer's own parts. */
static inline UpdateJob dg_trainer_update(const Trainer *t)
{
    return (UpdateJob) { .session = t->session,
                         .update = t->update,
                         .rollout = t->rollout,
                         .team = t->team,
                         .learner = t->learner,
                         .policy = t->policy,
                         .reference = t->reference };
}

/** One iteration's rollout, rewards and preparation of the update. */
int dg_trainer_experience(Trainer *t);

/** Whether each reward serves, by the scores that dg_trainer_experience() got:
 *  the same on all ranks, none of which tells another. Errors: DG_ENUMERIC where
 *  pictures there are none but such as are not finite, naming what was so first,
 *  the latent or a layer of the decoder; DG_EREWARD naming
 *  the reward and why, where it failed for all pictures of the iteration that it
 *  has seen, or has had no score for any picture of the last
 *  DG_TRAINER_UNSCORED prompts, or of as many as are sure to be all of a shorter
 *  list's. */
int dg_trainer_check_scores(Trainer *t);
/** Gives the counts behind that to t->learner, in whose checkpoints they are:
 *  before one is read or written. */
void dg_trainer_keep_unscored(Trainer *t);
/** The first of these alone, of a group that is only tried. text: else of the
 *  first reward that failed for some, or had no score for any, as much; or "". */
int dg_trainer_try_scores(const Trainer *t, char text[DG_TRAINER_MISSING]);

/** Metrics, log line. */
int dg_trainer_report(Trainer *t);

/** Keeps what the iteration's updates start from, if it is to be written.
 *  Collective. */
int dg_trainer_remember(Trainer *t);

/** What trajectories/iter_N.h5 of the iteration just done has to say. Its
 *  arrays are the rollout's members on the host, as they are now, and the
 *  state that dg_trainer_remember() kept. Collective. Errors, agreed:
 *  DG_ENOMEM, DG_EDEVICE. */
int dg_trainer_take_trajectory(Trajectory **out, const Trainer *t);
/** Writes it, by any one thread, over s->comm. Collective. */
int dg_trainer_write_trajectory(const Trainer *t, const Trajectory *k,
                                const Session *s);
void dg_trainer_free_trajectory(Trajectory *k); /* NULL is allowed */

/** Of a replay: steps, selection, terms and their losses against those that the
 *  file has, bit by bit. By this rank alone. Errors: DG_EPROMISE naming file,
 *  dataset and both values; DG_EFORMAT; DG_ENOMEM. */
int dg_trainer_match_trajectory(const Trainer *t, H5File *f);

/** A thread for files, where parallel.write_beside has something to write, MPI
 *  lets it and there is room; else t->files stays NULL, and it is told why.
 *  Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE. */
int dg_trainer_open_files(Trainer *t);
/** Waits for what is written. Leaves dg_last_error() as it is. Collective. */
void dg_trainer_close_files(Trainer *t);

/** The trajectory file of the iteration just done: written, or to be by
 *  dg_trainer_start_files(). Collective. */
int dg_trainer_keep_trajectory(Trainer *t);

/** Has written what there is, and then, if wanted, the checkpoint: until
 *  dg_trainer_wait_files() nothing may change weights, moments, EMA or what
 *  dg_trainer_remember() kept. Collective; t->files is there. */
void dg_trainer_start_files(Trainer *t, int checkpoint);

/** Waits for the files that were started last. Collective. Errors, agreed:
 *  those of writing them. */
int dg_trainer_wait_files(Trainer *t);

/** Which prompts evaluate.every paints; the policy may be an outline, and of the
 *  list the number alone be known. What it works with is the caller's. */
EvaluateJob dg_trainer_heldout_job(const Session *s, const Policy *p,
                                   const PromptList *list);
/** Their file, or "". */
const char *dg_trainer_heldout_path(const Config *c);

/** Reads them, looks at them (and at t->heldout) once the policy is there, and
 *  reserves t->eval, where evaluate.every is not 0. Collective. Errors, agreed:
 *  DG_EINVAL, DG_EFORMAT, DG_EIO, DG_ENOMEM. */
int dg_trainer_read_heldout(Trainer *t);
int dg_trainer_check_heldout(const Trainer *t, const Policy *sizes);
int dg_trainer_open_heldout(Trainer *t);

/** What they take of kernel memory on this rank. */
size_t dg_trainer_heldout_bytes(const Trainer *t);

/** 1 if t->iteration is one to evaluate after. */
int dg_trainer_heldout_due(const Trainer *t);
/** t->owed: it is, and the metrics do not have it. On a resume. Collective.
 *  Errors, agreed: DG_EIO. */
int dg_trainer_heldout_owed(Trainer *t);

/** Evaluates policy and average of the iteration just done, and tells of them.
 *  t->owed stays where it was given up for a stop, by dg_stop_wanted() of so many
 *  seconds. Nothing of the run is changed. Collective. Errors, agreed: those of
 *  dg_evaluate() and of files. */
int dg_trainer_evaluate(Trainer *t, double seconds);

/** pictures/iter_N.png: fixed held-out prompts and seeds. Collective. */
int dg_trainer_write_pictures(Trainer *t);

#endif
