#ifndef DG_STORE_H5_H
#define DG_STORE_H5_H
/*
 * HDF5 files of this program: one way to write them, one way to read them.
 *
 * Every file carries, as root attributes, its format's name and version, what
 * wrote it and from what (FileInfo), and `complete` = 1, which is written
 * last. Every dataset carries units, long_name and axes, some their equation.
 * A file is written
 * under NAME.tmp, synced, and renamed: under its final name there is a whole
 * file or none. Texts are UTF-8, null-padded, of fixed length; float16 is
 * IEEE binary16, bfloat16 float32's upper half. All can be read by h5py and h5dump.
 *
 * Writing is collective over a Comm (parallel HDF5); every function agrees
 * on errors, after the first of which the file can only be abandoned.
 * Reading is by each rank alone.
 */
#include <stddef.h>
#include <stdint.h>

#include "parallel/comm.h"

enum { DG_H5_MAX_DIMS = 6, DG_H5_NAME = 256 };

typedef enum H5Type {
    DG_H5_F16,  /* uint16_t bit patterns in memory */
    DG_H5_BF16, /* the same */
    DG_H5_F32,
    DG_H5_F64,
    DG_H5_U8,
    DG_H5_I32,
    DG_H5_I64,
    DG_H5_U64,
    DG_H5_TEXT /* const char * in memory */
} H5Type;

/** What wrote a file, and from what. Strings are borrowed; NULL reads as "".
 *  Compiler, library versions, hosts, ranks and date are added by itself. */
typedef struct FileInfo {
    const char *program;    /* "dancegrpo 0.1.0" */
    const char *git_commit; /* "unknown" when built outside git */
    const char *command;    /* command line */
    const char *config;     /* effective configuration, defaults too */
    int64_t seed;
    const char *arithmetic; /* what bits depend on, dg_cpu_arithmetic() */
    const char *plugins;    /* libraries that score, dg_rewards_plugins(); "" or
                            NULL: none, and nothing is written of them */
} FileInfo;

/** Copies rows first .. first + num - 1 of a whole dataset to the host. */
typedef int FetchRows(void *user, void *to, int64_t first, int64_t num);

/** One dataset to write. */
typedef struct H5Item {
    const char *name; /* '/' makes groups */
    H5Type type;
    int num_dims;                 /* 0: a scalar */
    int64_t dims[DG_H5_MAX_DIMS]; /* of the whole dataset */
    /* shared = 0: all ranks hold the whole data, the same.
       shared = 1: dims[0] is shared out over the ranks, in contiguous blocks
       in rank order (any lengths); this rank holds rows first .. first + num
       - 1 alone. */
    int shared;
    int64_t first, num;
    const void *data;      /* text: array of const char * */
    FetchRows *fetch;      /* where data is NULL: not of text; in order */
    void *user;            /* of fetch */
    int64_t at_once;       /* rows it brings at most; 0: those of 1 MiB */
    const char *units;     /* "1" if none */
    const char *long_name; /* what it is, in words */
    const char *axes;      /* "item, step"; "none" for a scalar */
    const char *equation;  /* how it follows from others; NULL: not told */
} H5Item;

/** Shape of a dataset on disk. */
typedef struct H5Shape {
    H5Type type;
    int num_dims;
    int64_t dims[DG_H5_MAX_DIMS];
    int64_t num; /* elements: product of dims */
} H5Shape;

typedef struct H5File H5File;

/**
 * HDF5 serves one thread at a time. Writing takes its turn by itself, call by
 * call; whoever reads while another thread may write does so between these two.
 * May be nested; no other rank may be waited for in between. Not collective.
 */
void dg_h5_hold(void);
void dg_h5_release(void);

/**
 * Starts path.tmp with all root attributes but `complete`. Collective.
 * format      e.g. "dancegrpo checkpoint"
 * data_bytes  expected size of all data; the room on disk is reserved at
 *             once where the file system can, so that a full disk is found
 *             here
 * Errors: DG_EIO naming the file and the system's reason.
 */
int dg_h5_create(H5File **out, const Comm *c, const char *path,
                 const char *format, int version, const FileInfo *info,
                 int64_t data_bytes);

/**
 * Writes one dataset. Collective; items are equal on all ranks but for first,
 * num and data. Errors: DG_EINVAL where units, long_name or axes are empty or
 * the shares are wrong; DG_EIO.
 */
int dg_h5_write(H5File *f, const H5Item *item);

/** Attributes: of the dataset or group named object, NULL for the root.
 *  Collective; equal on all ranks. Errors: DG_EIO. */
int dg_h5_put_text(H5File *f, const char *object, const char *key,
                   const char *value);
int dg_h5_put_i64(H5File *f, const char *object, const char *key,
                  int64_t value);
int dg_h5_put_f64(H5File *f, const char *object, const char *key, double value);

/** Marks the file complete, closes, syncs and renames it, and ends f in any
 *  case; on an error no unfinished file is left. Collective. */
int dg_h5_commit(H5File *f);

/** Closes and removes the unfinished file, and ends f. NULL is allowed.
 *  Collective. Leaves dg_last_error() as it is. */
void dg_h5_abandon(H5File *f);

/**
 * Opens a file for reading, by this rank alone, and checks that it is
 * complete, and of this format (NULL: any of this program's) and of version
 * 1 up to this one (0: any). Errors: DG_EIO not there or not readable; DG_EFORMAT not HDF5,
 * cut short, of another format or version, not complete.
 */
int dg_h5_open(H5File **out, const char *path, const char *format, int version);
void dg_h5_close(H5File *f);

/** Path given to dg_h5_open(). */
const char *dg_h5_path(const H5File *f);

/** 1 if there is such a dataset, or attribute. */
int dg_h5_has(const H5File *f, const char *name);
int dg_h5_has_key(const H5File *f, const char *object, const char *key);

/** Shape of a dataset. Errors: DG_EFORMAT naming file and dataset. */
int dg_h5_shape(H5File *f, const char *name, H5Shape *shape);

/**
 * Reads a whole dataset, or rows first .. first+num-1 of dims[0].
 * type      as stored: nothing is converted
 * dims      expected; -1 stands for any length
 * Errors: DG_EFORMAT naming file, dataset, what is there and what is wanted.
 */
int dg_h5_read(H5File *f, const char *name, H5Type type, int num_dims,
               const int64_t *dims, void *data);
int dg_h5_read_rows(H5File *f, const char *name, H5Type type, int num_dims,
                    const int64_t *dims, int64_t first, int64_t num,
                    void *data);

/**
 * Reads a one-dimensional text dataset.
 * *texts  one block for dg_h5_free_texts(): pointers, then the characters
 */
int dg_h5_read_texts(H5File *f, const char *name, char ***texts, int64_t *num);
void dg_h5_free_texts(char **texts);

/** Attributes; a missing one is DG_EFORMAT naming file and key. *value of a
 *  text is for the caller to free. */
int dg_h5_get_text(H5File *f, const char *object, const char *key,
                   char **value);
int dg_h5_get_i64(H5File *f, const char *object, const char *key,
                  int64_t *value);
int dg_h5_get_f64(H5File *f, const char *object, const char *key,
                  double *value);
/** Tells where f was written by another build, computed by other kernels, or
 *  scored by other libraries, than now: then bits may be others, and nobody is to
 *  look for a fault. A file of before these were noted is passed over. */
void dg_h5_tell_origin(H5File *f, const FileInfo *now);
/** digest is the one stored of the dataset, as attribute key ("sha256") of it,
 *  or of the root. Errors: DG_EFORMAT naming file and dataset. */
int dg_h5_match_digest(H5File *f, const char *name, int of_root,
                       const char *key, const char *digest);

/**
 * Calls visit for every dataset, in the order of names; a code other than
 * DG_OK ends the walk and is returned.
 */
typedef int H5Visit(H5File *f, const char *name, void *user);
int dg_h5_visit(H5File *f, H5Visit *visit, void *user);

/** Calls visit with every attribute of object as text. */
typedef int H5VisitKey(const char *key, const char *value, void *user);
int dg_h5_visit_keys(H5File *f, const char *object, H5VisitKey *visit,
                     void *user);

/** Bytes of one element in memory; "float32" and so on. */
size_t dg_h5_type_bytes(H5Type type);
const char *dg_h5_type_name(H5Type type);

/** "HDF5 1.10.8". */
const char *dg_h5_library(void);

#endif
