/* How much people like the picture, whatever its prompt: the LAION aesthetic
 * predictor (sac+logos+ava1-l14-linearMSE), layers without activations on the
 * picture's features of OpenAI's CLIP ViT-L/14. Prompts are not read, and of
 * the CLIP only the vision tower is. */
#include "kinds.h"

#include "base/error.h"
#include "clip_net.h"
#include "linear_head.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Aesthetic {
    ClipNet clip; /* comes first */
    LinearHead head;
} Aesthetic;

static const ClipFlavour flavour = { "ViT-L-14-quickgelu", DG_RESAMPLE_U8, 0,
                                     1 };

static void destroy(void *net)
{
    Aesthetic *n = net;

    dg_clip_net_fini(&n->clip);
    dg_linear_head_fini(&n->head);
    free(n);
}

static int create(void **net, const RewardConfig *c, int64_t index)
{
    Aesthetic *n = calloc(1, sizeof *n);
    int err;

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    err = dg_clip_net_init(&n->clip, c, index, &flavour);
    if (err)
        destroy(n);
    else
        *net = n;
    return err;
}

/* The head first, which is small. */
static int prepare(void *net, const Comm *comm)
{
    Aesthetic *n = net;
    char key[64];
    int err = dg_agree(comm, dg_net_find(&n->clip.net));

    snprintf(key, sizeof key, "rewards[%lld].head",
             (long long)n->clip.net.index);
    if (!err)
        err = dg_linear_head_load(&n->head, comm, n->clip.net.c.head,
                                  n->clip.config.projection_dim, key);
    if (!err)
        err = dg_clip_net_prepare(&n->clip, comm, DG_OK);
    return err;
}

static int load(void *net, const Comm *comm)
{
    return dg_clip_net_load(&((Aesthetic *)net)->clip, comm);
}

/* The head's with it. */
static uint64_t digest(const void *net)
{
    const Aesthetic *n = net;

    return dg_net_digest(net) + dg_linear_head_digest(&n->head);
}

static int score(const void *net, const RewardInput *in, RewardScore *out)
{
    const Aesthetic *n = net;

    out->value = (float)dg_linear_head_apply(&n->head, in->seen);
    return DG_OK;
}

static const RewardNet aesthetic_net = {
    .create = create,
    .destroy = destroy,
    .same = dg_clip_net_same,
    .join = dg_clip_net_join,
    .prepare = prepare,
    .load = load,
    .place = dg_net_place,
    .digest = digest,
    .num_values = dg_net_num_values,
    .scratch = dg_net_scratch,
    .num_seen = dg_clip_net_num_seen,
    .alike = dg_clip_net_alike,
    .see = dg_clip_net_see,
    .score = score,
};

const RewardKind dg_reward_aesthetic = {
    .name = "aesthetic",
    .keys = DG_KEY_PATH | DG_KEY_HEAD | DG_KEY_MODEL | DG_KEY_QUANTIZE,
    .net = &aesthetic_net,
};
