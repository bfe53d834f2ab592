#ifndef DG_TRAIN_CONVERT_H
#define DG_TRAIN_CONVERT_H
/*
 * Checkpoints into folders that diffusers loads.
 */
#include "parallel/comm.h"
#include "policy/export.h"

typedef struct ConvertOpts {
    const char *checkpoint; /* or a weights file */
    const char *to;         /* folder to write; must not be there */
    const char *base;       /* weights below adapters, where they have moved;
                               NULL: where the checkpoint says */
    const char *folder;     /* the same of policy.path */
    WeightType type;
    int64_t max_shard_bytes; /* 0: not said, diffusers' own 10 GB */
    int ema;                 /* averaged weights in place of raw ones */
    int merge;               /* adapters into the network's weights */
    ExportRest rest;
} ConvertOpts;

/**
 * Writes a checkpoint's network, or its adapters, as dg_policy_export() does.
 * Rank 0 works, the others wait. Collective.
 * Errors, agreed: DG_EINVAL naming a flag that does not fit the checkpoint;
 * those of dg_policy_load() and dg_policy_export().
 */
int dg_convert(const Comm *c, const ConvertOpts *o);

#endif
