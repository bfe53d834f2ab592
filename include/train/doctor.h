#ifndef DG_TRAIN_DOCTOR_H
#define DG_TRAIN_DOCTOR_H
/*
 * Whether the promises hold on the machine at hand, tried in seconds on a small
 * network of its own: what a run would find out after hours, or never. Nothing
 * is kept. Every function is collective; where a trial finds something wrong it
 * returns an agreed code, whose text says what.
 */
#include "train/session.h"

/* What an iteration of the small network gave. */
typedef struct DoctorNetwork {
    char digest[65]; /* SHA-256 of the weights that it ended with */
    double alone_s;  /* of the slowest rank by itself */
    double all_s;    /* of all ranks together */
} DoctorNetwork;

/**
 * One iteration of training, each rank by itself and then all of them: with
 * other micro-batches, and with recomputation and without. The session's device,
 * dtype, threads and parallel.* are used, and its kind of network.
 * Errors: DG_EPROMISE where a ratio is not exactly 1, or where weights differ,
 * naming rank and host; those of a run.
 */
int dg_doctor_network(DoctorNetwork *out, const Session *s);

/**
 * Sums of integers over all ranks, of known result.
 * rate  out: bytes of the summed buffer per second, median; 0: one rank
 * Errors: DG_EPROMISE, DG_ENOMEM.
 */
int dg_doctor_sums(double *rate, const Comm *c);

/**
 * Floating-point arithmetic and noise of this processor against known values.
 * Errors: DG_EPROMISE naming what differs, rank and host.
 */
int dg_doctor_numbers(const Comm *c);

/* What a file in a folder gave. */
typedef struct DoctorFiles {
    char folder[DG_CONFIG_STRING]; /* where it was: there before */
    double bytes, write_s;         /* written, synced, renamed */
    double unused;                 /* bytes free there */
} DoctorFiles;

/**
 * A file written by all ranks, as checkpoints are, in the folder or the nearest
 * above it that is there; read again by every rank; removed.
 * Errors: DG_EIO; DG_EPROMISE where a rank does not see what was written,
 * naming rank and host.
 */
int dg_doctor_files(DoctorFiles *out, const Session *s, const char *folder);

#endif
