#ifndef DG_WEIGHTS_TORCH_FILE_H
#define DG_WEIGHTS_TORCH_FILE_H
/*
 * PyTorch's zip files (.bin, .pt, .pth; torch >= 1.6): a stored archive with
 * a pickle that says which tensors there are, and their storages.
 *
 * The pickle is read, never run: a fixed list of opcodes, and of names that
 * may occur (torch's storages, _rebuild_tensor_v2, _rebuild_parameter,
 * OrderedDict). Anything else is refused by name, and nothing of it is
 * looked up, called or opened.
 *
 * Tensors inside dicts and lists get the keys to them joined by dots; values
 * that are no tensors are passed over.
 */
#include "weights/weight_file.h"

/**
 * Reads a file that is in memory, which outlives *out; path is for messages
 * only. Tensors may share storages and have any strides.
 * Errors: DG_EFORMAT naming file and, where there is one, tensor: no
 * whole archive, a compressed member, big-endian values, a TorchScript or an
 * older file (before zip), a name or opcode that is not allowed, a storage
 * that is missing or of another size, a tensor that reaches beyond its
 * storage; DG_ENOMEM.
 */
int dg_torch_file_parse(WeightFile **out, const char *path, const void *bytes,
                        size_t num_bytes);

#endif
