#ifndef DG_WEIGHTS_REMAP_H
#define DG_WEIGHTS_REMAP_H
/*
 * Other names for the same weights. The program's names are those of
 * diffusers and transformers; files of the original authors, and old ones,
 * name, fuse or order some tensors otherwise. That knowledge is a table of
 * rules: a name of the program's, and where to read it.
 *
 * Patterns: # stands for a decimal number, * for any text, also none. On the
 * source side they stand for the same texts in the same order; ~ stands for 3
 * minus a number (levels counted from the other end, of four).
 */
#include <stddef.h>

enum { DG_REMAP_NAME = 256 };

/* Which of a source tensor's rows (dim 0) are the wanted tensor. */
typedef enum RemapTake {
    DG_TAKE_ALL,
    DG_TAKE_PART,    /* part k of rows of the wanted tensor's own number */
    DG_TAKE_TAIL,    /* the last ones */
    DG_TAKE_SWAPPED, /* second half, then first half */
    DG_TAKE_TURNED,  /* a matrix stored as its transpose */
} RemapTake;

typedef struct RemapRule {
    const char *want, *source;
    RemapTake take;
    int part; /* of DG_TAKE_PART */
} RemapRule;

/** The table; the first rule whose source is there counts. */
const RemapRule *dg_remap_rules(int *num);

/**
 * The source name of a rule for a wanted name, in out; 1 if the rule matches
 * and the name fits, else 0.
 */
int dg_remap_apply(char out[DG_REMAP_NAME], const RemapRule *r,
                   const char *want);

/** 1 if the text matches the pattern (without ~). */
int dg_remap_matches(const char *pattern, const char *text);

/** 1 for tensors of public files that no network needs (position_ids,
 *  aliases of tied tables): neither missing nor unexpected. */
int dg_remap_ignored(const char *source);

/** What public files put before all names of a network: texts, "" first;
 *  NULL beyond the last. */
const char *dg_remap_prefix(int i);

#endif
