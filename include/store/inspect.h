#ifndef DG_STORE_INSPECT_H
#define DG_STORE_INSPECT_H
/*
 * What is in an HDF5 file of this program, for people. Not collective.
 */
#include <stdio.h>

#include "base/sha256.h"

/**
 * Writes to out: the root attributes, then each dataset with type, shape,
 * units, axes, meaning, and for numbers least, greatest, mean and how many
 * are not finite; for texts the first ones.
 * Errors: as dg_h5_open() and dg_h5_read(); DG_EIO when out cannot be
 * written.
 */
int dg_inspect_describe(const char *path, FILE *out);

/**
 * The items of trajectory files as a table, comma-separated with a line of names:
 * a row each, in the order of files. A folder stands for a run: all of its.
 * Errors: as above; DG_EFORMAT where files have not the same rewards.
 */
int dg_inspect_table(const char *const *paths, int num, FILE *out);

/**
 * SHA-256 of the weights in a file, computed from the data.
 * A checkpoint: of arrays/weights, float32 as they lie in memory. A weights
 * file: of all tensors in the order of their names, each name with its zero
 * byte before its data as stored. A trajectory: of state/weights; all that has a
 * digest is checked.
 * Errors: DG_EFORMAT for other files, or when a stored checksum fails.
 */
int dg_inspect_digest(const char *path, char hex[DG_SHA256_HEX]);

#endif
