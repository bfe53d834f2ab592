/* Does the picture fit its prompt, and do people like it? The cosine of the
 * two in a CLIP's space: HPS v2, the CLIP score, PickScore. One network; they
 * differ in weights, in how pictures are made, and in what a score is called.
 */
#include "kinds.h"

#include "base/error.h"
#include "base/log.h"
#include "clip_config.h"
#include "clip_net.h"
#include "tensor/mirror.h"
#include "text/clip_clean.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ClipReward {
    ClipNet net;  /* comes first */
    double scale; /* the factor of its logits */
    Tokenizer *tokenizer;
    const PromptList *list; /* read already, or NULL */
    int32_t *ids;           /* [list->num, tokens] */
} ClipReward;

static const ClipFlavour hpsv2 = { "ViT-H-14", DG_RESAMPLE_F32, 0, 0 };
static const ClipFlavour clip = { NULL, DG_RESAMPLE_U8, 0, 0 };
static const ClipFlavour pickscore = { "ViT-H-14", DG_RESAMPLE_U8, 1, 0 };

/* --- creation ----------------------------------------------------------- */

static void destroy(void *net)
{
    ClipReward *n = net;

    dg_clip_net_fini(&n->net);
    dg_tokenizer_destroy(n->tokenizer);
    free(n->ids);
    free(n);
}

static int create(void **net, const RewardConfig *c, int64_t index,
                  const ClipFlavour *f)
{
    ClipReward *n = calloc(1, sizeof *n);
    int err;

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    err = dg_clip_net_init(&n->net, c, index, f);
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
    char folder[DG_CLIP_PATH], reason[512];
    const TokenizerInfo *info;
    int err;

    if (n->net.c.tokenizer[0] != '\0')
        snprintf(folder, sizeof folder, "%s", n->net.c.tokenizer);
    else
        dg_clip_folder(folder, n->net.c.path);
    err = dg_tokenizer_open(&n->tokenizer, folder);
    if (err) {
        snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
        return dg_fail(err, "rewards[%lld].tokenizer = \"%s\": %s",
                       (long long)n->net.index, n->net.c.tokenizer, reason);
    }
    info = dg_tokenizer_info(n->tokenizer);
    if (info->kind != DG_TOKENIZER_CLIP)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: not a CLIP tokenizer",
                       (long long)n->net.index, folder);
    /* the text is read where its largest id stands: that of the end mark */
    if (info->eos != info->num_ids - 1 ||
        info->num_ids > n->net.config.text.vocab_size)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: %d ids, end mark %d: the "
                       "end mark must be the last, and the network has %lld",
                       (long long)n->net.index, folder, info->num_ids,
                       info->eos, (long long)n->net.config.text.vocab_size);
    return DG_OK;
}

static int load(void *net, const Comm *comm)
{
    ClipReward *n = net;
    int err = dg_clip_net_find(&n->net);

    if (!err)
        err = open_tokenizer(n);
    err = dg_clip_net_load(&n->net, comm, err);
    if (!err)
        n->scale = dg_clip_model_scale(n->net.model);
    return err;
}

static int64_t num_features(const void *net)
{
    return ((const ClipReward *)net)->net.config.projection_dim;
}

/* *cut = 1: the text's end is not read, else 0 */
static int read_one(const ClipReward *n, int32_t *ids, const char *text,
                    int *cut)
{
    const int32_t tokens = (int32_t)n->net.config.text.max_position_embeddings;
    TokenCount count = { 0 };
    char *cleaned = NULL;
    int err = n->net.clean ? dg_clip_clean(&cleaned, text) : DG_OK;

    if (!err)
        err = dg_tokenizer_encode(n->tokenizer, ids, tokens, &count,
                                  n->net.clean ? cleaned : text);
    free(cleaned);
    *cut = count.truncated;
    return err;
}

static int read_list(void *net, const PromptList *list)
{
    ClipReward *n = net;
    const int64_t tokens = n->net.config.text.max_position_embeddings;
    int64_t num_cut = 0;
    char reason[512];
    int err = DG_OK;

    n->list = NULL;
    free(n->ids);
    n->ids = malloc(sizeof *n->ids * (size_t)(list->num * tokens + 1));
    if (n->ids == NULL)
        return dg_fail(DG_ENOMEM, "token ids of %lld prompts",
                       (long long)list->num);
    for (int64_t i = 0; i < list->num && !err; i++) {
        int cut;

        err = read_one(n, n->ids + i * tokens, list->item[i].text, &cut);
        num_cut += cut;
        if (err) {
            snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
            dg_fail(err, "reward %s, prompt %lld: %s", n->net.name,
                    (long long)i + 1, reason);
        }
    }
    if (!err && num_cut > 0)
        dg_warn(
            "reward %s: %lld of %lld prompts are longer than the %lld tokens "
            "that it reads: their ends have no effect",
            n->net.name, (long long)num_cut, (long long)list->num,
            (long long)tokens);
    if (!err)
        n->list = list;
    return err;
}

/* --- scores ------------------------------------------------------------- */

/* ids [tokens] out; zeros in a plan, whose prompt is NULL */
static int ids_of(const ClipReward *n, int32_t *ids, const Prompt *prompt)
{
    const size_t tokens = (size_t)n->net.config.text.max_position_embeddings;
    int cut;

    memset(ids, 0, sizeof *ids * tokens);
    if (prompt == NULL)
        return DG_OK;
    if (n->list == NULL || prompt < n->list->item ||
        prompt >= n->list->item + n->list->num)
        return read_one(n, ids, prompt->text, &cut);
    memcpy(ids, n->ids + (size_t)(prompt - n->list->item) * tokens,
           sizeof *ids * tokens);
    return DG_OK;
}

static int encode(const void *net, Context *ctx, const Prompt *prompt,
                  float *features)
{
    const ClipReward *n = net;
    const int64_t tokens = n->net.config.text.max_position_embeddings;
    const int64_t e = n->net.config.projection_dim;
    int32_t *ids;
    Tensor *t;
    int err;

    dg_context_reset(ctx);
    ids = dg_arena_take(&ctx->meta, sizeof *ids * (size_t)tokens);
    if (ids == NULL)
        return DG_ENOMEM;
    err = ids_of(n, ids, prompt);
    if (err)
        return err;
    t = dg_clip_model_text(n->net.model, ctx, ids, 1, tokens);
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
    const float *image = dg_clip_net_see(&n->net, in);
    double scale = 1;

    if (image == NULL)
        return dg_context_error(in->ctx);
    if (n->net.c.scale != DG_SCALE_COS)
        scale = n->scale;
    if (n->net.c.scale == DG_SCALE_LOGIT_26)
        scale /= 26;
    out->value = (float)(scale * dg_clip_dot(image, in->features,
                                             n->net.config.projection_dim));
    return DG_OK;
}

#define CLIP_NET(creator)                                                 \
    {                                                                     \
        .create = creator, .destroy = destroy, .load = load,              \
        .place = dg_clip_net_place, .num_values = dg_clip_net_num_values, \
        .scratch = dg_clip_net_scratch, .num_features = num_features,     \
        .read = read_list, .encode = encode, .score = score,              \
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
