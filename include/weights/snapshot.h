#ifndef DG_WEIGHTS_SNAPSHOT_H
#define DG_WEIGHTS_SNAPSHOT_H
/*
 * Hugging Face folders as they are: which files hold the weights of a
 * network. Not collective.
 */
#include "weights/source.h"

/**
 * Opens the weights at a path, which is
 *   a file         .safetensors, .bin, .pt, .pth, or NAME.index.json of shards
 *   a folder       of one network; the first of these that is there:
 *                  diffusion_pytorch_model.safetensors, model.safetensors,
 *                  either's .index.json, then diffusion_pytorch_model.bin,
 *                  pytorch_model.bin, either's .index.json
 * variant  "fp16", ...: files named so are taken, and no others
 *          (model.fp16.safetensors); NULL: files without a variant. One is
 *          never taken for the other.
 * Errors: as dg_source_open(); DG_EIO when there are none, naming what was
 * looked for and the variants there are; DG_EFORMAT for an index that names
 * no plain file of the folder, or a tensor that its file does not have;
 * DG_EIO naming a missing shard.
 */
int dg_snapshot_open(WeightSource **out, const char *path, const char *variant);

/** folder/component, as above; DG_EIO naming the components there are. */
int dg_snapshot_open_component(WeightSource **out, const char *folder,
                               const char *component, const char *variant);

/**
 * Names of a folder's subfolders that hold weights, sorted; free each, and
 * the list. *num = 0 for none. Errors: DG_EIO, DG_ENOMEM.
 */
int dg_snapshot_components(const char *folder, char ***names, int *num);

/* A shard index: which file holds a tensor. */
typedef struct ShardIndex {
    char **names; /* of tensors, in the index's order */
    int *files;   /* [num] */
    char **paths; /* [num_files] folder/file, each once, sorted */
    int64_t num;
    int num_files;
} ShardIndex;

/**
 * Reads the text of an index; path is the index's own, for messages and for
 * the folder. Errors: DG_EFORMAT, DG_ENOMEM.
 */
int dg_snapshot_parse_index(ShardIndex *out, const char *path, const char *text,
                            size_t bytes);
void dg_snapshot_free_index(ShardIndex *index);

#endif
