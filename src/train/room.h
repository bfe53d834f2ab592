#ifndef DG_SRC_TRAIN_ROOM_H
#define DG_SRC_TRAIN_ROOM_H
/* Whether what will be placed has room on the GPUs: told before anything is.
 * Not public. */
#include "policy/policy.h"
#include "reward/reward.h"
#include "store/prompts.h"
#include "train/learner.h"
#include "train/run_plan.h"
#include "train/session.h"
#include "train/step_plan.h"
#include "train/team.h"

/* A key, or what else leaves a GPU with less to keep. */
typedef struct RoomKey {
    int helps; /* in this run */
    const char *what;
} RoomKey;

/** needs  bytes that this rank takes of its GPU; all ranks are held to the
 *         most of theirs, as many times as there are ranks on a GPU.
 *  keys   [num] for the message, after which those stand that help every
 *         command
 *  Collective. Nothing where kernels work on the host's memory. Errors,
 *  agreed: DG_ENOMEM with both sizes and what helps. */
int dg_room_check(const Session *s, uint64_t needs, const RoomKey *keys,
                  int num);

/** The same where somebody else has chosen what will be placed: keys alone are
 *  named. */
int dg_room_given(const Session *s, uint64_t needs, const RoomKey *keys,
                  int num);

/** And for a rank that has its GPU to itself. Not collective. */
int dg_room_alone(const Backend *on, uint64_t needs, const RoomKey *keys,
                  int num);

/*
 * What a command that is not train reserves on this rank. It counts this
 * before it reserves anything, and a plan has it count the same over outlines:
 * nobody else knows these sizes.
 */
typedef struct RoomParts {
    StepPlan step;
    TeamOpts team;
    int64_t items; /* of this rank: pictures, prompts, items of a step */
    /* bytes where kernels are */
    uint64_t network, text; /* of the policy, the first with its adapters */
    uint64_t codec, teacher, rewards;
    uint64_t pictures; /* conditions and latents of those that are painted */
    /* bytes of the host beside a GPU, which on the CPU are there too */
    uint64_t host;
    int64_t host_values; /* weights of which the host keeps float32 copies */
    uint64_t loaded;     /* those that it has until they are placed */
    uint64_t together;   /* of these, those that ranks of a node have once */
    /* of one that trains; shard.size 0: it does not */
    LearnerPlace place;
    OptimConfig optim;
    uint64_t masters; /* of weights that are stored as less */
} RoomParts;

/** Fills in what networks take; rewards  the first num of them. */
void dg_room_networks(RoomParts *out, const Policy *p, const Reward *rewards,
                      int64_t num);

/** Where these parts are when the rank has a GPU; .gpu of it is what
 *  dg_room_check() is to be asked for. */
void dg_room_count(GpuPlan *out, const RoomParts *parts);

/* The commands' own counts, over outlines, also where there is a policy: one
 * that is not placed yet is float32, and so would be what it computes. Prompts
 * have a number alone; scored: by so many rewards, 0: pictures. Not collective. Errors: what the command says of its keys; DG_ENOMEM. */
int dg_infer_parts(RoomParts *out, const Session *s, const Policy *p,
                   const Reward *rewards, int64_t num_prompts, int scored);
enum { DG_CACHE_FILES = 3 };
/** What encode makes of so many lists of prompts: each once. */
int dg_encode_num(int64_t *num, const PromptList *lists);
/** 1 if encode has the text encoders alone, no network. */
int dg_encode_alone(const Config *c);
int dg_encode_parts(RoomParts *out, const Session *s, const Policy *p,
                    int64_t num_prompts);
int dg_pretrain_parts(RoomParts *out, const Session *s, Policy *p,
                      Policy *teacher, const Reward *rewards,
                      int64_t num_prompts);

#endif
