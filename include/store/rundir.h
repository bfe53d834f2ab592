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
    int lock; /* rank 0's of log.txt, a descriptor; 0: none */
} RunDir;

/* How another run that writes in the folder is waited for. */
typedef struct RunWait {
    double patience_s;
    int (*leave)(void); /* 1: this one was asked to stop meanwhile; or NULL */
} RunWait;

/** Fills in the names. Errors: DG_EINVAL: empty or too long. */
int dg_rundir_names(RunDir *d, const char *root);

/**
 * Makes the folder and those inside it, with parents, checks that files can
 * be written there and are seen by all hosts, and removes unfinished *.tmp
 * files of a killed run. Another run that writes there is given time to end;
 * the folder is then this one's until dg_rundir_close().
 * wait    NULL: not at all
 * stored  out: text of its config.cfg, for the caller to free and to compare
 *         (dg_config_compare); NULL when there is none yet
 * Collective: rank 0 works, and the first rank of each other host looks.
 * Errors, agreed: DG_EIO naming folder and reason; DG_EBUSY: the other run is
 * there still.
 */
int dg_rundir_open(const Comm *c, RunDir *d, const char *root,
                   const RunWait *wait, char **stored);

/**
 * What dg_rundir_open() would find, as far as rank 0 sees without making
 * anything: a folder that can be written into or made. Collective.
 * stored  out: as there
 * Errors, agreed: DG_EIO naming folder and reason.
 */
int dg_rundir_look(const Comm *c, RunDir *d, const char *root, char **stored);

/**
 * A part of dg_rundir_open(): locks log.txt against other runs, on file systems
 * that have locks; of others it warns. The system takes the lock from a process
 * that has died. Not collective.
 * wait  NULL: not at all
 * Errors: DG_EBUSY: another run is there still; DG_EIO: log.txt cannot be opened.
 */
int dg_rundir_lock(RunDir *d, const RunWait *wait);

/** Gives the folder free; of one that was not opened (zeros) nothing. */
void dg_rundir_close(RunDir *d);

/** Writes config.cfg, whole or not at all. Collective. Errors: DG_EIO. */
int dg_rundir_write_config(const Comm *c, const RunDir *d, const char *text);

#endif
