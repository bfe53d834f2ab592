#ifndef DG_STORE_CONDITIONS_H
#define DG_STORE_CONDITIONS_H
/*
 * Encoded prompts: what the text encoders make of each, so that they need not
 * run again. Layout in doc/formats.md.
 *
 *   encoder_sha256      root attribute: the encoders' weights
 *   condition           float32 or bfloat16 [prompts, width]
 *   condition_sha256, tokens_sha256, prompt_sha256, prompt   text [prompts]
 *
 * Prompts stand in the order of prompt_sha256, each once.
 */
#include <stdint.h>

#include "base/sha256.h"
#include "store/h5.h"

enum { DG_CONDITIONS_VERSION = 2 };
#define DG_CONDITIONS_FORMAT "dancegrpo conditions"

typedef char HexDigest[DG_SHA256_HEX];

typedef struct ConditionsContent {
    int64_t num, width; /* prompts; floats of one condition */
    const char *const *prompt;
    const HexDigest *key;       /* [num] of the prompts' texts, rising */
    const HexDigest *tokens;    /* [num] of their token ids */
    const HexDigest *condition; /* [num] of the rows' bytes, as stored */
    const char *encoder;        /* digest of the encoders */
    int64_t first, num_local;   /* rows of this rank, in rank order */
    H5Type type;                /* of their values: DG_H5_F32, DG_H5_BF16 */
    const void *rows;           /* [num_local, width], or NULL: */
    FetchRows *fetch;           /* brings them in order, at_once at most; */
    int64_t at_once;
    void (*fetched)(void *user); /* all ranks have theirs: tokens and condition
                                    are to be whole after it */
    void *user;                  /* of both */
} ConditionsContent;

/** Writes a file. Collective; all but first, num_local and rows, and before
 *  fetched() tokens and condition, is equal on all ranks. Errors: DG_EIO,
 *  DG_ENOMEM; those of fetch. */
int dg_conditions_write(const Comm *c, const char *path,
                        const ConditionsContent *k, const FileInfo *info);

typedef struct Conditions Conditions;

/** Opens a file and reads its index. By this rank alone, as all below.
 *  Errors: DG_EIO, DG_EFORMAT naming the file; DG_ENOMEM. */
int dg_conditions_open(Conditions **out, const char *path);
void dg_conditions_close(Conditions *c);

const char *dg_conditions_path(const Conditions *c);
const char *dg_conditions_encoder(const Conditions *c);
int64_t dg_conditions_width(const Conditions *c);
/** Of the values as stored: DG_H5_F32, DG_H5_BF16. */
H5Type dg_conditions_type(const Conditions *c);

/** Row of a prompt, or -1. tokens: out, digest of the ids it was made of;
 *  borrowed; NULL: not wanted. Errors of memory read as -1. */
int64_t dg_conditions_find(const Conditions *c, const char *prompt,
                           const char **tokens);

/** One row, of whatever type. out [width]. Errors: DG_EIO; DG_EFORMAT when its
 *  digest is not the stored one. */
int dg_conditions_read(Conditions *c, int64_t row, float *out);

/** SHA-256 over the digests of prompt and condition of each row, in order;
 *  every row is read and checked. Errors: as above. */
int dg_conditions_digest(const char *path, HexDigest hex);

#endif
