#ifndef DG_TRAIN_CACHE_H
#define DG_TRAIN_CACHE_H
/*
 * The cache of encoded prompts (prompts.cache): written once by `encode`,
 * then read in place of running the text encoders. The conditions are the
 * same bits. With a cache nothing is encoded: a prompt that is not in it, or
 * encoders or a tokenizer other than those that it was made with, are errors.
 */
#include "policy/policy.h"
#include "store/conditions.h"
#include "store/prompts.h"
#include "train/session.h"

/**
 * Encodes the prompts of prompts.file, prompts.eval_file and evaluate.file
 * and the empty one, each once, shared out over ranks and threads, and writes prompts.cache,
 * whose data do not depend on the number of ranks. Collective.
 * dry  1: everything is opened, nothing computed or written
 * Errors: DG_EINVAL naming the key, prompt or word; those of files.
 */
int dg_encode(const Session *s, int dry);

/** How conditions are stored there, by prompts.cache_dtype and run.dtype. */
H5Type dg_cache_type(const Config *c);

/**
 * Opens prompts.cache; *out = NULL when the key is empty, and may be. Of p no
 * weights are needed. Collective.
 * Errors: DG_EFORMAT when its conditions are of another size, DG_EIO; DG_EINVAL
 * when it is not of the type that a float32 run wants, or when guidance (cfg.scale)
 * needs the empty prompt and it is not in it.
 */
int dg_cache_open(Conditions **out, const Session *s, const Policy *p);

/** Whether it was made with the encoders that p has, weights too. c NULL: nothing
 *  is asked. Collective. Errors: DG_EFORMAT. */
int dg_cache_match(const Conditions *c, const Session *s, const Policy *p);

/** Whether every prompt of the list is in it; path is of the messages.
 *  c NULL: nothing is asked. Collective.
 *  Errors: DG_EINVAL naming the first prompt that is missing or was cut
 *  into other tokens. */
int dg_cache_check(const Conditions *c, const Session *s, const Policy *p,
                   const PromptList *list, const char *path);

/** The condition of one prompt. By this rank and one thread. */
int dg_cache_read(Conditions *c, const char *prompt, float *condition);

#endif
