#ifndef DG_SRC_REWARD_NET_H
#define DG_SRC_REWARD_NET_H
/* What rewards with a network have in common: where its weights are and go,
 * its tokenizer, the ids of prompts, pictures as it takes them. */
#include "reward/picture.h"
#include "reward/reward.h"
#include "text/tokenizer.h"
#include "weights/manifest.h"

/* Where the weights of a network are. */
typedef struct NetWeights {
    ParamSet params;
    void *at;          /* its values on a device of their own, and */
    const Backend *on; /* whose memory that is; NULL: the host's */
} NetWeights;

/** Whether there is anything at rewards[index].path. By this rank alone.
 *  Errors: DG_EIO naming the key. */
int dg_net_find(const RewardConfig *c, int64_t index);

/**
 * The tokenizer of rewards[index].tokenizer, or of the folder of the weights.
 * By this rank alone. Errors: DG_EIO, DG_EFORMAT naming key and file; also for
 * one of another kind.
 */
int dg_net_tokenizer(Tokenizer **out, const RewardConfig *c, int64_t index,
                     TokenizerKind kind);

/**
 * Reserves and reads the weights, whose parameters are all added; the files
 * are checked before.
 * o    tensors of the files that it does not need; NULL: none
 * err  what went wrong on this rank before
 * Collective. Errors, agreed: err, dg_load_values()'s, DG_ENOMEM.
 */
int dg_net_load(NetWeights *w, const RewardConfig *c, const ManifestOpts *o,
                const Comm *comm, int err);

/** See RewardNet.place. */
int dg_net_place(NetWeights *w, const Backend *backend);

/** Gives them back, placed or not. */
void dg_net_fini(NetWeights *w);

/* Ids of a text [tokens] out; *cut = 1: its end is not read, else 0. */
typedef int NetRead(const void *net, int32_t *ids, const char *text, int *cut);

/* The prompts of a list, read already. */
typedef struct NetPrompts {
    const PromptList *list; /* NULL: none */
    int32_t *ids;           /* [list->num, tokens] */
    int64_t tokens;
} NetPrompts;

/** See RewardNet.read: texts that are cut are warned of. name: the reward's.
 *  p->tokens is set. Errors: read's, naming the prompt; DG_ENOMEM. */
int dg_net_read(NetPrompts *p, const PromptList *list, const char *name,
                NetRead *read, const void *net);

/** ids [tokens] of a prompt, of the list or read now; zeros of NULL, a plan's.
 *  Errors: read's. */
int dg_net_ids(const NetPrompts *p, int32_t *ids, const Prompt *prompt,
               NetRead *read, const void *net);

/** A picture made ready in a, on the host; a counting arena counts what that
 *  takes. *err  out: dg_picture_prepare()'s. */
const float *dg_net_picture(const PictureOpts *o, const float *rgb,
                            int64_t height, int64_t width, Arena *a, int *err);

/** Bytes that it takes. */
size_t dg_net_picture_bytes(const PictureOpts *o, int64_t height,
                            int64_t width);

#endif
