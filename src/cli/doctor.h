#ifndef DG_SRC_CLI_DOCTOR_H
#define DG_SRC_CLI_DOCTOR_H
/* What doctor*.c share: findings, and what ranks see of their nodes. Not
 * public. */
#include "base/plural.h"
#include "cli/command.h"

typedef enum Verdict {
    DG_FINE,
    DG_SLOW,
    DG_DOUBTFUL,
    DG_WRONG,
    DG_VERDICTS
} Verdict;

enum { DG_FINDINGS = 256, DG_FINDING_NUMBERS = 8 };

typedef struct Finding {
    const char *what;
    Verdict verdict;
    char *text;
    struct {
        const char *key;
        double value;
    } number[DG_FINDING_NUMBERS];
    int num_numbers;
} Finding;

/* What a rank sees of its node. */
typedef struct Seen {
    char host[64];
    int32_t node; /* its first rank */
    int32_t threads;
    int32_t cores;      /* that this rank may use */
    int32_t node_cores; /* that are there */
    int64_t unused;     /* bytes of memory that programs may have, */
    int64_t all;        /* and all there are */
    int64_t shared;     /* bytes free in /dev/shm */
} Seen;

typedef struct Doctor {
    Cli *cli;
    int count[DG_VERDICTS];
    Finding finding[DG_FINDINGS]; /* on rank 0 */
    int num;
    Seen *seen; /* of all ranks; NULL: not looked at yet */
} Doctor;

/** A row of the table, on rank 0, as soon as it is known. */
void dg_finding(Doctor *d, const char *what, Verdict v, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/** A trial that found something, which all ranks know of. */
void dg_finding_error(Doctor *d, const char *what);

/** A number of the last row, for the JSON. */
void dg_finding_number(Doctor *d, const char *key, double value);

/** All rows, on rank 0. Errors: DG_ENOMEM; DG_EIO. */
int dg_findings_write(const Doctor *d, const char *path);
void dg_findings_free(Doctor *d);

/** Ranks, cores, memory. Collective. Errors, agreed: DG_ENOMEM. */
int dg_doctor_machine(Doctor *d);

/** Whether nodes have room for so many bytes of each of their ranks; to be
 *  called after dg_doctor_machine(). 1: they have. */
int dg_doctor_room(Doctor *d, uint64_t bytes);

#endif
