#ifndef DG_TRAIN_TEAM_H
#define DG_TRAIN_TEAM_H
/*
 * The worker threads of one rank. Each takes whole work items and has its own
 * context, gradient buffer and exact sum, so that neither the number of
 * threads nor who takes which item changes a bit.
 */
#include "parallel/shard.h"
#include "tensor/context.h"
#include "config/config.h"
#include "train/engine.h"
#include "train/traffic.h"

#include "tensor/mirror.h"

#include <stdint.h>

enum { DG_TEAM_NUMBERS = 64 };

struct Team;
struct WeightPool;
struct Buckets;

/* grads are kernel memory, and the sum's buffer where Team.sums works */
typedef struct Worker {
    int index;
    struct Team *team;
    Context ctx;
    const Engine *engine;
    float *grads; /* [num_grads] of the item in work, or NULL; with a pool of
                     weights, what has room at once (train/pool.h) */
    ExactSum sum; /* of the items done, or unused */
    void *sum_buffer;
    int ready;     /* grads wait for the end of a round */
    void *scratch; /* [scratch_bytes] */
    void *room;    /* the same of kernel memory; the host's: scratch itself */
    /* numbers of a batch of steps: kernel memory, and their place here */
    Mirror log_prob, kl; /* [DG_TEAM_NUMBERS] f32; [2, DG_TEAM_NUMBERS] f64 */
    void *saved; /* dg_context_saved_bytes(), for a way back that is replayed;
                    NULL: none is */
    Mirror bad;  /* [DG_TEAM_NUMBERS] i64: where NaN came up first, or -1 */
} Worker;

typedef struct TeamOpts {
    const Backend *backend;
    int num_threads;      /* >= 1 */
    size_t step_bytes;    /* arena of each context, from the plan */
    size_t scratch_bytes; /* for the caller's use */
    int64_t num_grads;    /* 0: no training */
    int64_t num_room;     /* of these, what a worker has room for; 0: all */
    int exact;            /* gradient sums in fixed point */
    int64_t max_items;    /* work items of one update, over all ranks */
    Shard shard;          /* who holds which sums; size 0: all of them here */
    int offload;          /* sums in the host's memory, */
    int sends;            /* but what of them goes between ranks is kernel
                             memory's: dg_pool_descends() */
    int links;            /* dg_session_links() */
    int host_threads;     /* that add them there; 0: one */
    int64_t piece;        /* elements that travel at once; 0: DG_TEAM_PIECE */
    int64_t bucket;       /* elements that leave at once while the way back
                             still runs; 0: none do */
} TeamOpts;

enum { DG_TEAM_PIECE = 1 << 24 };

typedef struct Team {
    int num;
    Worker *workers;
    int64_t num_grads;
    size_t bytes; /* reserved for all workers */
    Shard shard;
    const Engine *sums;     /* where the sums are: the host's with offload */
    const Backend *sums_on; /* NULL: the host's memory */
    /* at level gradients: a part of a round's sum on its way to its owner */
    ExactSum bucket;
    void *bucket_buffer;
    const Backend *bucket_on; /* NULL: the host's */
    void *stage;              /* the host's place for a piece of sums of kernel
                          memory between ranks; NULL: they are the host's */
    int down;  /* sums are the host's, where gradients are not, */
    int sends; /* and what goes between ranks neither */
    int64_t piece;
    int host_threads;
    struct WeightPool *pool; /* of weights that no rank has whole, or NULL:
                                set by who makes it */
    struct Buckets *buckets; /* NULL: all leaves at the end, or by blocks */
    int sends_early;         /* sums may leave beside the kernels: counted in */
    int64_t early;
    Traffic traffic; /* since somebody set it to zero; none of a rank alone */
} Team;

/** Whether OpenMP has so many threads for a team. Errors: DG_EINVAL. */
int dg_team_threads(int num);

/** Errors: DG_ENOMEM; DG_EDEVICE; DG_EINVAL where OpenMP has fewer threads. */
int dg_team_create(Team **out, const TeamOpts *o);
void dg_team_destroy(Team *t);

/** TeamOpts.bucket as the configuration has it. */
int64_t dg_team_bucket(const Config *c);

/** What it reserves, and of that the sums; of those, where they are the host's,
 *  what is kernel memory all the same. */
size_t dg_team_bytes(const TeamOpts *o);
size_t dg_team_sum_bytes(const TeamOpts *o);
size_t dg_team_bucket_bytes(const TeamOpts *o);

/** The host's memory that sums travel through, beside a GPU; none where they are
 *  the host's. */
size_t dg_team_stage_bytes(const TeamOpts *o);

/** No NaN so far: -1 to all of w->bad. */
void dg_worker_unflag(Worker *w);

/** One work item; the code of the lowest failing item wins. */
typedef int (*TeamFn)(Worker *w, int64_t item, void *user);

/**
 * Runs fn on items 0..num-1, each once, by any worker in any order, and
 * waits. After a failure no new item is started.
 * Returns DG_OK or the code of the failed item of lowest number, its text in
 * the calling thread's dg_last_error(). Not collective; with a pool of weights
 * it is, num may differ and be 0, and the code is agreed.
 */
int dg_team_run(Team *t, int64_t num, TeamFn fn, void *user);

/**
 * As dg_team_run(), with the sum of the gradients that fn gives by
 * dg_team_add(), over all ranks' items: afterwards dg_team_own() has it. At
 * level gradients no rank holds the whole sum: after each round of an item
 * for each worker, ranks give the round's sum to its owners, part by part,
 * those without items too. Collective. Errors, agreed: fn's; as
 * dg_exact_allreduce().
 */
int dg_team_sum(Team *t, const Comm *c, int64_t num, TeamFn fn, void *user);

/**
 * Gives elements first .. first + num - 1 of gradients, of which this rank has
 * num_g, each at g[i] kernel memory [num], to the sums of who holds them.
 * Their number is counted elsewhere. Collective. Errors, agreed: as
 * dg_exact_add().
 */
int dg_team_give(Team *t, const Comm *c, int64_t first, int64_t num,
                 const float *const *g, int num_g);

/**
 * The same of one gradient, or with g NULL of none, beside the kernels: nobody
 * waits, what exact_add() refuses is left out and noted by its index in the
 * first worker's bad, as Engine.exact_add_part() does. After Engine.beside();
 * g is to stay until then, and the sum is there after Engine.sent(). Errors,
 * not agreed: DG_EDEVICE.
 */
int dg_team_send(Team *t, const Comm *c, int64_t first, int64_t num,
                 const float *g);

/**
 * A way back of an item begins, which writes parameters' gradients; last: no
 * other follows in this item. In the last item of a rank, or of a round, what
 * the last one has done with then leaves while it still runs, where devices
 * sum on their own (team_bucket.c). The sum is the same; but after an item
 * without dg_team_add(), or where that fails, it is not defined.
 */
void dg_team_pass(Worker *w, int last);

/** Adds the worker's gradient, once in an item. Errors: as dg_exact_add(). */
int dg_team_add(Worker *w, int64_t *bad);

/** The sum of what this rank holds: elements shard.first .. + num - 1 of the
 *  gradient, for t->sums. */
ExactSum dg_team_own(const Team *t);
/** Buckets, or blocks, of sums that left before their way back was at its end,
 *  since the last call. */
int64_t dg_team_take_early(Team *t);
/** FLOPs counted since the last call. */
uint64_t dg_team_take_flops(Team *t);
/** Highest use of a context's arena over the workers, bytes. */
size_t dg_team_peak(const Team *t);

#endif
