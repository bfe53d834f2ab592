/* Does the picture fit its prompt, and do people like it? The cosine of the
 * two in a CLIP's space: HPS v2, the CLIP score, PickScore. One network; they
 * differ in weights, in how pictures are made, and in what a score is called.
 */
#include "kinds.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "clip_config.h"
#include "reward/picture.h"
#include "tensor/mirror.h"
#include "tensor/ops.h"
#include "text/clip_clean.h"
#include "text/tokenizer.h"
#include "weights/load.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is a reward's own. */
typedef struct Flavour {
    const char *model; /* where nothing else tells; NULL: something must */
    Resampler resampler;
    int transformers; /* scored by their processor, not OpenCLIP's */
} Flavour;

typedef struct ClipReward {
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
    double scale; /* the factor of its logits */
    Tokenizer *tokenizer;
    const PromptList *list; /* read already, or NULL */
    int32_t *ids;           /* [list->num, tokens] */
} ClipReward;

static const Flavour hpsv2 = { "ViT-H-14", DG_RESAMPLE_F32, 0 };
static const Flavour clip = { NULL, DG_RESAMPLE_U8, 0 };
static const Flavour pickscore = { "ViT-H-14", DG_RESAMPLE_U8, 1 };

/* --- creation ----------------------------------------------------------- */

static int bad_model(const ClipReward *n, const char *folder)
{
    if (n->c.model[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].model = \"\": must name the sizes, since "
                       "%s has no config.json or open_clip_config.json",
                       (long long)n->index, folder);
    return dg_fail(DG_EINVAL,
                   "rewards[%lld].model = \"%s\": must be ViT-L-14, "
                   "ViT-L-14-quickgelu, ViT-H-14 or ViT-H-14-378-quickgelu",
                   (long long)n->index, n->c.model);
}

/* Sizes: by name, by what lies beside the weights, or the reward's own. */
static int choose_sizes(ClipReward *n, const Flavour *f)
{
    const char *name = n->c.model[0] != '\0' ? n->c.model : f->model;
    ClipFolder known = { .colours = dg_picture_colours_clip() };
    char folder[DG_CLIP_PATH];
    int found = 0, err = DG_OK;

    dg_clip_folder(folder, n->c.path);
    if (n->c.model[0] == '\0')
        err = dg_clip_config_read(&known, &found, folder);
    if (err)
        return err;
    if (!found && (name == NULL || dg_clip_model_named(&known.model, name)))
        return bad_model(n, folder);
    if (!found && strstr(name, "-378") != NULL)
        known.squash = 1; /* as DFN's own preprocessing */
    n->config = known.model;
    n->picture = (PictureOpts) {
        .side = n->config.vision.image_size,
        .squash = known.squash,
        .crop_low = f->transformers || known.transformers,
        .resampler = f->resampler,
        .quantize = n->c.quantize,
        .colours = known.colours,
    };
    n->clean = !n->picture.crop_low;
    return DG_OK;
}

static void destroy(void *net)
{
    ClipReward *n = net;

    dg_clip_model_destroy(n->model);
    if (n->on != NULL)
        n->on->give(n->at);
    dg_params_fini(&n->params);
    dg_tokenizer_destroy(n->tokenizer);
    free(n->ids);
    free(n);
}

static int create(void **net, const RewardConfig *c, int64_t index,
                  const Flavour *f)
{
    ClipReward *n = calloc(1, sizeof *n);
    char reason[512];
    int err;

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    snprintf(n->name, sizeof n->name, "%s", c->name);
    n->index = index;
    n->c = *c;
    err = dg_params_init(&n->params, DG_PARAMS_REWARD);
    if (!err)
        err = choose_sizes(n, f);
    if (!err) {
        err = dg_clip_model_create(&n->model, &n->config, &n->params, "");
        if (err == DG_EINVAL) {
            snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
            err = dg_fail(DG_EFORMAT, "rewards[%lld], %s: %s", (long long)index,
                          c->path, reason);
        }
    }
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

    if (n->c.tokenizer[0] != '\0')
        snprintf(folder, sizeof folder, "%s", n->c.tokenizer);
    else
        dg_clip_folder(folder, n->c.path);
    err = dg_tokenizer_open(&n->tokenizer, folder);
    if (err) {
        snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
        return dg_fail(err, "rewards[%lld].tokenizer = \"%s\": %s",
                       (long long)n->index, n->c.tokenizer, reason);
    }
    info = dg_tokenizer_info(n->tokenizer);
    if (info->kind != DG_TOKENIZER_CLIP)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: not a CLIP tokenizer",
                       (long long)n->index, folder);
    /* the text is read where its largest id stands: that of the end mark */
    if (info->eos != info->num_ids - 1 ||
        info->num_ids > n->config.text.vocab_size)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer: %s: %d ids, end mark %d: the "
                       "end mark must be the last, and the network has %lld",
                       (long long)n->index, folder, info->num_ids, info->eos,
                       (long long)n->config.text.vocab_size);
    return DG_OK;
}

static int load(void *net, const Comm *comm)
{
    ClipReward *n = net;
    WeightWant *wants = NULL;
    LoadOpts o = { .path = n->c.path };
    int err = DG_OK;

    if (access(n->c.path, F_OK) != 0)
        err = dg_fail(DG_EIO, "rewards[%lld].path = \"%s\": %s",
                      (long long)n->index, n->c.path, strerror(errno));
    if (!err)
        err = open_tokenizer(n);
    if (!err)
        err = dg_manifest_of_params(&wants, &o.num_wants, &n->params, "");
    err = dg_agree(comm, err);
    o.wants = wants;
    if (!err) /* the files are checked before gigabytes are reserved */
        err = dg_load_values(comm, &o, 0, 0, NULL);
    if (!err)
        err = dg_agree(comm, dg_params_allocate(&n->params, NULL));
    if (!err)
        err = dg_load_values(comm, &o, 0, n->params.count, n->params.values);
    free(wants);
    if (!err)
        n->scale = dg_clip_model_scale(n->model);
    if (!err)
        dg_info("reward %s: %s, %lld parameters, pictures of %lld x %lld",
                n->name, n->c.path, (long long)dg_params_num_values(&n->params),
                (long long)n->picture.side, (long long)n->picture.side);
    return err;
}

static int place(void *net, const Backend *backend)
{
    ClipReward *n = net;
    const int err = dg_params_place(&n->at, &n->params, backend, DG_F32);

    if (err)
        return err;
    n->on = backend;
    dg_memory_drop(n->params.values,
                   sizeof *n->params.values * (size_t)n->params.count);
    return DG_OK;
}

static int64_t num_values(const void *net)
{
    return ((const ClipReward *)net)->params.count;
}

static int64_t num_features(const void *net)
{
    return ((const ClipReward *)net)->config.projection_dim;
}

/* *cut = 1: the text's end is not read, else 0 */
static int read_one(const ClipReward *n, int32_t *ids, const char *text,
                    int *cut)
{
    const int32_t tokens = (int32_t)n->config.text.max_position_embeddings;
    TokenCount count = { 0 };
    char *cleaned = NULL;
    int err = n->clean ? dg_clip_clean(&cleaned, text) : DG_OK;

    if (!err)
        err = dg_tokenizer_encode(n->tokenizer, ids, tokens, &count,
                                  n->clean ? cleaned : text);
    free(cleaned);
    *cut = count.truncated;
    return err;
}

static int read_list(void *net, const PromptList *list)
{
    ClipReward *n = net;
    const int64_t tokens = n->config.text.max_position_embeddings;
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
            dg_fail(err, "reward %s, prompt %lld: %s", n->name,
                    (long long)i + 1, reason);
        }
    }
    if (!err && num_cut > 0)
        dg_warn(
            "reward %s: %lld of %lld prompts are longer than the %lld tokens "
            "that it reads: their ends have no effect",
            n->name, (long long)num_cut, (long long)list->num,
            (long long)tokens);
    if (!err)
        n->list = list;
    return err;
}

/* --- scores ------------------------------------------------------------- */

/* ids [tokens] out; zeros in a plan, whose prompt is NULL */
static int ids_of(const ClipReward *n, int32_t *ids, const Prompt *prompt)
{
    const size_t tokens = (size_t)n->config.text.max_position_embeddings;
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
    const int64_t tokens = n->config.text.max_position_embeddings;
    const int64_t e = n->config.projection_dim;
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
    t = dg_clip_model_text(n->model, ctx, ids, 1, tokens);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    err = dg_kernel_download(ctx->backend, features, t->data,
                             sizeof *features * (size_t)e);
    if (!err)
        dg_clip_normalize(features, e);
    return err;
}

/* The network's input made of a picture, on the host; a counting arena counts
 * what that takes. */
static const float *prepare(const ClipReward *n, const float *rgb,
                            int64_t height, int64_t width, Arena *a, int *err)
{
    const int64_t side = n->picture.side;
    float *pixels =
        dg_arena_take(a, sizeof *pixels * (size_t)(3 * side * side));

    *err = dg_picture_prepare(pixels, &n->picture, rgb, height, width, a);
    return pixels;
}

static size_t scratch(const void *net, int64_t height, int64_t width)
{
    Arena a;
    int err;

    dg_arena_init_count(&a, "picture");
    prepare(net, NULL, height, width, &a, &err);
    return a.peak;
}

/* A picture on its way through the network. */
typedef struct Seeing {
    const ClipReward *net;
    Context *ctx;
    const float *pixels; /* as the network takes them, the host's */
    Tensor *features;
    uint64_t flops; /* counted before */
} Seeing;

static void run_tower(void *user)
{
    Seeing *s = user;
    const int64_t side = s->net->picture.side, dims[4] = { 1, side, side, 3 };

    dg_context_reset(s->ctx);
    s->ctx->flops = s->flops;
    s->features = dg_clip_model_image(s->net->model, s->ctx,
                                      dg_op_input(s->ctx, s->pixels, 4, dims));
}

static Tensor *look(const ClipReward *n, const RewardInput *in)
{
    Seeing s = { .net = n, .ctx = in->ctx, .flops = in->ctx->flops };
    Arena host;
    int err = DG_OK;

    dg_arena_init_over(&host, "picture", in->scratch,
                       scratch(n, in->height, in->width));
    if (s.ctx->backend->computes)
        s.pixels = prepare(n, in->rgb, in->height, in->width, &host, &err);
    if (!err)
        dg_context_replay(s.ctx, run_tower, &s, NULL, 0, 0);
    else
        s.ctx->err = err;
    return s.features;
}

/* Picture to its features, normalised, on the host; NULL on error and in a
 * plan. */
static float *see(const ClipReward *n, const RewardInput *in)
{
    const int64_t e = n->config.projection_dim;
    const size_t bytes = sizeof(float) * (size_t)e;
    Context *ctx = in->ctx;
    float *features;
    Tensor *t;

    dg_context_reset(ctx);
    t = look(n, in);
    if (t == NULL || !ctx->backend->computes)
        return NULL;
    features = dg_arena_take(&ctx->meta, bytes);
    ctx->err = features != NULL
                   ? dg_kernel_download(ctx->backend, features, t->data, bytes)
                   : DG_ENOMEM;
    if (ctx->err)
        return NULL;
    dg_clip_normalize(features, e);
    return features;
}

static int score(const void *net, const RewardInput *in, RewardScore *out)
{
    const ClipReward *n = net;
    const float *image = see(n, in);
    double scale = 1;

    if (image == NULL)
        return dg_context_error(in->ctx);
    if (n->c.scale != DG_SCALE_COS)
        scale = n->scale;
    if (n->c.scale == DG_SCALE_LOGIT_26)
        scale /= 26;
    out->value = (float)(scale * dg_clip_dot(image, in->features,
                                             n->config.projection_dim));
    return DG_OK;
}

#define CLIP_NET(creator)                                                    \
    {                                                                        \
        .create = creator, .destroy = destroy, .load = load, .place = place, \
        .num_values = num_values, .scratch = scratch,                        \
        .num_features = num_features, .read = read_list, .encode = encode,   \
        .score = score,                                                      \
    }

static const RewardNet hpsv2_net = CLIP_NET(create_hpsv2);
static const RewardNet clip_net = CLIP_NET(create_clip);
static const RewardNet pickscore_net = CLIP_NET(create_pickscore);

const RewardKind dg_reward_hpsv2 = { .name = "hpsv2", .net = &hpsv2_net };
const RewardKind dg_reward_clip = { .name = "clip", .net = &clip_net };
const RewardKind dg_reward_pickscore = { .name = "pickscore",
                                         .net = &pickscore_net };
