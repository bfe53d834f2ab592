#ifndef DG_WEIGHTS_WEIGHT_FILE_H
#define DG_WEIGHTS_WEIGHT_FILE_H
/*
 * One file of named tensors, safetensors or PyTorch: listed, found by name,
 * and read tensor by tensor into the caller's memory. The file is mapped, not
 * loaded: a second copy of a network never exists. Not collective; after
 * opening, any number of threads may read.
 */
#include <stddef.h>
#include <stdint.h>

enum { DG_WEIGHT_MAX_DIMS = 8 };

/* How values are stored. Only the first five become float32. */
typedef enum WeightType {
    DG_WEIGHT_F32,
    DG_WEIGHT_F16,
    DG_WEIGHT_BF16,
    DG_WEIGHT_F64,
    DG_WEIGHT_I64,
    DG_WEIGHT_I32,
    DG_WEIGHT_I16,
    DG_WEIGHT_I8,
    DG_WEIGHT_U64,
    DG_WEIGHT_U32,
    DG_WEIGHT_U16,
    DG_WEIGHT_U8,
    DG_WEIGHT_BOOL,
    DG_WEIGHT_F8_E4M3,
    DG_WEIGHT_F8_E5M2,
    DG_WEIGHT_F8_E8M0,
    DG_WEIGHT_F6_E2M3,
    DG_WEIGHT_F6_E3M2,
    DG_WEIGHT_F4,
    DG_WEIGHT_C64,
    DG_WEIGHT_NUM_TYPES
} WeightType;

typedef struct WeightInfo {
    const char *name; /* belongs to the file */
    WeightType type;
    int num_dims; /* 0: one value */
    int64_t dims[DG_WEIGHT_MAX_DIMS];
    int64_t count; /* values: product of dims, 0 if one of them is */
    int64_t bytes; /* of its values without gaps */
} WeightInfo;

typedef struct WeightFile WeightFile;

/** "F32", ... as in safetensors; dg_weight_type_find() gives
 *  DG_WEIGHT_NUM_TYPES for an unknown name. */
const char *dg_weight_type_name(WeightType t);
WeightType dg_weight_type_find(const char *name);
int dg_weight_type_bits(WeightType t);

/**
 * Opens a file by what it holds (a zip archive: PyTorch, else safetensors).
 * Errors: DG_EIO; as dg_safetensors_parse() and dg_torch_file_parse().
 */
int dg_weight_file_open(WeightFile **out, const char *path);
/** NULL is allowed. */
void dg_weight_file_close(WeightFile *f);

const char *dg_weight_file_path(const WeightFile *f);
/** "safetensors" or "PyTorch". */
const char *dg_weight_file_format(const WeightFile *f);

/** Tensors, in the order of their names (bytes compared). */
int64_t dg_weight_file_num(const WeightFile *f);
const WeightInfo *dg_weight_file_info(const WeightFile *f, int64_t i);
/** Index of that name, or -1. */
int64_t dg_weight_file_find(const WeightFile *f, const char *name);

/** Text of the file's own notes (safetensors __metadata__), or NULL. */
const char *dg_weight_file_note(const WeightFile *f, const char *key);
/** Note i, 0 <= i; DG_EINVAL, nothing recorded, beyond the last one. */
int dg_weight_file_note_at(const WeightFile *f, int64_t i, const char **key,
                           const char **text);

/**
 * Reads all bytes that the file has checksums of (PyTorch's: a CRC-32 of every
 * member; safetensors: none) and compares. Opening does not.
 * Errors: DG_EFORMAT naming file and member; DG_EIO as below.
 */
int dg_weight_file_verify(const WeightFile *f);
/** How many bytes these are. */
int64_t dg_weight_file_summed(const WeightFile *f);
/** The same of members that begin with byte from .. end-1 of them. */
int dg_weight_file_verify_part(const WeightFile *f, int64_t from, int64_t end);

/** A number of the file's size and time of change when it was opened: another
 *  where another file is, but for what has been copied with its times. */
uint64_t dg_weight_file_stamp(const WeightFile *f);

/**
 * Values first .. first+num-1 of tensor i (row-major, whatever the file's own
 * layout) as float32: exact but for F64 (rounded to nearest) and I64 beyond
 * 2^24.
 * dst  [num] f32 out; unspecified after an error
 * Errors: DG_EINVAL a range beyond the tensor, or a type that is not
 * convertible; DG_EIO the file cannot be read any more; DG_ENUMERIC NaN or Inf,
 * naming file, tensor and element.
 */
int dg_weight_file_read(const WeightFile *f, int64_t i, int64_t first,
                        int64_t num, float *dst);
/** The same; NaN and Inf are allowed. */
int dg_weight_file_read_any(const WeightFile *f, int64_t i, int64_t first,
                            int64_t num, float *dst);

/** Tensor i as stored, without gaps; dst [info.bytes] out.
 *  Errors: DG_EINVAL a layout with gaps of a type below one byte; DG_EIO. */
int dg_weight_file_read_raw(const WeightFile *f, int64_t i, void *dst);

#endif
