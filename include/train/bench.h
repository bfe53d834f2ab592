#ifndef DG_TRAIN_BENCH_H
#define DG_TRAIN_BENCH_H
/*
 * Speed, as ratios of measurements taken one after the other within one run:
 * the network against the library's bare matrix product at the same sizes,
 * and all ranks against one. Not a test: nothing fails for being slow.
 */
#include "tensor/meter.h"
#include "train/session.h"

#include <stddef.h>
#include <stdint.h>

/* c[m,n] = a[m,k] b[k,n] on the calling thread, nothing around it */
typedef void (*BenchProduct)(float *c, const float *a, const float *b,
                             int64_t m, int64_t n, int64_t k);

typedef struct BenchOpts {
    BenchProduct bare;
    int repeats;      /* pairs of measurements; their median counts */
    int network_only; /* leave out the iterations and the ranks */
} BenchOpts;

/* One way through the network: forward, or forward and backward. */
typedef struct BenchPass {
    int64_t batch;
    double flops;         /* of one pass, from the ops */
    double product_flops; /* the same, from the sizes of the products */
    double rate, bare;    /* FLOP/s of processor time, one thread */
    double bare_linear;   /* bare, attention's small products left out */
    double ratio;         /* median of rate / bare over the pairs */
    double low, high;     /* quartiles of that ratio */
    double ratio_linear;  /* rate / bare_linear */
    double share[DG_METER_KINDS];             /* of the time, by kernel */
    double outside;                           /* share outside kernels */
    double kind_rate[DG_METER_PRODUCT_KINDS]; /* FLOP/s, 0: not called */
    double kind_bare[DG_METER_PRODUCT_KINDS]; /* bare, the same products */
    int sizes;                                /* different matrix sizes */
} BenchPass;

typedef struct BenchNetwork {
    int64_t parameters;
    BenchPass forward, both;
    size_t plan_bytes, peak_bytes; /* of the step arena */
} BenchNetwork;

/* One iteration of training on one rank and thread. */
typedef struct BenchIteration {
    int64_t items, steps, terms; /* samples, steps each, replayed in all */
    double total, rollout, reward, update; /* s of the clock */
    double cpu;                            /* s of processor time in all: */
    double kind[DG_METER_KINDS];           /* kernels of rollout, update */
    double exact, adamw, rewards, outside; /* the rest of it */
    double rollout_rate;                   /* sampling steps per s */
    double reward_rate;                    /* pictures per s */
    double exact_rate, adamw_rate;         /* elements per s */
    size_t plan_bytes, peak_bytes;         /* of the worker's arena */
    size_t reserved_bytes;                 /* by the trainer in all */
} BenchIteration;

/* The same iteration on one rank, then on all; a thread each. */
typedef struct BenchRanks {
    int ranks;
    int64_t items;
    double one_s, all_s;               /* median seconds of an iteration */
    double one_update_s, all_update_s; /* its update alone */
    double speedup, update_speedup;    /* medians of the pairs */
} BenchRanks;

typedef struct Bench {
    int iterated; /* iteration and ranks are filled */
    BenchNetwork network;
    BenchIteration iteration;
    BenchRanks ranks;           /* ranks = 1: nothing to compare */
    size_t peak_resident_bytes; /* of rank 0's process; 0: not known */
} Bench;

/**
 * Measures on rank 0 while the others sleep, then on all ranks. Collective;
 * the result is valid on rank 0. Nothing is written. The weights change in
 * memory only.
 * Errors: those of a training run of this configuration.
 */
int dg_bench_run(Bench *out, const Session *s, const BenchOpts *o);

/** The network's part alone, on this rank. Not collective. */
int dg_bench_network(BenchNetwork *out, const Session *s, const BenchOpts *o);

/** Text for people, JSON for programs; to free. DG_ENOMEM. */
int dg_bench_text(char **text, const Bench *b);
int dg_bench_json(char **text, const Bench *b);

/** Median and quartiles of num >= 1 values, which are sorted. */
double dg_bench_quantile(double *values, int num, double at);

#endif
