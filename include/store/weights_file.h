#ifndef DG_STORE_WEIGHTS_FILE_H
#define DG_STORE_WEIGHTS_FILE_H
/*
 * Weights of a network, with where they come from: what ships in
 * configs/weights. Layout in doc/formats.md.
 *
 *   weights/NAME    float16 or float32 of the tensor's shape, attribute
 *                   sha256; NAME is the safetensors key
 *   lists/NAME      texts (a vocabulary)
 *   provenance      a group; its attributes are the key-value texts
 */
#include <stdint.h>

#include "store/h5.h"

enum { DG_WEIGHTS_VERSION = 1 };
#define DG_WEIGHTS_FORMAT "dancegrpo weights"

typedef struct WeightTensor {
    const char *name;
    int num_dims;
    int64_t dims[DG_H5_MAX_DIMS];
    float *data; /* written from, read into */
} WeightTensor;

typedef struct WeightNote {
    const char *key, *value;
} WeightNote;

typedef struct WeightList {
    const char *name;
    const char *const *texts;
    int64_t num;
} WeightList;

/** Brings a tensor's values to the host of all ranks. Collective. Errors:
 *  agreed. */
typedef int FetchTensor(void *user, const WeightTensor *t, float *to);

typedef struct WeightsContent {
    const WeightTensor *tensors;
    int num_tensors;
    const WeightNote *notes;
    int num_notes;
    const WeightList *lists;
    int num_lists;
    FetchTensor *fetch; /* tensor by tensor; NULL: they have their data */
    void *user;         /* of fetch */
} WeightsContent;

/**
 * Writes a weights file. Collective; content is equal on all ranks.
 * type  DG_H5_F16 (rounded to nearest even) or DG_H5_F32
 * Errors: DG_EINVAL a value beyond float16 or a name twice; DG_ENUMERIC NaN
 * or Inf, naming tensor and element; DG_EIO.
 */
int dg_weights_write(const Comm *c, const char *path, H5Type type,
                     const WeightsContent *w, const FileInfo *info);

/**
 * Fills all of the tensors from a file. By this rank alone.
 * prefix  only names that start with it belong to this network; it is put
 *         before each tensor's name; "" for all
 * Errors: DG_EIO; DG_EFORMAT naming every missing and unexpected tensor, a
 * shape that differs, or a checksum that fails.
 */
int dg_weights_read(const char *path, const char *prefix,
                    const WeightTensor *tensors, int num_tensors);

/** A list of texts; free with dg_h5_free_texts(). By this rank alone. */
int dg_weights_read_list(const char *path, const char *name, char ***texts,
                         int64_t *num);

/** A note's value, to free. By this rank alone. DG_EFORMAT if missing. */
int dg_weights_read_note(const char *path, const char *key, char **value);

#endif
