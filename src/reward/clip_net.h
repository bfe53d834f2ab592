#ifndef DG_SRC_REWARD_CLIP_NET_H
#define DG_SRC_REWARD_CLIP_NET_H
/* The CLIP of a reward: sizes, weights, and what it sees in a picture. */
#include "models/clip_model.h"
#include "reward/picture.h"
#include "reward/reward.h"

/* What is a reward's own. */
typedef struct ClipFlavour {
    const char *model; /* where nothing else tells; NULL: something must */
    Resampler resampler;
    int transformers; /* scored by their processor, not OpenCLIP's */
    int vision_only;  /* it reads no texts */
} ClipFlavour;

/* The first member of such a reward's net, so that a pointer to the one is
 * one to the other. */
typedef struct ClipNet {
    char name[64];
    int64_t index; /* in rewards */
    RewardConfig c;
    ClipModelConfig config;
    PictureOpts picture;
    int clean; /* texts are, as OpenCLIP does and transformers do not */
    ParamSet params;
    void *at;          /* its values on a device of their own, and */
    const Backend *on; /* whose memory that is; NULL: the host's */
    ClipModel *model;
} ClipNet;

/** RewardNet.create's part: n is all zero, and to be ended even on error. */
int dg_clip_net_init(ClipNet *n, const RewardConfig *c, int64_t index,
                     const ClipFlavour *f);
void dg_clip_net_fini(ClipNet *n);

/** Whether its weights are there at all. By this rank alone. DG_EIO naming
 *  the key. */
int dg_clip_net_find(const ClipNet *n);

/** RewardNet.load's part; err is what went wrong before, on this rank. */
int dg_clip_net_load(ClipNet *n, const Comm *comm, int err);

/** RewardNet's, of any net that begins with a ClipNet. */
int dg_clip_net_place(void *net, const Backend *backend);
int64_t dg_clip_net_num_values(const void *net);
size_t dg_clip_net_scratch(const void *net, int64_t height, int64_t width);

/** A picture's features [projection_dim], of length 1, on the host, alive
 *  until in->ctx is reset. NULL on error and in a plan. */
float *dg_clip_net_see(const ClipNet *n, const RewardInput *in);

#endif
