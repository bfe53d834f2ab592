#ifndef DG_STORE_RUNDIR_H
#define DG_STORE_RUNDIR_H
/*
 * The run folder: config.cfg, metrics.jsonl, log.txt, checkpoints/,
 * trajectories/, report.html.
 */
#include <stddef.h>

#include "parallel/comm.h"

enum { DG_RUNDIR_PATH = 1024 };

typedef struct RunDir {
    char root[DG_RUNDIR_PATH];
    char config[DG_RUNDIR_PATH];
    char metrics[DG_RUNDIR_PATH];
    char log[DG_RUNDIR_PATH];
    char report[DG_RUNDIR_PATH];
    char checkpoints[DG_RUNDIR_PATH];
    char trajectories[DG_RUNDIR_PATH];
} RunDir;

/** Fills in the names. Errors: DG_EINVAL: empty or too long. */
int dg_rundir_names(RunDir *d, const char *root);

/**
 * Makes the folder and those inside it, with parents, sees that no other run
 * is at work there (run.lock, held until the process ends or opens another
 * folder), checks that files can be written there and are seen by all hosts,
 * and removes unfinished *.tmp files of a killed run.
 * stored  out: text of its config.cfg, for the caller to free and to compare
 *         (dg_config_compare); NULL when there is none yet
 * Collective: rank 0 works, and the first rank of each other host looks.
 * Errors, agreed: DG_EIO naming folder and reason.
 */
int dg_rundir_open(const Comm *c, RunDir *d, const char *root, char **stored);

/** Writes config.cfg, whole or not at all. Collective. Errors: DG_EIO. */
int dg_rundir_write_config(const Comm *c, const RunDir *d, const char *text);

#endif
