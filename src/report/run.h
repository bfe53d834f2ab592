#ifndef DG_REPORT_RUN_H
#define DG_REPORT_RUN_H
/*
 * A run folder, read for its report.
 */
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

enum {
    DG_RUN_REWARDS = 8, /* most rewards told apart */
    DG_RUN_TASKS = 64,  /* most tasks of an evaluation */
    DG_RUN_STRIPS = 6,  /* most picture strips in a page */
    DG_RUN_NAME = 64
};

/* One value per iteration; NaN where there is none. */
typedef enum Column {
    COL_ITERATION,
    COL_REWARD,
    COL_SPREAD, /* reward_std: mean spread inside a group */
    COL_STRICT,
    COL_ZERO,
    COL_SKIPPED,
    COL_RATIO,
    COL_CLIP,
    COL_CLIP_LOW, /* the side of ratios below 1 */
    COL_CLIP_HIGH,
    COL_APPROX_KL, /* this and the next two: of updates after the first */
    COL_RATIO_MIN,
    COL_RATIO_MAX,
    COL_DIVERSITY, /* of the pictures inside a group */
    COL_GRAD,
    COL_LR,
    COL_LOSS,
    COL_KL,
    COL_SAMPLES,
    COL_SET_ASIDE, /* samples with NaN or Inf */
    COL_SKIPPED_UPDATES,
    COL_GFLOPS,
    COL_PEAK,
    COL_PLAN,
    COL_ROLLOUT_S,
    COL_REWARD_S,
    COL_UPDATE_S,
    COL_IO_S,
    COL_TOTAL_S,
    COL_SUMS, /* this and the next: bytes between ranks, on each */
    COL_WEIGHTS,
    COL_MISSING, /* scores, over all rewards */
    NUM_COLUMNS
} Column;

typedef struct Span {
    double mean, low, high; /* 95 %; NaN when not measured */
} Span;

typedef struct EvalRow {
    char task[DG_RUN_NAME];
    double pictures;
    Span reward, strict;
} EvalRow;

typedef struct EvalFile {
    int present;
    double prompts, seeds, missing;
    Span sum; /* of the weighted rewards, which training raises; where files do
                 not have it, the first reward */
    EvalRow all, mean_of_tasks; /* the latter's pictures is NaN: absent */
    int num_tasks;
    EvalRow task[DG_RUN_TASKS];
} EvalFile;

/* An evaluation inside metrics.jsonl. */
typedef struct EvalPoint {
    double iteration;
    Span reward, strict;
    double prompts, pictures, missing; /* of train, else NaN */
} EvalPoint;

typedef struct Strip {
    int64_t iteration;
    char *png;
    size_t bytes;
    int64_t width, height; /* pixels */
    int64_t num;           /* pictures side by side */
} Strip;

typedef struct Run {
    const char *dir;
    int64_t n; /* iterations */
    double *col[NUM_COLUMNS];
    int64_t cap;
    int num_rewards;
    char reward_name[DG_RUN_REWARDS][DG_RUN_NAME];
    double *reward[DG_RUN_REWARDS];
    double missing[DG_RUN_REWARDS];  /* scores, in all iterations */
    double declined[DG_RUN_REWARDS]; /* those of them that the reward says it
                                        has not, which is no failure */
    int tuned;                       /* 1: of `train`, 0: of `pretrain` */
    int torn;         /* the last line was not whole and is left out */
    int64_t disorder; /* lines whose iteration is not the one before + 1 */
    int64_t num_points, cap_points;
    EvalPoint *point;
    double evaluating_s;        /* what those of train took together */
    EvalFile before, after;     /* of files; else of the points of train */
    int num_strips, all_strips; /* read, there are */
    Strip strip[DG_RUN_STRIPS];
    int64_t tile_width, tile_height; /* of a picture; 0: square */
    int num_captions;
    char **caption;
    char *config_text; /* NULL: no config.cfg */
    int config_known;  /* config.cfg could be understood: */
    Config config;
} Run;

/** Reads all there is. Errors: as dg_report_write(). Release in any case. */
int dg_run_read(Run *run, const char *dir);
void dg_run_release(Run *run);

/** Any finite value in a column? */
int dg_run_has(const Run *run, Column c);

/** Parts of dg_run_read(), a file each. */
int dg_run_read_metrics(Run *run, const char *path);
int dg_run_read_evaluation(EvalFile *out, const char *path);

/** A number or NaN from JSON members that may be absent or null. */
struct cJSON;
double dg_json_number(const struct cJSON *object, const char *key);
double dg_json_value(const struct cJSON *value);
Span dg_json_span(const struct cJSON *object, const char *key);

#endif
