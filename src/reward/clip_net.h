#ifndef DG_SRC_REWARD_CLIP_NET_H
#define DG_SRC_REWARD_CLIP_NET_H
/* The CLIP of a reward: sizes, weights, and what it sees in a picture. */
#include "models/clip_model.h"
#include "net.h"

/* What is a reward's own. */
typedef struct ClipFlavour {
    const char *model; /* where nothing else tells; NULL: something must */
    Resampler resampler;
    int transformers; /* scored by their processor, not OpenCLIP's */
    int vision_only;  /* it reads no texts */
} ClipFlavour;

/* The first member of such a reward's net, as Net is. */
typedef struct ClipNet {
    Net net; /* comes first */
    ClipModelConfig config;
    int clean; /* texts are, as OpenCLIP does and transformers do not */
} ClipNet;

/** RewardNet.create's part: n is all zero, and to be ended even on error. */
int dg_clip_net_init(ClipNet *n, const RewardConfig *c, int64_t index,
                     const ClipFlavour *f);
void dg_clip_net_fini(ClipNet *n);

/** RewardNet.prepare's part, err is what went wrong before, on this rank; and
 *  RewardNet.load's. */
int dg_clip_net_prepare(ClipNet *n, const Comm *comm, int err);
int dg_clip_net_load(ClipNet *n, const Comm *comm);

/** The network, which other rewards may have too. */
const ClipModel *dg_clip_net_model(const ClipNet *n);

/** RewardNet's, of any net that begins with a ClipNet. What it sees in a picture
 *  are the features [projection_dim], of length 1. */
int dg_clip_net_same(const void *net, const void *other);
void dg_clip_net_join(void *net, void *host);
int64_t dg_clip_net_num_seen(const void *net);
int dg_clip_net_alike(const void *net, const void *other);
int dg_clip_net_see(const void *net, const RewardInput *in, float *seen);

#endif
