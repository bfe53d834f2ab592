#ifndef DG_WEIGHTS_PICKLE_INTERNAL_H
#define DG_WEIGHTS_PICKLE_INTERNAL_H
/* Values and growing arrays of the pickle reader: pickle.c runs the opcodes,
 * pickle_value.c knows what they build. */
#include "pickle.h"

enum {
    PICKLE_MAX_STACK = 1000000,
    PICKLE_MAX_VALUES = 8000000,
    PICKLE_MAX_TEXT = 1 << 20,
    PICKLE_MAX_DEPTH = 64,
    PICKLE_MAX_TENSORS = 100000,
    PICKLE_MAX_NAME = 1024
};

typedef enum ValueKind {
    VALUE_OTHER, /* None, a float: passed over */
    VALUE_BOOL,
    VALUE_INT,
    VALUE_TEXT,
    VALUE_GLOBAL,
    VALUE_TUPLE,
    VALUE_LIST,
    VALUE_DICT,
    VALUE_STORAGE,
    VALUE_TENSOR
} ValueKind;

/* The names that may occur. */
typedef enum PickleGlobal {
    GLOBAL_ORDERED_DICT,
    GLOBAL_REBUILD_TENSOR,
    GLOBAL_REBUILD_PARAMETER,
    GLOBAL_STORAGE /* and its value type behind it */
} PickleGlobal;

/* Values are named by their place in the array: -1 is none. */
typedef struct Value {
    ValueKind kind;
    PickleGlobal global;
    WeightType type;  /* GLOBAL_STORAGE, VALUE_STORAGE */
    const char *text; /* not terminated; a storage's key */
    size_t length;
    int64_t number;  /* INT, BOOL; values of a STORAGE; index of a TENSOR */
    int first, last; /* cells of TUPLE, LIST, DICT */
    int num;         /* their number; a dict has key and value in turn */
} Value;

typedef struct Cell {
    int value, next;
} Cell;

typedef struct Grow {
    void *items;
    int num, cap;
} Grow;

typedef struct Pickle {
    const char *path;
    const unsigned char *p, *end;
    Grow values, cells, tensors; /* Value, Cell, PickleTensor */
    Grow stack, marks, memo;     /* int */
} Pickle;

/** Room for one more item of size bytes, or NULL with an error recorded. */
void *dg_pickle_grow(Pickle *k, Grow *g, size_t size, int most,
                     const char *what);

/** A new value, or -1. */
int dg_pickle_new(Pickle *k, ValueKind kind);
Value *dg_pickle_value(const Pickle *k, int i);
/** Appends to a tuple, list or dict. DG_ENOMEM, DG_EFORMAT. */
int dg_pickle_append(Pickle *k, int to, int value);

/** The allowed name "module name" as a value in *out. DG_EFORMAT. */
int dg_pickle_global(Pickle *k, const char *module, size_t module_length,
                     const char *name, size_t name_length, int *out);
/** callable(args), symbolically, as a value in *out. DG_EFORMAT. */
int dg_pickle_reduce(Pickle *k, int callable, int args, int *out);
/** The storage that a persistent id describes. DG_EFORMAT. */
int dg_pickle_storage(Pickle *k, int id, int *out);

#endif
