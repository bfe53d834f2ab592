#ifndef DG_STORE_METRICS_H
#define DG_STORE_METRICS_H
/*
 * metrics.jsonl: one JSON object per line, lines of an iteration in the order
 * of the calls; numbers as %.9g, NaN and Inf as null. A line is written
 * by one call, so that a killed run leaves whole lines. Rank 0's only: no
 * function here is collective.
 */
#include <stdint.h>

typedef struct Metrics Metrics;

/**
 * Opens path for appending. On a resume, lines of iterations beyond
 * last_iteration (the checkpoint's; -1: all lines go) and anything that is
 * not a whole line are cut off first.
 * Errors: DG_EIO, DG_ENOMEM; DG_EFORMAT naming a line that is none, or out of
 * order, where lines that are to stay would be cut off with it.
 */
int dg_metrics_open(Metrics **out, const char *path, int64_t last_iteration);

/**
 * yes = 1: the last line of the file, as dg_metrics_open() left it, is of this
 * iteration and begins with this key; no file is none. Errors: DG_EIO.
 */
int dg_metrics_end_with(int *yes, const char *path, int64_t iteration,
                        const char *key);

/** Closes; NULL is allowed. */
void dg_metrics_close(Metrics *m);

/** Starts the line of an iteration: {"iteration":N */
void dg_metrics_begin(Metrics *m, int64_t iteration);

void dg_metrics_real(Metrics *m, const char *key, double value);
void dg_metrics_int(Metrics *m, const char *key, int64_t value);
void dg_metrics_text(Metrics *m, const char *key, const char *value);
void dg_metrics_reals(Metrics *m, const char *key, const double *values,
                      int64_t num);

/** A nested object, until dg_metrics_leave(). */
void dg_metrics_enter(Metrics *m, const char *key);
void dg_metrics_leave(Metrics *m);

/**
 * Ends the line and writes it. On an error (disk full) the part of the line
 * that was written is taken back. Errors: DG_EIO, DG_ENOMEM.
 */
int dg_metrics_commit(Metrics *m);

/**
 * Brings all lines to the disk. A checkpoint is written after it, so that it
 * vouches for them where the machine fails, and where a network's file system
 * tells of a full disk only now. Errors: DG_EIO.
 */
int dg_metrics_sync(Metrics *m);

#endif
