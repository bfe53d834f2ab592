#ifndef DG_WEIGHTS_MAPPED_H
#define DG_WEIGHTS_MAPPED_H
/*
 * What a WeightFile is inside, for the readers of this folder. A reader
 * checks that every value of a tensor lies inside the bytes before it adds
 * it; what reads values later checks nothing again.
 */
#include "weights/weight_file.h"

typedef struct MappedTensor {
    WeightInfo info; /* name from malloc */
    const unsigned char *data;
    int gaps; /* 1: strides are not those of row-major order */
    int64_t strides[DG_WEIGHT_MAX_DIMS]; /* elements, >= 0 */
} MappedTensor;

typedef struct WeightFileNote {
    char *key, *text;
} WeightFileNote;

/* Bytes whose CRC-32 the file has. */
typedef struct MappedSum {
    char *name;
    const unsigned char *data;
    uint64_t num_bytes;
    uint32_t crc;
} MappedSum;

struct WeightFile {
    char *path;
    const char *format;
    const unsigned char *bytes;
    size_t num_bytes;
    int64_t changed_ns; /* when the file was, as it was opened */
    int owns_map;
    MappedTensor *tensors;
    int64_t num, cap;
    WeightFileNote *notes;
    int64_t num_notes;
    MappedSum *sums;
    int64_t num_sums;
};

/** Maps a file for reading. An empty one has bytes NULL; changed_ns: since the
 *  epoch. Errors: DG_EIO, DG_ENOMEM. */
int dg_map_open(const char *path, const unsigned char **bytes,
                size_t *num_bytes, int64_t *changed_ns);
void dg_map_close(const unsigned char *bytes, size_t num_bytes);

/**
 * Calls work(user), the one way to read mapped bytes: where the system cannot
 * read them (a file that was cut short meanwhile, a disk or server that fails),
 * it sends a signal, by which a process ends without a word. Any thread.
 * work() may allocate and open nothing.
 * Errors: DG_EIO naming the file; work() is then left in the middle.
 */
int dg_map_guard(const char *path, const unsigned char *bytes, size_t num_bytes,
                 void (*work)(void *user), void *user);

/* A file's bytes, mapped or in memory. */
typedef struct FileBytes {
    const char *path; /* for messages */
    const unsigned char *p;
    uint64_t num;
} FileBytes;

/** Copies num bytes from byte at, which the file has, to memory that nothing
 *  takes away: what builds lists reads there. Errors: as dg_map_guard(). */
int dg_bytes_copy(void *dst, const FileBytes *f, uint64_t at, size_t num);
/** The same to new memory, from malloc. Errors: DG_EFORMAT more than DG_IN_MOST;
 *  DG_ENOMEM; as dg_map_guard(). */
int dg_bytes_take(unsigned char **out, const FileBytes *f, uint64_t at,
                  uint64_t num);

/** A file over memory that outlives it. Errors: DG_ENOMEM. */
int dg_mapped_create(WeightFile **out, const char *path, const char *format,
                     const void *bytes, size_t num_bytes);

/**
 * Completes info (count, bytes) from type and dims, all >= 0.
 * Errors: DG_EFORMAT naming file and tensor: a size beyond 63 bits, or values
 * that do not fill whole bytes.
 */
int dg_mapped_measure(const WeightFile *f, WeightInfo *info);

/** Adds a tensor; its name is copied. Errors: DG_ENOMEM. */
int dg_mapped_add(WeightFile *f, const MappedTensor *t);
/** Adds a note; texts are copied. Errors: DG_ENOMEM. */
int dg_mapped_add_note(WeightFile *f, const char *key, const char *text);

/** Adds num more sums, zeroed, to be filled in by the caller, names from malloc.
 *  Errors: DG_ENOMEM. */
int dg_mapped_new_sums(WeightFile *f, int64_t num);

/** Sorts by name. Errors: DG_EFORMAT naming a tensor that is there twice. */
int dg_mapped_sort(WeightFile *f);

#endif
