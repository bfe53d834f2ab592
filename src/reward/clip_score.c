/* Does the picture fit its prompt, and do people like it? The cosine of the
 * two in a CLIP's space: HPS v2, the CLIP score, PickScore. One network; they
 * differ in weights, in how pictures are made, and in what a score is called.
 */
#include "kinds.h"

#include "base/error.h"
#include "clip_net.h"
#include "tensor/mirror.h"
#include "text/clip_clean.h"

#include <stdlib.h>

typedef struct ClipReward {
    ClipNet clip; /* comes first */
    double scale; /* the factor of its logits */
    Tokenizer *tokenizer;
    NetPrompts prompts;
} ClipReward;

static const ClipFlavour hpsv2 = { "ViT-H-14", DG_RESAMPLE_F32, 0, 0 };
static const ClipFlavour clip = { NULL, DG_RESAMPLE_U8, 0, 0 };
static const ClipFlavour pickscore = { "ViT-H-14", DG_RESAMPLE_U8, 1, 0 };

/* --- creation ----------------------------------------------------------- */

static void destroy(void *net)
{
    ClipReward *n = net;

    dg_clip_net_fini(&n->clip);
    dg_tokenizer_destroy(n->tokenizer);
    free(n->prompts.ids);
    free(n);
}

static int create(void **net, const RewardConfig *c, int64_t index,
                  const ClipFlavour *f)
{
    ClipReward *n = calloc(1, sizeof *n);
    int err;

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    err = dg_clip_net_init(&n->clip, c, index, f);
    n->prompts.tokens = n->clip.config.text.max_position_embeddings;
    if (err)
        destroy(n);
    else
        *net = n;
    return err;
}

static int create_hpsv2(void **net, const RewardConfig *c, int64_t index)
{
    return create(net, c, index, &hpsv2);
}

static int create_clip(void **net, const RewardConfig *c, int64_t index)
{
    return create(net, c, index, &clip);
}

static int create_pickscore(void **net, const RewardConfig *c, int64_t index)
{
    return create(net, c, index, &pickscore);
}

/* --- weights and words -------------------------------------------------- */

static int open_tokenizer(ClipReward *n)
{
    int err = dg_net_tokenizer(&n->tokenizer, &n->clip.net, DG_TOKENIZER_CLIP);
    const TokenizerInfo *info;
    char folder[DG_NET_PATH];

    if (err)
        return err;
    info = dg_tokenizer_info(n->tokenizer);
    dg_net_words(folder, &n->clip.net);
    /* the text is read where its largest id stands: that of the end mark */
    if (info->eos != info->num_ids - 1 ||
        info->num_ids > n->clip.config.text.vocab_size)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: %d ids, end mark %d: the "
                       "end mark must be the last, and the network has %lld",
                       (long long)n->clip.net.index, folder, info->num_ids,
                       info->eos, (long long)n->clip.config.text.vocab_size);
    return DG_OK;
}

static int prepare(void *net, const Comm *comm)
{
    ClipReward *n = net;
    int err = dg_net_find(&n->clip.net);

    if (!err)
        err = open_tokenizer(n);
    return dg_clip_net_prepare(&n->clip, comm, err);
}

static int load(void *net, const Comm *comm)
{
    ClipReward *n = net;
    const int err = dg_clip_net_load(&n->clip, comm);

    if (!err)
        n->scale = dg_clip_model_scale(dg_clip_net_model(&n->clip));
    return err;
}

static int64_t num_features(const void *net)
{
    return ((const ClipReward *)net)->clip.config.projection_dim;
}

/* *cut = 1: the text's end is not read, else 0 */
static int read_one(const void *net, int32_t *ids, const char *text, int *cut)
{
    const ClipReward *n = net;
    const int32_t tokens = (int32_t)n->prompts.tokens;
    TokenCount count = { 0 };
    char *cleaned = NULL;
    int err = n->clip.clean ? dg_clip_clean(&cleaned, text) : DG_OK;

    if (!err)
        err = dg_tokenizer_encode(n->tokenizer, ids, tokens, &count,
                                  n->clip.clean ? cleaned : text);
    free(cleaned);
    *cut = count.truncated;
    return err;
}

static int read_list(void *net, const PromptList *list)
{
    return dg_net_read(&((ClipReward *)net)->prompts, list, read_one, net);
}

/* --- scores ------------------------------------------------------------- */

static int encode(const void *net, Context *ctx, const Prompt *prompt,
                  float *features)
{
    const ClipReward *n = net;
    const int64_t tokens = n->prompts.tokens;
    const int64_t e = n->clip.config.projection_dim;
    int32_t *ids;
    Tensor *t;
    int err;

    dg_context_reset(ctx);
    ids = dg_arena_take(&ctx->meta, sizeof *ids * (size_t)tokens);
    if (ids == NULL)
        return DG_ENOMEM;
    err = dg_net_ids(&n->prompts, ids, prompt, read_one, n);
    if (err)
        return err;
    t = dg_clip_model_text(dg_clip_net_model(&n->clip), ctx, ids, 1, tokens);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    err = dg_kernel_download(ctx->backend, features, t->data,
                             sizeof *features * (size_t)e);
    if (!err)
        dg_clip_normalize(features, e);
    return err;
}

static int score(const void *net, const RewardInput *in, RewardScore *out)
{
    const ClipReward *n = net;
    double scale = 1;

    if (n->clip.net.c.scale != DG_SCALE_COS)
        scale = n->scale;
    if (n->clip.net.c.scale == DG_SCALE_LOGIT_26)
        scale /= 26;
    out->value = (float)(scale * dg_clip_dot(in->seen, in->features,
                                             n->clip.config.projection_dim));
    return DG_OK;
}

#define CLIP_NET(creator)                                                      \
    {                                                                          \
        .create = creator, .destroy = destroy, .prepare = prepare,             \
        .load = load, .same = dg_clip_net_same, .join = dg_clip_net_join,      \
        .place = dg_net_place, .digest = dg_net_digest,                        \
        .num_values = dg_net_num_values, .scratch = dg_net_scratch,            \
        .num_features = num_features, .num_seen = dg_clip_net_num_seen,        \
        .alike = dg_clip_net_alike, .see = dg_clip_net_see, .read = read_list, \
        .encode = encode, .score = score,                                      \
    }

static const RewardNet hpsv2_net = CLIP_NET(create_hpsv2);
static const RewardNet clip_net = CLIP_NET(create_clip);
static const RewardNet pickscore_net = CLIP_NET(create_pickscore);

enum {
    KEYS = DG_KEY_PATH | DG_KEY_TOKENIZER | DG_KEY_MODEL | DG_KEY_SCALE |
           DG_KEY_QUANTIZE
};

const RewardKind dg_reward_hpsv2 = { .name = "hpsv2",
                                     .keys = KEYS,
                                     .net = &hpsv2_net };
const RewardKind dg_reward_clip = { .name = "clip",
                                    .keys = KEYS,
                                    .net = &clip_net };
const RewardKind dg_reward_pickscore = { .name = "pickscore",
                                         .keys = KEYS,
                                         .net = &pickscore_net };
