#ifndef DG_SRC_TRAIN_POOL_INTERNAL_H
#define DG_SRC_TRAIN_POOL_INTERNAL_H
/* State of a pool of weights, shared by pool.c, pool_rooms.c and pool_order.c.
 * Not public. */
#include "base/error.h"
#include "train/beside.h"
#include "train/pool.h"

#include <pthread.h>

enum { POOL_SETS = 4, POOL_ROOMS = 2, POOL_HABITS = 4 };

/* Slots of Engine.slot() */
enum { ROOM_SLOT = 0, GRADS_SLOT = 2, REST_SLOT = 4 };

typedef struct PoolSet {
    ParamSet *params;
    const Policy *policy; /* has this rank's range, among its values */
    int64_t base;         /* of the set's first */
    Shard shard;          /* of the set, or of two that are trained */
    int64_t at;           /* of the set's first value in it */
    int trains;
    int64_t rest_at; /* of its rest's gradients among those of all */
    void *rest;      /* weights in no group */
    int shares;      /* they are another set's */
} PoolSet;

/* Place for the weights of a group; which that is, all ranks know alike. */
typedef struct PoolRoom {
    void *at;
    int set, group; /* 0: none */
} PoolRoom;

/* Groups of sets as one number, > 0. */
enum { GROUP_BITS = 20 };

/* What came after a group that came after another one. */
typedef struct PoolHabit {
    int32_t before, after; /* after 0: none yet */
} PoolHabit;

typedef struct PoolOrder {
    PoolHabit (*of[POOL_SETS])[POOL_HABITS]; /* [groups], the newest first */
    int32_t before, now;                     /* asked for last */
} PoolOrder;

/* What is wanted of others, least first: weights before gradients. A rank
 * whose device has failed wants all to give up. */
enum { POOL_NO_MORE, POOL_WEIGHTS, POOL_GRADIENTS, POOL_NOTHING };

typedef struct PoolWish {
    int32_t what; /* kind and group; never 0 but for giving up */
    int32_t next; /* what weights will follow, if known; else 0 */
} PoolWish;

/* Gradients that go down beside the way back: a group's, or with group 0 those
 * of the rests. No more are given and not done than there is room for. */
enum { POOL_JOBS = POOL_ROOMS + 1 };

typedef struct PoolJob {
    int set, group;
    const float *grads; /* of the group */
    int gives;          /* 0: other ranks alone do */
} PoolJob;

typedef struct PoolDown {
    Beside *thread; /* NULL: whoever gives them waits for them */
    Comm comm;      /* of several ranks' threads */
    int rooms;      /* for groups' gradients, of a worker */
    PoolJob job[POOL_JOBS];
    int64_t given;
    int refused; /* of several ranks: a gradient of this one, by the thread */
    Error why;
} PoolDown;

/* What is lent to a worker. */
typedef struct PoolSeat {
    Lender lender; /* the first member */
    WeightPool *pool;
    Worker *worker;
    /* gradients of the trained sets: of their rests, then of groups */
    float *grads, *group_grads[POOL_ROOMS];
    int open_set; /* whose gradients are being collected */
    int open_group;
    int open_room;
    int unflagged; /* no gradient of this item has been left out */
    /* of several workers, under the pool's lock */
    int works;      /* it has an item of this round */
    int32_t wanted; /* what it waits for; 0: nothing */
    int err;        /* what became of that */
} PoolSeat;

struct WeightPool {
    PoolSeat *seat; /* [num_seats]: more than one only where all weights are
                       here and nothing leaves beside kernels */
    int num_seats;
    pthread_mutex_t lock;
    pthread_cond_t news;
    const Comm *comm;
    const Backend *kernels;
    const Engine *engine;
    Team *team;
    DType dtype;
    PoolSet set[POOL_SETS];
    int num_sets;
    PoolRoom room[POOL_ROOMS];
    int num_rooms, now; /* the room of the group that came true last */
    PoolOrder order;
    /* weights come, and gradients go, beside the kernels: of what trains both do,
     * or neither */
    int beside, gives_beside;
    int trains;    /* what is lent; else it is below adapters */
    int whole;     /* all weights are here: gradients alone have no room */
    PoolDown down; /* to sums of the host's */
    void *stage;   /* on the host, between GPUs without a way of their own */
    size_t stage_bytes;
    int64_t ahead; /* groups that were there when they were asked for */
    int err, gone; /* of this rank's device; of all, who have given up */
    Error why;
};

PoolWish dg_pool_wish(int kind, int set, int group);

/** Until the wish has come true. Errors: agreed; beside kernels this rank's. */
int dg_pool_meet(PoolSeat *seat, PoolWish wish);

/** This rank cannot do its part, and others may wait for that already. err
 *  DG_OK: nothing. */
void dg_pool_fail(WeightPool *p, int err);

/** Whether sums can take what is ready of a group, at g, or with group 0 of the
 *  rests. Errors: DG_ENUMERIC naming the parameter; DG_EDEVICE. */
int dg_pool_check(const PoolSeat *s, int set, int group, const float *g);

/** Its only worker's to the sums, with gives = 0 other ranks' alone. Collective
 *  by the threads. Errors: as dg_team_give(). */
int dg_pool_hand_down(const WeightPool *p, const PoolJob *j, int gives);

/**
 * Gradients to the host's sums by a thread and a stream of their own, while the
 * next group is gone back through (pool_down.c); dg_pool_beside() opens it.
 * meets    1: of several ranks, whose threads meet in sums. All of them are
 *          given the same groups, as ranks meet for them, after an error too
 * begin    an item begins: nothing is on its way
 * leave    in place of it, of several ranks: all items have ended
 * room     one room is empty, the one that was not given last
 * give     what is queued for the job's gradients is theirs
 * end      all have arrived
 * Errors: of what was given before, as dg_pool_check(); but of several ranks what
 * is refused is end's alone, the rest all ranks', sooner or later.
 */
int dg_pool_down_meets(const WeightPool *p);
void dg_pool_down_begin(WeightPool *p);
int dg_pool_down_room(WeightPool *p);
int dg_pool_down_give(WeightPool *p, const PoolJob *j);
int dg_pool_down_end(WeightPool *p);
int dg_pool_down_leave(WeightPool *p);

static inline int32_t dg_pool_code(int set, int group)
{
    return (int32_t)set << GROUP_BITS | group;
}

static inline int dg_pool_code_set(int32_t code)
{
    return code >> GROUP_BITS;
}

static inline int dg_pool_code_group(int32_t code)
{
    return code & ((1 << GROUP_BITS) - 1);
}

static inline const ParamGroup *dg_pool_group(const WeightPool *p, int set,
                                              int group)
{
    return &p->set[set].params->groups[group - 1];
}

/** Who has which range: of the set alone, or where the text encoders are
 *  trained of both sets. at: of the set's first value in it. */
void dg_pool_shard(Shard *out, int64_t *at, const Policy *p,
                   const ParamSet *set, const Shard *like);

/** Elements of a worker's gradient that are in no group; and of the largest
 *  group. */
int64_t dg_pool_rest(const Policy *p);
int64_t dg_pool_block(const Policy *p);

/** The i-th range of values in no group: before group i + 1, or the end. */
ShardRange dg_pool_gap(const ParamSet *net, int i);

/** Values of a set that are in no group, from all ranks. Collective, agreed. */
int dg_pool_gather_rest(const WeightPool *p, const PoolSet *s);

/** Rooms of so many values each. */
int dg_pool_reserve_rooms(WeightPool *p, int64_t num);

/** All rooms with groups of the set are empty. */
void dg_pool_empty_rooms(WeightPool *p, int set);

/** 1 if the group is in the room that came true last. */
int dg_pool_has(const WeightPool *p, int set, int group);

/**
 * The group's weights are where its tensors point for kernels queued from now
 * on. next: a group that follows, of which the weights begin to come; 0: none.
 * Collective. Errors: agreed; beside kernels this rank's own.
 */
int dg_pool_fill(WeightPool *p, int set, int group, int32_t next);

/** Errors: DG_ENOMEM. */
int dg_pool_order_init(PoolOrder *o, const PoolSet *sets, int num);
void dg_pool_order_fini(PoolOrder *o);

/** A group is asked for; what came before is remembered. */
void dg_pool_order_note(PoolOrder *o, int32_t code);

/** What came after the last one when it last followed its predecessor; 0: not
 *  known. */
int32_t dg_pool_order_guess(const PoolOrder *o);

#endif
