/* ImageReward: how well people would say that the picture does what its prompt
 * asks for. Text and picture meet in the network, so that a prompt's features
 * are its ids and all is computed per picture. */
#include "kinds.h"

#include "base/error.h"
#include "models/image_reward.h"
#include "net.h"
#include "tensor/mirror.h"
#include "weights/model_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ImageRewardNet {
    Net net; /* comes first */
    ImageRewardConfig config;
    Tokenizer *tokenizer;
    NetPrompts prompts;
} ImageRewardNet;

/* Tensors of the file that scores do not need: what BLIP was trained with. */
static const char *const unused[] = { "blip.vision_proj.*",
                                      "blip.text_proj.*" };
static const ManifestOpts besides = { unused, 2 };

/* --- sizes ------------------------------------------------------------------ */

/* Features are ids as float32, which has all integers up to here. */
enum { MOST_WORDS = 1 << 24, MOST_WIDTH = 65536, MOST_LAYERS = 200 };

static int read_layers(const ModelConfig *file, const char *key, int *layers)
{
    int64_t value = *layers;
    int err = dg_model_config_int(file, key, 1, MOST_LAYERS, &value);

    *layers = (int)value;
    return err;
}

/* What is fixed, where a file says something of it. */
static int check_fixed(const ModelConfig *file, const char *path)
{
    static const struct {
        const char *act, *eps;
        double want;
    } of[] = {
        { "vision_config.hidden_act", "vision_config.layer_norm_eps", 1e-6 },
        { "text_config.hidden_act", "text_config.layer_norm_eps", 1e-12 }
    };
    const char *text = "";
    int err = dg_model_config_text(file, "model_type", &text);

    if (!err && strcmp(text, "blip") != 0)
        return dg_fail(DG_EFORMAT, "%s: model_type is \"%.60s\": must be blip",
                       path, text);
    for (int i = 0; i < 2 && !err; i++) {
        double eps = of[i].want;

        text = "gelu";
        if (dg_model_config_has(file, of[i].act))
            err = dg_model_config_text(file, of[i].act, &text);
        if (!err && strcmp(text, "gelu") != 0)
            err = dg_fail(DG_EFORMAT, "%s: %s is \"%.60s\": must be gelu", path,
                          of[i].act, text);
        if (!err && dg_model_config_has(file, of[i].eps))
            err = dg_model_config_real(file, of[i].eps, &eps);
        if (!err && fabs(eps / of[i].want - 1) > 1e-6)
            err = dg_fail(DG_EFORMAT, "%s: %s is %g: must be %g", path,
                          of[i].eps, eps, of[i].want);
    }
    return err;
}

static int read_sizes(ImageRewardConfig *c, const ModelConfig *file)
{
    const struct {
        const char *key;
        int64_t most, *to;
    } sizes[] = {
        { "vision_config.image_size", 4096, &c->vision.image_size },
        { "vision_config.patch_size", 4096, &c->vision.patch_size },
        { "vision_config.hidden_size", MOST_WIDTH, &c->vision.hidden_size },
        { "vision_config.intermediate_size", 4 * MOST_WIDTH,
          &c->vision.intermediate_size },
        { "vision_config.num_attention_heads", 1024,
          &c->vision.num_attention_heads },
        { "text_config.vocab_size", MOST_WORDS, &c->text.vocab_size },
        { "text_config.hidden_size", MOST_WIDTH, &c->text.hidden_size },
        { "text_config.intermediate_size", 4 * MOST_WIDTH,
          &c->text.intermediate_size },
        { "text_config.num_attention_heads", 1024,
          &c->text.num_attention_heads },
        { "text_config.max_position_embeddings", MOST_WIDTH,
          &c->text.max_position_embeddings },
    };
    int err = DG_OK;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !err; i++)
        err = dg_model_config_int(file, sizes[i].key, 1, sizes[i].most,
                                  sizes[i].to);
    if (!err)
        err = read_layers(file, "vision_config.num_hidden_layers",
                          &c->vision.num_hidden_layers);
    if (!err)
        err = read_layers(file, "text_config.num_hidden_layers",
                          &c->text.num_hidden_layers);
    return err;
}

/* ImageReward's own, or those of a config.json of transformers' BLIP beside
 * the weights. */
static int choose_sizes(ImageRewardNet *n)
{
    char folder[DG_NET_PATH], path[DG_NET_PATH + 16];
    ModelConfig *file;
    int err;

    n->config = dg_image_reward_v1();
    dg_net_folder(folder, n->net.c.path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (access(path, F_OK) != 0)
        return DG_OK;
    err = dg_model_config_open(&file, path);
    if (err)
        return err;
    err = check_fixed(file, path);
    if (!err)
        err = read_sizes(&n->config, file);
    dg_model_config_close(file);
    return err;
}

/* --- creation --------------------------------------------------------------- */

static void destroy_model(void *model)
{
    dg_image_reward_destroy(model);
}

static void destroy(void *net)
{
    ImageRewardNet *n = net;

    dg_net_fini(&n->net);
    dg_tokenizer_destroy(n->tokenizer);
    free(n->prompts.ids);
    free(n);
}

static int make_model(ImageRewardNet *n)
{
    ImageReward *model;
    int err = choose_sizes(n);

    if (err)
        return err;
    err = dg_image_reward_create(&model, &n->config, &n->net.tower->params);
    if (!err)
        n->net.tower->model = model;
    return dg_net_created(&n->net, err);
}

static int create(void **net, const RewardConfig *c, int64_t index)
{
    ImageRewardNet *n = calloc(1, sizeof *n);
    int err;

    if (n == NULL)
        return dg_fail(DG_ENOMEM, "reward %s", c->name);
    err = dg_net_init(&n->net, c, index, destroy_model);
    if (!err)
        err = make_model(n);
    if (err) {
        destroy(n);
        return err;
    }
    n->net.picture = (PictureOpts) { .side = n->config.vision.image_size,
                                     .resampler = DG_RESAMPLE_U8,
                                     .quantize = c->quantize,
                                     .colours = dg_picture_colours_clip() };
    n->prompts.tokens = DG_IMAGE_REWARD_TOKENS;
    if (n->prompts.tokens > n->config.text.max_position_embeddings)
        n->prompts.tokens = n->config.text.max_position_embeddings;
    *net = n;
    return DG_OK;
}

/* Sizes are what lies beside the file says, or the original's. */
static int same(const void *net, const void *other)
{
    return dg_net_same_path(net, other);
}

/* --- weights and words ------------------------------------------------------ */

static int open_tokenizer(ImageRewardNet *n)
{
    int err = dg_net_tokenizer(&n->tokenizer, &n->net, DG_TOKENIZER_WORDPIECE);
    const TokenizerInfo *info;

    if (err)
        return err;
    info = dg_tokenizer_info(n->tokenizer);
    if (info->num_ids > n->config.text.vocab_size)
        return dg_fail(DG_EFORMAT,
                       "rewards[%lld].tokenizer = \"%s\": %d ids, and the "
                       "network has %lld",
                       (long long)n->net.index, n->net.c.tokenizer,
                       info->num_ids, (long long)n->config.text.vocab_size);
    return DG_OK;
}

static int prepare(void *net, const Comm *comm)
{
    ImageRewardNet *n = net;
    int err = dg_net_find(&n->net);

    if (!err)
        err = open_tokenizer(n);
    return dg_net_prepare(&n->net, &besides, comm, err);
}

static int load(void *net, const Comm *comm)
{
    return dg_net_load(net, &besides, comm);
}

static int64_t num_features(const void *net)
{
    return ((const ImageRewardNet *)net)->prompts.tokens;
}

static int read_one(const void *net, int32_t *ids, const char *text, int *cut)
{
    const ImageRewardNet *n = net;
    TokenCount count = { 0 };
    const int err = dg_tokenizer_encode(
        n->tokenizer, ids, (int32_t)n->prompts.tokens, &count, text);

    *cut = count.truncated;
    return err;
}

static int read_list(void *net, const PromptList *list)
{
    return dg_net_read(&((ImageRewardNet *)net)->prompts, list, read_one, net);
}

/* --- scores ----------------------------------------------------------------- */

static int encode(const void *net, Context *ctx, const Prompt *prompt,
                  float *features)
{
    const ImageRewardNet *n = net;
    int32_t ids[DG_IMAGE_REWARD_TOKENS];
    int err;

    dg_context_reset(ctx);
    if (!ctx->backend->computes)
        return DG_OK;
    err = dg_net_ids(&n->prompts, ids, prompt, read_one, n);
    for (int64_t i = 0; i < n->prompts.tokens && !err; i++)
        features[i] = (float)ids[i];
    return err;
}

/* Ids of features, without the pads behind the end mark, which is none: what
 * is left is all that counts. In a plan as many as there may be. */
static int64_t ids_of(const ImageRewardNet *n, int32_t *ids,
                      const float *features)
{
    int64_t used = n->prompts.tokens;

    memset(ids, 0, sizeof *ids * (size_t)used);
    if (features == NULL)
        return used;
    for (int64_t i = 0; i < used; i++)
        ids[i] = (int32_t)features[i];
    while (used > 1 && ids[used - 1] == dg_tokenizer_info(n->tokenizer)->pad)
        used--;
    return used;
}

static Tensor *see(const void *net, Context *ctx, Tensor *pixels)
{
    return dg_image_reward_see(((const Net *)net)->tower->model, ctx, pixels);
}

/* BERT is not replayed: its launches depend on the length of the prompt, and
 * would take a graph each. */
static int score(const void *net, const RewardInput *in, RewardScore *out)
{
    const ImageRewardNet *n = net;
    int32_t ids[DG_IMAGE_REWARD_TOKENS];
    const int64_t tokens = ids_of(n, ids, in->features);
    Context *ctx = in->ctx;
    Tensor *t = dg_net_look(n, in, see);
    float m;
    int err;

    t = dg_image_reward_judge(n->net.tower->model, ctx, t, ids, tokens);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    err = dg_kernel_download(ctx->backend, &m, t->data, sizeof m);
    if (!err)
        out->value = (float)(((double)m - DG_IMAGE_REWARD_MEAN) /
                             DG_IMAGE_REWARD_DEVIATION);
    return err;
}

static const RewardNet net = {
    .create = create,
    .destroy = destroy,
    .same = same,
    .join = dg_net_join,
    .prepare = prepare,
    .load = load,
    .place = dg_net_place,
    .digest = dg_net_digest,
    .num_values = dg_net_num_values,
    .scratch = dg_net_scratch,
    .num_features = num_features,
    .read = read_list,
    .encode = encode,
    .score = score,
};

const RewardKind dg_reward_imagereward = { .name = "imagereward",
                                           .keys = DG_KEY_PATH |
                                                   DG_KEY_TOKENIZER |
                                                   DG_KEY_QUANTIZE,
                                           .net = &net };
