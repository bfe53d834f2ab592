#ifndef DG_TRAIN_TEAM_H
#define DG_TRAIN_TEAM_H
/*
 * The worker threads of one rank. Each takes whole work items and has its own
 * context, gradient buffer and exact sum, so that neither the number of
 * threads nor who takes which item changes a bit.
 */
#include "parallel/exact_sum.h"
#include "tensor/context.h"
#include "train/engine.h"

#include "tensor/mirror.h"

#include <stdint.h>

enum { DG_TEAM_NUMBERS = 64 };

/* grads and the sum's buffer are kernel memory */
typedef struct Worker {
    int index;
    Context ctx;
    const Engine *engine;
    float *grads; /* [num_grads] of the item in work, or NULL */
    ExactSum sum; /* of the items done, or unused */
    void *sum_buffer;
    void *scratch; /* [scratch_bytes] */
    void *room;    /* the same of kernel memory; the host's: scratch itself */
    /* numbers of a batch of steps: kernel memory, and their place here */
    Mirror log_prob, kl; /* [DG_TEAM_NUMBERS] f32, f64 */
    Mirror bad; /* [DG_TEAM_NUMBERS] i64: where NaN came up first, or -1 */
} Worker;

typedef struct TeamOpts {
    const Backend *backend;
    int num_threads;      /* >= 1 */
    size_t step_bytes;    /* arena of each context, from the plan */
    size_t scratch_bytes; /* for the caller's use */
    int64_t num_grads;    /* 0: no training */
    int exact;            /* gradient sums in fixed point */
    int64_t max_items;    /* work items of one update, over all ranks */
} TeamOpts;

typedef struct Team {
    int num;
    Worker *workers;
    int64_t num_grads;
    size_t bytes;   /* reserved for all workers */
    void *sum_host; /* where the sum goes between ranks; NULL: stays */
} Team;

int dg_team_create(Team **out, const TeamOpts *o);
void dg_team_destroy(Team *t);

/** What it reserves. */
size_t dg_team_bytes(const TeamOpts *o);

/** No NaN so far: -1 to all of w->bad. */
void dg_worker_unflag(Worker *w);

/** One work item; the code of the lowest failing item wins. */
typedef int (*TeamFn)(Worker *w, int64_t item, void *user);

/**
 * Runs fn on items 0..num-1, each once, by any worker in any order, and
 * waits. After a failure no new item is started.
 * Returns DG_OK or the code of the failed item of lowest number, its text in
 * the calling thread's dg_last_error(). Not collective.
 */
int dg_team_run(Team *t, int64_t num, TeamFn fn, void *user);

/** Zeroes all workers' sums. */
void dg_team_clear_sums(Team *t);
/** Merges all workers' sums into the first one's. */
int dg_team_merge_sums(Team *t);
/** The first worker's sum becomes that of all ranks' first workers.
 *  Collective. Errors: as dg_exact_allreduce(). */
int dg_team_reduce_sums(Team *t, const Comm *c);
/** FLOPs counted since the last call. */
uint64_t dg_team_take_flops(Team *t);
/** Highest use of a context's arena over the workers, bytes. */
size_t dg_team_peak(const Team *t);

#endif
