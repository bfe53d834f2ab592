#ifndef DG_SRC_REWARD_NET_H
#define DG_SRC_REWARD_NET_H
/* What rewards with a network have in common: where its weights are and go,
 * its tokenizer, the ids of prompts, pictures as it takes them. */
#include "reward/picture.h"
#include "reward/reward.h"
#include "text/tokenizer.h"
#include "weights/manifest.h"

enum { DG_NET_PATH = 1024 };

/* A network and its weights, which rewards of the same files have together. */
typedef struct Tower {
    int users;
    ParamSet params;
    void *at;          /* its values on a device of their own, and */
    const Backend *on; /* whose memory that is; NULL: the host's */
    void *model;       /* over params; NULL: not made yet */
    void (*destroy)(void *model);
} Tower;

/* The first member of such a reward's net, so that a pointer to the one is
 * one to the other. */
typedef struct Net {
    RewardConfig c;
    int64_t index; /* in rewards */
    PictureOpts picture;
    Tower *tower;
    int guest; /* the tower is an earlier reward's, which loads and places it */
} Net;

/** RewardNet.create's part, before parameters are added: n is all zero, and to
 *  be ended even on error.
 *  destroy  of the network that will be the tower's model */
int dg_net_init(Net *n, const RewardConfig *c, int64_t index,
                void (*destroy)(void *model));
void dg_net_fini(Net *n);

/** Whether both paths lead to the same file or folder. By this rank alone. */
int dg_net_same_path(const Net *n, const Net *other);

/** RewardNet.join, of any net that begins with a Net: net lets its own tower go
 *  and is a guest in host's. */
void dg_net_join(void *net, void *host);

/** err of the network's creation: one of sizes, which are a file's, becomes
 *  DG_EFORMAT naming reward and file. */
int dg_net_created(const Net *n, int err);

/** The folder of weights: path itself, or that of the file. */
void dg_net_folder(char out[DG_NET_PATH], const char *path);

/** Whether there is anything at its path. By this rank alone. Errors: DG_EIO
 *  naming the key. */
int dg_net_find(const Net *n);

/** Where its tokenizer is: the key's, or the folder of the weights. */
void dg_net_words(char out[DG_NET_PATH], const Net *n);

/** Its tokenizer. By this rank alone. Errors: DG_EIO, DG_EFORMAT naming key and
 *  file; also for one of another kind. */
int dg_net_tokenizer(Tokenizer **out, const Net *n, TokenizerKind kind);

/**
 * RewardNet.prepare's part: whether the files have the weights, whose parameters
 * are all added. Of a guest's nothing is left to see.
 * o    tensors of the files that it does not need; NULL: none
 * err  what went wrong on this rank before
 * Collective. Errors, agreed: err, dg_load_values()'s, DG_ENOMEM.
 */
int dg_net_prepare(Net *n, const ManifestOpts *o, const Comm *comm, int err);

/** RewardNet.load's part: reserves and reads them. Collective. Errors, agreed:
 *  dg_load_values()'s, DG_ENOMEM. */
int dg_net_load(Net *n, const ManifestOpts *o, const Comm *comm);

/** RewardNet's, of any net that begins with a Net. */
int dg_net_place(void *net, const Backend *backend);
int64_t dg_net_num_values(const void *net);
uint64_t dg_net_digest(const void *net);
size_t dg_net_scratch(const void *net, int64_t height, int64_t width);

/* Ids of a text [tokens] out; *cut = 1: its end is not read, else 0. */
typedef int NetRead(const void *net, int32_t *ids, const char *text, int *cut);

/* The prompts of a list, read already. */
typedef struct NetPrompts {
    const PromptList *list; /* NULL: none */
    int32_t *ids;           /* [list->num, tokens] */
    int64_t tokens;         /* is set by the reward */
} NetPrompts;

/** RewardNet.read, of a net that begins with a Net: texts that are cut are
 *  warned of. Errors: read's, naming the prompt; DG_ENOMEM. */
int dg_net_read(NetPrompts *p, const PromptList *list, NetRead *read,
                const void *net);

/** ids [tokens] of a prompt, of the list or read now; zeros of NULL, a plan's.
 *  Errors: read's. */
int dg_net_ids(const NetPrompts *p, int32_t *ids, const Prompt *prompt,
               NetRead *read, const void *net);

/* What is made of pixels [1, side, side, 3] by the whole net. */
typedef Tensor *NetSee(const void *net, Context *ctx, Tensor *pixels);

/** What is made of a picture, which is made ready first: the same launches for
 *  all pictures. ctx is reset. NULL, and the context's error: it went wrong. */
Tensor *dg_net_look(const void *net, const RewardInput *in, NetSee *see);

#endif
