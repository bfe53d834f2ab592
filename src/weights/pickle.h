#ifndef DG_WEIGHTS_PICKLE_H
#define DG_WEIGHTS_PICKLE_H
/*
 * The pickle inside a PyTorch file, read as data: a small stack machine that
 * builds texts, numbers, lists, dicts and descriptions of tensors, and knows
 * no other objects. What it does not know it refuses by name.
 */
#include "weights/weight_file.h"

typedef struct PickleStorage {
    WeightType type;
    const char *key; /* member data/KEY of the archive; not terminated */
    size_t key_length;
    int64_t num; /* values */
} PickleStorage;

typedef struct PickleTensor {
    PickleStorage storage;
    int64_t offset; /* values; >= 0 */
    int num_dims;
    int64_t dims[DG_WEIGHT_MAX_DIMS], strides[DG_WEIGHT_MAX_DIMS]; /* >= 0 */
} PickleTensor;

typedef int PickleFn(void *user, const char *name, const PickleTensor *t);

/**
 * Calls fn for each tensor of a pickle, named by the keys to it joined by
 * dots, in the pickle's order; ends early when fn returns an error.
 * path  for messages
 * Errors: DG_EFORMAT naming path and what is not allowed; DG_ENOMEM; fn's.
 */
int dg_pickle_read(const char *path, const unsigned char *bytes,
                   size_t num_bytes, PickleFn *fn, void *user);

#endif
