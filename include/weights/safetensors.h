#ifndef DG_WEIGHTS_SAFETENSORS_H
#define DG_WEIGHTS_SAFETENSORS_H
/*
 * safetensors files, in and out: a 64-bit header length N, N bytes of JSON,
 * the values. Written byte for byte as the Python library writes them.
 */
#include "weights/weight_file.h"

/* A header of more is refused unread. */
enum { DG_SAFETENSORS_MAX_HEADER = 100000000 };

/**
 * Reads a file that is in memory, which outlives *out; path is for messages
 * only. Every offset, size and name is checked.
 * Errors: DG_EFORMAT naming file and tensor: a header that is too
 * long or no JSON, an unknown type, more than DG_WEIGHT_MAX_DIMS dims, a name
 * that is there twice, values that do not fill the data without gap or
 * overlap; DG_ENOMEM.
 */
int dg_safetensors_parse(WeightFile **out, const char *path, const void *bytes,
                         size_t num_bytes);

/* A tensor to write. */
typedef struct WeightOut {
    const char *name;
    WeightType type; /* F32, F16 or BF16 */
    int num_dims;
    int64_t dims[DG_WEIGHT_MAX_DIMS];
    const float *data; /* [product of dims] */
} WeightOut;

typedef struct SafetensorsOpts {
    const char *folder;          /* exists */
    const char *stem;            /* "model", "diffusion_pytorch_model", ... */
    int64_t max_shard_bytes;     /* of values; 0: one file whatever its size */
    const char *note_key, *note; /* NULL: none; HF's files have "format" "pt" */
} SafetensorsOpts;

/**
 * Writes tensors as path, whole or not at all. 16-bit values are rounded to
 * nearest even. Values go out in blocks: no second copy is made.
 * Not collective.
 * Errors: DG_EINVAL a name twice, another type, a value beyond float16;
 * DG_ENUMERIC NaN or Inf, naming tensor and element; DG_EIO; DG_ENOMEM.
 */
int dg_safetensors_write(const char *path, const WeightOut *tensors,
                         int64_t num, const char *note_key, const char *note);

/**
 * Writes folder/stem.safetensors, or, where that would hold more than
 * max_shard_bytes, folder/stem-00001-of-0000N.safetensors ... and last
 * folder/stem.safetensors.index.json with weight_map and total_size. Tensors
 * are spread in the order of their names. What the other form left in the
 * folder under the same stem is removed, so that readers find one only.
 * Not collective. Errors: as dg_safetensors_write().
 */
int dg_safetensors_save(const SafetensorsOpts *o, const WeightOut *tensors,
                        int64_t num);

#endif
