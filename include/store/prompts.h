#ifndef DG_STORE_PROMPTS_H
#define DG_STORE_PROMPTS_H
/*
 * Prompt files: .txt with a prompt per line, or .jsonl with an object per
 * line whose "prompt" is the text and whose other members are metadata for
 * the rewards (GenEval's form). UTF-8 is checked; blank lines are skipped.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "world/meta.h"

typedef struct Prompt {
    const char *text; /* UTF-8, not empty */
    const char *tag;  /* "" if the line has none */
    const char *json; /* the whole line of a .jsonl file; NULL for .txt */
    int has_meta;     /* 1: meta is what the line asks for; 0: the line has no
                       * "include" or names classes of another world */
    WorldMeta meta;
} Prompt;

typedef struct PromptList {
    Prompt *item;
    int32_t num;
    char *memory; /* all the strings */
} PromptList;

/**
 * Reads a prompts file. Not collective.
 * Errors, each naming file and line: DG_EIO (cannot be read), DG_EINVAL (its
 * name ends neither in .txt nor in .jsonl), DG_EFORMAT (no prompt in it, not
 * UTF-8, malformed JSON, no "prompt", malformed "include"), DG_ENOMEM. out is
 * set on success only; free it with dg_prompts_free().
 */
int dg_prompts_read(PromptList *out, const char *path);

/**
 * The same from a file's bytes, for ranks that received them from rank 0.
 * path  only names the format and the messages
 */
int dg_prompts_parse(PromptList *out, const char *path, const char *bytes,
                     size_t num_bytes);

/**
 * A prompt of each of num texts, such as a command line has; line breaks become
 * spaces. Errors, naming the text by its number from 1: DG_EFORMAT (not UTF-8),
 * DG_EINVAL (blanks alone), DG_ENOMEM.
 */
int dg_prompts_of(PromptList *out, const char *const *texts, int num);

void dg_prompts_free(PromptList *list);

/** The digest of what training takes from the list: the lines in their order.
 *  Errors: DG_ENOMEM. */
int dg_prompts_digest(char hex[DG_SHA256_HEX], const PromptList *list);

/**
 * Ascending meanings of the prompts that have metadata, each once: what a
 * stream of training pictures must leave out (WorldStream.excluded).
 * *out is allocated, free() it; NULL when there are none.
 * Errors: DG_ENOMEM.
 */
int dg_prompts_meanings(uint64_t **out, size_t *num, const PromptList *list);

#endif
