#ifndef DG_WEIGHTS_DESCRIBE_H
#define DG_WEIGHTS_DESCRIBE_H
/*
 * What is in files of weights that are not the program's own, for people.
 * Not collective.
 */
#include <stdio.h>

/** 1 for a folder, and for a file whose name ends as weights' do:
 *  .safetensors, .bin, .pt, .pth, .json. */
int dg_describe_knows(const char *path);

/**
 * Writes to out: for a file, or the folder of one network, its files and each
 * tensor with type, shape, bytes, and (where all values together are not too
 * many to look at) least, greatest, mean and how many are not finite; for a
 * folder of several networks their tensors, and then a line for each network,
 * which says so where it cannot be read.
 * variant  as dg_snapshot_open()
 * Errors: as dg_snapshot_open(); DG_EFORMAT where a network of several cannot
 * be read; DG_EIO when out cannot be written.
 */
int dg_describe_weights(const char *path, const char *variant, FILE *out);

/** SHA-256 of dg_source_digest() of what is at a path. Errors: as
 *  dg_snapshot_open(). */
int dg_describe_digest(const char *path, const char *variant, char *hex);

#endif
