#ifndef DG_TRAIN_DOCTOR_H
#define DG_TRAIN_DOCTOR_H
/*
 * Whether the promises hold on the machine at hand, tried in seconds: what a
 * run would find out after hours, or never. Nothing is kept. Every function is
 * collective unless it says otherwise; where a trial finds something wrong it
 * returns an agreed code, whose text says what.
 */
#include "train/bench_blocks.h"
#include "train/session.h"

/* What ranks take for the same work, each by itself. */
typedef struct DoctorPace {
    double median, slowest; /* s */
    int rank;               /* the slowest */
} DoctorPace;

/* What an iteration of the small network gave. */
typedef struct DoctorNetwork {
    char digest[65]; /* SHA-256 of the weights that it ended with */
    DoctorPace alone;
    double all_s; /* of all ranks together */
} DoctorNetwork;

/**
 * One iteration of training a small network, each rank by itself and then all
 * of them: with other micro-batches, and with recomputation and without. The
 * session's device, dtype, threads and parallel.* are used, and its kind of
 * network.
 * Errors: DG_EPROMISE where a ratio is not exactly 1, or where weights differ,
 * naming rank and host; those of a run.
 */
int dg_doctor_network(DoctorNetwork *out, const Session *s);

/* What the configuration's own network will take. */
typedef struct DoctorPlan {
    char absent[DG_CONFIG_STRING + 64]; /* why it cannot be tried; "": it can */
    uint64_t bytes; /* of the host, that a run's fullest rank reserves; beside a
                       GPU those of its weights as they are read */
    double flops;   /* of a rank, all of the trial: its fullest */
} DoctorPlan;

/** Before anything is reserved. Errors, agreed: those of dg_run_plan(). */
int dg_doctor_plan(DoctorPlan *out, const Session *s);

/** Whether GPUs have room for the run. Errors, agreed: DG_ENOMEM saying what
 *  helps; those of dg_run_plan(). */
int dg_doctor_fits(const Session *s);

/**
 * FLOP/s of a rank by large bare products: on a GPU by tool, else by product on
 * each of the session's threads. All ranks at the same time. Not collective.
 * Errors: DG_ENOMEM.
 */
int dg_doctor_rate(double *rate, const Session *s, const BenchTools *tool,
                   BenchProduct product);

/* What it gave. */
typedef struct DoctorOwn {
    char digest[65];   /* of the samples that every rank computes */
    char tried[160];   /* in which ways, in words */
    int gradients;     /* they were compared between ranks too */
    DoctorPace pace;   /* for those samples */
    double all_s;      /* of all of it */
    double flops;      /* of this rank, as counted */
    char missing[640]; /* of the first reward that failed for some pictures, or
                          had no score for any: how many, and why; or "" */
} DoctorOwn;

/**
 * A short group of the session's configuration: its networks, decoder and
 * rewards as they are sized there, with the weights that are there. All ranks
 * together, several times from the same weights: as configured, with other
 * micro-batches, with recomputation, without CUDA graphs, and the ratio is to be
 * 1 and all results are to be the same bits; then each rank the same samples,
 * which are to be the same bits; then an update.
 * Errors: DG_EPROMISE naming what differs (of scores, which reward), rank and
 * host; DG_EREWARD naming a reward that failed for all pictures; DG_ENOMEM where
 * there is no room; those of a run.
 */
int dg_doctor_own(DoctorOwn *out, const Session *s);

enum { DG_DOCTOR_SIZES = 4 };

/* What ranks' links gave. */
typedef struct DoctorLink {
    int devices;                     /* sums went by the devices' own link */
    int whole;                       /* of 64-bit integers; 0: of float32 */
    int num;                         /* sizes, 0 where there is one rank */
    double bytes[DG_DOCTOR_SIZES];   /* of a buffer that was summed, */
    double seconds[DG_DOCTOR_SIZES]; /* the median time */
    /* the hosts' link, bytes/s of one message: within nodes, between them; 0
     * where there is none. Medians, and the slowest with its ranks */
    double within, within_least, between, between_least;
    int within_pair[2], between_pair[2];
} DoctorLink;

/**
 * Sums over all ranks by the run's link, at several sizes, of known result;
 * sums to each rank, broadcasts from each, a gathering, and messages between
 * neighbours on a node and between nodes.
 * Errors: DG_EPROMISE naming who sees something wrong and, where it comes from
 * one rank, that one; DG_ENOMEM, DG_EDEVICE.
 */
int dg_doctor_link(DoctorLink *out, const Session *s);

/**
 * Floating-point arithmetic and noise of this processor against known values.
 * Errors: DG_EPROMISE naming what differs, rank and host.
 */
int dg_doctor_numbers(const Comm *c);

/* What a file in a folder gave. */
typedef struct DoctorFiles {
    char folder[DG_CONFIG_STRING]; /* where it was: there before */
    double bytes, write_s;         /* written, synced, renamed */
    double read_s;                 /* by each rank what another one wrote */
    double unused;                 /* bytes free there */
} DoctorFiles;

/**
 * A file written by all ranks, as checkpoints are, in the folder or the nearest
 * above it that is there; read again by every rank; removed.
 * Errors: DG_EIO; DG_EPROMISE where a rank does not see what was written,
 * naming rank and host.
 */
int dg_doctor_files(DoctorFiles *out, const Session *s, const char *folder);

/* What a run will write, and send. */
typedef struct DoctorNeeds {
    double checkpoint, trajectory;     /* bytes of a file, about */
    int64_t checkpoints, trajectories; /* files that are there at once */
    double sums, weights; /* bytes between ranks in an iteration, of each; 0 of
                             one rank */
} DoctorNeeds;

/** By the configuration. Not collective. Errors: those of dg_run_plan(). */
int dg_doctor_needs(DoctorNeeds *out, const Session *s);

#endif
