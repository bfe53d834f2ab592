#ifndef DG_TRAIN_SETUP_H
#define DG_TRAIN_SETUP_H
/*
 * Beginnings that all commands share.
 */
#include "policy/policy.h"
#include "store/prompts.h"
#include "store/rundir.h"
#include "train/session.h"

/** Reads a prompts file on rank 0, parses it on all. Collective. */
int dg_setup_prompts(const Session *s, const char *path, PromptList *out);

/** 1 if the configuration names weights: a file, or a folder. */
int dg_setup_has_weights(const Config *c);

/**
 * Builds the policy with the weights of policy.path's folder, with those of
 * policy.weights, which rank 0 reads for all, or drawn where the configuration names
 * none. Beside GPUs the ranks of a node have them together, and whoever has placed
 * them calls dg_policy_settle(). Collective.
 * ema  1: a checkpoint's averaged weights
 * Errors, agreed: those of dg_policy_create(), dg_policy_load(),
 * dg_policy_load_folder().
 */
int dg_setup_policy(const Session *s, int ema, Policy **out);

/** The same of pretraining, which trains the text encoders too:
 *  dg_policy_train_text(). */
int dg_setup_trained_whole(const Session *s, Policy **out);

/**
 * A second one of the same weights, as they are now, which no file is read again
 * for: before either is placed. It paints no pictures, having no decoder's weights.
 * Collective. Errors, agreed: DG_ENOMEM.
 */
int dg_setup_copy(const Session *s, const Policy *of, Policy **out);

/** Its sizes and tokenizers alone, of which much can be refused before its weights
 *  are read, which may take minutes. Collective. Errors, agreed: those of
 *  dg_policy_sizes(). */
int dg_setup_sizes(const Session *s, Policy **out);
/** Of such a one: whether the folder's files have what will be read of them, by
 *  their lists of tensors. Collective. Errors, agreed: those of
 *  dg_policy_load_folder(). */
int dg_setup_find_weights(const Session *s, Policy *sizes);

/**
 * Whether the policy knows every word of every prompt; path is of the
 * messages. Warns of prompts that are longer than it reads. Collective. Errors: DG_EINVAL naming file, prompt and word.
 */
int dg_setup_check_words(const Session *s, const Policy *p,
                         const PromptList *list, const char *path);

/**
 * Opens the run folder: a new one gets config.cfg; one with a checkpoint or
 * metrics must have been made with the same configuration. Opens log.txt.
 * Collective. dg_rundir_close() gives it free.
 * command  "train" or "pretrain": whose run it is
 * Errors: DG_EINVAL listing the keys that differ, or naming the other command.
 */
int dg_setup_rundir(const Session *s, RunDir *dir, const char *command);

/** Whether that would go well, without making anything: of a dry run.
 *  Collective. Errors: the same. */
int dg_setup_look_rundir(const Session *s, const char *command);

/** Whether prompts.cache may be empty: that key may change while a run goes on, the
 *  bits of its conditions may not. Errors: DG_EINVAL. */
int dg_setup_check_cache(const Config *c);

/** Whether as many workers a rank as there are can do without whole weights or
 *  gradients, where parallel.shard and parallel.passes want that. Errors:
 *  DG_EINVAL. */
int dg_setup_check_threads(const Session *s);

/** Says that a run goes on after 'done' of 'all', or that nothing is left.
 *  what  "iteration", "step"
 *  key   that of 'all' */
void dg_setup_tell_resumed(const char *what, const char *key, int64_t done,
                           int64_t all);

#endif
