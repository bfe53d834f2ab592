#ifndef DG_WEIGHTS_SOURCE_H
#define DG_WEIGHTS_SOURCE_H
/*
 * The weights of one network as one list of tensors, however many files they
 * lie in. Not collective; after opening, any number of threads may read.
 */
#include "weights/weight_file.h"

typedef struct WeightSource WeightSource;

/**
 * Opens files together.
 * label  what messages call the whole: the folder, or the only file
 * Errors: as dg_weight_file_open(); DG_EFORMAT naming a tensor that two files
 * have, and both.
 */
int dg_source_open(WeightSource **out, const char *label,
                   const char *const *paths, int num_paths);
/** NULL is allowed. */
void dg_source_close(WeightSource *s);

const char *dg_source_label(const WeightSource *s);
int dg_source_num_files(const WeightSource *s);
const WeightFile *dg_source_file(const WeightSource *s, int i);

/** Tensors of all files, in the order of their names (bytes compared). */
int64_t dg_source_num(const WeightSource *s);
const WeightInfo *dg_source_info(const WeightSource *s, int64_t i);
/** Index of that name, or -1. */
int64_t dg_source_find(const WeightSource *s, const char *name);

/** As dg_weight_file_read(), dg_weight_file_read_any(),
 *  dg_weight_file_read_raw(), of the list's tensor i. */
int dg_source_read(const WeightSource *s, int64_t i, int64_t first, int64_t num,
                   float *dst);
int dg_source_read_any(const WeightSource *s, int64_t i, int64_t first,
                       int64_t num, float *dst);
int dg_source_read_raw(const WeightSource *s, int64_t i, void *dst);

/** As dg_weight_file_verify(), of all files. */
int dg_source_verify(const WeightSource *s);
/** Part 0 <= part < parts of that: whole members, about as many bytes in each. All
 *  parts together are all of it, in its order. */
int dg_source_verify_part(const WeightSource *s, int part, int parts);

/** As dg_weight_file_stamp(), of all files. */
uint64_t dg_source_stamp(const WeightSource *s);

/**
 * SHA-256 over all tensors in the order of their names: each name with its
 * zero byte, then its values as stored. Errors: DG_ENOMEM.
 */
int dg_source_digest(const WeightSource *s, char *hex);

#endif
