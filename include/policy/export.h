#ifndef DG_POLICY_EXPORT_H
#define DG_POLICY_EXPORT_H
/*
 * Weights out: folders that diffusers loads. By this rank alone.
 */
#include "policy/policy.h"
#include "weights/safetensors.h"

/* What stands around the network in the folder that is written. */
typedef enum ExportRest {
    DG_EXPORT_ALONE, /* nothing: it is the network's own folder */
    DG_EXPORT_COPY,  /* the rest of policy.path's pipeline, copied */
    DG_EXPORT_LINK   /* the same, as symbolic links to it */
} ExportRest;

typedef struct ExportOpts {
    const char *folder; /* to write; must not be there */
    WeightType type;    /* F32, F16, BF16 */
    int64_t max_shard_bytes;
    int adapters;    /* 1: these alone; 0: the network */
    ExportRest rest; /* of the network; else DG_EXPORT_ALONE */
} ExportOpts;

/* What a file has for an export. */
typedef struct ExportSource {
    int adapters; /* it holds adapters alone */
    int ema;      /* it holds averaged weights */
} ExportSource;

/** Looks at a file. Errors: DG_EIO; DG_EFORMAT naming it: neither a
 *  checkpoint nor weights of this program. */
int dg_export_look(ExportSource *out, const char *path);

/**
 * Writes, whole or not at all, names and shapes being those of diffusers:
 *   of the network   config.json, and diffusion_pytorch_model.safetensors or
 *                    its shards with their index; with the rest, in the
 *                    subfolder of the pipeline that is its own
 *   of its adapters  pytorch_lora_weights.safetensors, with B multiplied by
 *                    alpha / rank, so that readers, which take alpha to be
 *                    the rank where nothing else is said, agree
 * c  the configuration that p was made of
 * Errors: DG_EINVAL when the folder is there, adapters are asked of a policy
 * that has none, the rest of one without policy.path, or a value is beyond
 * the type; DG_ENUMERIC naming tensor and element; DG_EIO; DG_ENOMEM.
 */
int dg_policy_export(const Policy *p, const Config *c, const ExportOpts *o);

#endif
