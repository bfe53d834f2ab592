#ifndef DG_CONFIG_OPTION_H
#define DG_CONFIG_OPTION_H
/*
 * The option table: one row per key, and all that is said about it.
 */
#include "config/config.h"

#include <stdio.h>

typedef enum OptionType {
    OPT_INT,    /* int64_t */
    OPT_REAL,   /* double */
    OPT_BOOL,   /* int */
    OPT_STRING, /* char[size] */
    OPT_ENUM,   /* int-sized enum; names in 'choices', in its order */
    OPT_INTS,   /* int64_t[size]; with at_count 0 to size of them */
    OPT_TEXTS,  /* char[size][stride]; an empty one ends the list */
    OPT_LIST    /* list of groups: 'sub' rows, relative to one element */
} OptionType;

enum {
    OPT_MAY_CHANGE = 1, /* may differ when a run is continued */
    OPT_SHELL = 2       /* a shell reads it: ~ and $NAME are its own */
};

typedef struct Option {
    const char *key;
    OptionType type;
    const char *standard; /* default, as written in a file */
    double min, max;      /* INT, REAL, INTS: both allowed */
    size_t at;            /* offset of the field */
    size_t size; /* STRING: bytes; INTS: count; TEXTS: most texts; LIST: most
                             groups */
    const char *choices; /* ENUM: "a|b|c" */
    const char *help;
    int flags;
    const struct Option *sub; /* LIST only */
    int num_sub;
    size_t stride; /* LIST, TEXTS: bytes of one element */
    /* LIST; INTS of any number, else 0 */
    size_t at_count; /* offset of the int64_t count */
} Option;

/** The table; *num rows, grouped by their first name. */
const Option *dg_option_table(int *num);

/** Row of a key; NULL when there is none. */
const Option *dg_option_lookup(const char *key);

/** Row of a key; NULL with DG_EINVAL and "did you mean" when unknown. */
const Option *dg_option_find(const char *key);

/** 1 if keys begin with this name and a dot. */
int dg_option_is_group(const char *key);

/** Row whose key or group is nearest to what was written; NULL: none near. */
const char *dg_option_nearest(const char *key);

/** The name nearest to what was written; NULL when none is near. */
const char *dg_nearest_name(const char *name, const char *const *names,
                            int num);

/** Field of a row in a Config (or in a list's element). */
void *dg_option_field(const Option *o, void *base);

/** The reading counterpart of dg_option_field. */
const void *dg_option_value(const Option *o, const void *base);

/** Writes "INT in [2, 4096]", "one of a | b" and the like. */
void dg_option_allowed(char *text, size_t size, const Option *o);

/** The same behind "must be": "an integer in [2, 4096]". */
void dg_option_wanted(char *text, size_t size, const Option *o);

/** A LIST's element has a key that its rows do not have; place is where. */
int dg_option_unknown_member(const Option *o, const char *key,
                             const char *place);

/** All keys with defaults, ranges and help, for --help. */
void dg_option_help(FILE *out);

/** doc/config.md, the whole file. */
void dg_option_markdown(FILE *out);

#endif
