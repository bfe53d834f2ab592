#ifndef DG_SRC_TRAIN_ROOM_H
#define DG_SRC_TRAIN_ROOM_H
/* Whether what will be placed has room on the GPUs: told before anything is.
 * Not public. */
#include "policy/policy.h"
#include "reward/reward.h"
#include "train/team.h"
#include "train/session.h"

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

/** Bytes of networks once they are placed, of rewards the first num; and of a
 *  team on a GPU. */
uint64_t dg_room_networks(const Policy *p, const Reward *rewards, int64_t num);
uint64_t dg_room_team(const TeamOpts *o);

#endif
