/* The family of Stable Diffusion 1.x, from a Hugging Face folder: all of
 * CLIP's states condition a U-Net that predicts noise. A latent is a map,
 * channels-last, so its pixels are the tokens. The auto-encoder's decoder is
 * frozen, in memory of its own: neither trained nor stored in checkpoints. */
#include "family.h"

#include "base/error.h"
#include "sd_config.h"
#include "tensor/mirror.h"
#include "tensor/ops.h"
#include "text/tokenizer.h"
#include "weights/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct SdPolicy {
    PolicyImpl base;
    char folder[DG_CONFIG_STRING];
    SdConfig config;
    Unet *unet;
    ClipText *clip;
    Vae *vae;       /* decoder; NULL in a reference, which paints nothing */
    ParamSet codec; /* of the decoder, */
    void *codec_at; /* its copy in kernel memory, */
    const Backend *codec_on; /* which is this one's; NULL: there is none */
    Tokenizer *tokenizer;
    int64_t side; /* of the latent map */
} SdPolicy;

static SdPolicy *impl_of(const Policy *p)
{
    return (SdPolicy *)p->impl;
}

static int set_shape(Policy *p, SdPolicy *s, const Config *c)
{
    const SdConfig *m = &s->config;
    const int64_t size = c->pretrain.image_size;
    const int64_t factor = (int64_t)1 << (m->vae.num_levels - 1);
    const int64_t step = factor << (m->unet.num_levels - 1);

    if (size % step != 0)
        return dg_fail(DG_EINVAL,
                       "pretrain.image_size = %lld: must be a multiple of "
                       "%lld for the networks of %s",
                       (long long)size, (long long)step, s->folder);
    if (c->policy.prediction != DG_PREDICT_EPSILON)
        return dg_fail(DG_EINVAL, "policy.prediction: must be epsilon with "
                                  "policy.kind = sd");
    s->side = size / factor;
    p->shape = (PolicyShape) {
        .tokens = s->side * s->side,
        .features = m->unet.in_channels,
        .elements = s->side * s->side * m->unet.in_channels,
        .image_size = size,
        .clip_tokens = m->clip.max_position_embeddings,
        .condition = m->clip.max_position_embeddings * m->clip.hidden_size,
        .prediction = DG_PREDICT_EPSILON,
        .time = DG_TIME_INTEGER,
    };
    return DG_OK;
}

static int open_tokenizer(SdPolicy *s)
{
    const TokenizerInfo *info;
    char path[DG_SD_PATH];
    int err = dg_sd_path(path, s->folder, "tokenizer", NULL);

    if (!err)
        err = dg_tokenizer_open(&s->tokenizer, path);
    if (err)
        return err;
    info = dg_tokenizer_info(s->tokenizer);
    if (info->kind != DG_TOKENIZER_CLIP)
        return dg_fail(DG_EFORMAT, "%s: not a CLIP tokenizer", path);
    if (info->num_ids > s->config.clip.vocab_size)
        return dg_fail(DG_EFORMAT,
                       "%s: %d token ids, the text_encoder has %lld", path,
                       info->num_ids, (long long)s->config.clip.vocab_size);
    return DG_OK;
}

/* A network's complaint of its sizes, with the folder that has them. */
static int name_folder(const SdPolicy *s, int err)
{
    char reason[512];

    if (err != DG_EINVAL)
        return err;
    snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
    return dg_fail(DG_EFORMAT, "%s: %s", s->folder, reason);
}

static int create_networks(Policy *p, SdPolicy *s)
{
    int err = dg_unet_create(&s->unet, &s->config.unet, &p->net, "unet.");

    if (!err)
        err = dg_clip_create(&s->clip, &s->config.clip, &p->text,
                             "text_encoder.");
    if (err || p->net.id == DG_PARAMS_REFERENCE)
        return name_folder(s, err);
    err = dg_vae_create(&s->vae, &s->config.vae, DG_VAE_DECODER, &s->codec,
                        "vae.");
    return err ? name_folder(s, err) : dg_params_allocate(&s->codec, NULL);
}

static int sd_create(Policy *p, const Config *c)
{
    SdPolicy *s = calloc(1, sizeof *s);
    int err;

    if (s == NULL)
        return dg_fail(DG_ENOMEM, "policy");
    s->base.family = &dg_policy_sd;
    p->impl = &s->base;
    snprintf(s->folder, sizeof s->folder, "%s", c->policy.path);
    err = dg_params_init(&s->codec, DG_PARAMS_CODEC);
    if (!err)
        err = dg_sd_config_read(&s->config, s->folder);
    if (!err)
        err = set_shape(p, s, c);
    if (!err)
        err = open_tokenizer(s);
    if (!err)
        err = create_networks(p, s);
    return err;
}

static void sd_destroy(Policy *p)
{
    SdPolicy *s = impl_of(p);

    dg_unet_destroy(s->unet);
    dg_clip_destroy(s->clip);
    dg_vae_destroy(s->vae);
    dg_params_fini(&s->codec);
    if (s->codec_on != NULL)
        s->codec_on->give(s->codec_at);
    dg_tokenizer_destroy(s->tokenizer);
    free(s);
}

/* The decoder is a half of what the vae's files hold. */
static const char *const encoder_names[] = { "encoder.*", "quant_conv.*" };

static int load_component(const SdPolicy *s, const Comm *comm, ParamSet *set,
                          const char *component)
{
    const ManifestOpts half = { encoder_names, 2 };
    char path[DG_SD_PATH], prefix[64];
    WeightWant *wants = NULL;
    LoadOpts o = { .path = path };
    int err = dg_sd_path(path, s->folder, component, NULL);

    snprintf(prefix, sizeof prefix, "%s.", component);
    if (!err)
        err = dg_manifest_of_params(&wants, &o.num_wants, set, prefix);
    err = dg_agree(comm, err);
    o.wants = wants;
    o.manifest = set == &s->codec ? &half : NULL;
    if (!err)
        err = dg_load_values(comm, &o, 0, set->count, set->values);
    free(wants);
    return err;
}

static int sd_load(Policy *p, const Comm *comm, int all)
{
    SdPolicy *s = impl_of(p);
    int err = load_component(s, comm, &s->codec, "vae");

    if (!err && all)
        err = load_component(s, comm, &p->text, "text_encoder");
    if (!err && all)
        err = load_component(s, comm, &p->net, "unet");
    return err;
}

static int sd_place(Policy *p, const Backend *backend)
{
    SdPolicy *s = impl_of(p);
    const size_t bytes = sizeof(float) * (size_t)s->codec.count;
    int err;

    if (s->vae == NULL)
        return DG_OK;
    err = backend->take(&s->codec_at, bytes);
    if (err)
        return err;
    s->codec_on = backend;
    backend->upload(s->codec_at, s->codec.values, bytes);
    dg_params_point(&s->codec, s->codec_at);
    return DG_OK;
}

static int sd_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                       int32_t *ids_clip)
{
    (void)ids_t5; /* none: shape.text_tokens is 0 */
    return dg_tokenizer_encode(impl_of(p)->tokenizer, ids_clip,
                               (int32_t)p->shape.clip_tokens, NULL, prompt);
}

static int sd_encode(const Policy *p, Context *ctx, const PromptTokens *t,
                     float *condition)
{
    Tensor *states;

    dg_context_reset(ctx);
    states = dg_clip_forward(impl_of(p)->clip, ctx, t->clip, 1,
                             p->shape.clip_tokens, NULL);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    dg_kernel_copy(ctx->backend, condition, dg_tensor_f32(states),
                   p->shape.condition);
    return DG_OK;
}

static Tensor *sd_predict(const Policy *p, Context *ctx, const PolicyBatch *b)
{
    const SdPolicy *s = impl_of(p);
    const PolicyShape *shape = &p->shape;
    const int64_t z_dims[4] = { b->num, s->side, s->side, shape->features };
    const int64_t c_dims[3] = { b->num, shape->clip_tokens,
                                s->config.clip.hidden_size };
    const int64_t u_dims[3] = { b->num, shape->tokens, shape->features };
    UnetInputs in = { .t = b->time };
    Tensor *u;

    in.sample = dg_policy_rows(ctx, b->z, 0, 4, z_dims);
    in.context = b->condition != NULL
                     ? dg_policy_rows(ctx, b->condition, 0, 3, c_dims)
                     : dg_clip_forward(s->clip, ctx, b->clip_ids, b->num,
                                       shape->clip_tokens, NULL);
    if (dg_context_error(ctx))
        return NULL;
    u = dg_unet_forward(s->unet, ctx, &in);
    return u != NULL ? dg_op_reshape(ctx, u, 3, u_dims) : NULL;
}

/* z as the decoder wants it, in place */
static void from_model(const Policy *p, Context *ctx, Tensor *z)
{
    const int64_t num = p->shape.elements;
    float *host = (float *)dg_policy_on_host(ctx, dg_tensor_f32(z), num);

    if (host == NULL)
        return;
    dg_vae_from_model(&impl_of(p)->config.vae, host, num);
    if (ctx->backend->apart)
        ctx->backend->upload(z->data, host, sizeof *host * (size_t)num);
}

static int sd_decode(const Policy *p, Context *ctx, const float *latent,
                     float *rgb)
{
    const SdPolicy *s = impl_of(p);
    const int64_t dims[4] = { 1, s->side, s->side, p->shape.features };
    const int64_t num = 3 * p->shape.image_size * p->shape.image_size;
    Tensor *z, *picture;
    int err;

    if (s->vae == NULL)
        dg_panic("a reference network does not decode");
    dg_context_reset(ctx);
    z = dg_policy_rows(ctx, &latent, 0, 4, dims);
    if (z != NULL && ctx->backend->computes)
        from_model(p, ctx, z);
    picture = dg_vae_decode(s->vae, ctx, z);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    err = dg_kernel_download(ctx->backend, rgb, picture->data,
                             sizeof *rgb * (size_t)num);
    for (int64_t i = 0; i < num && !err; i++) {
        const float v = rgb[i] * 0.5f + 0.5f;

        /* written so that NaN stays NaN */
        rgb[i] = v < 0 ? 0 : v > 1 ? 1 : v;
    }
    return err;
}

int dg_policy_adopt_folder(Config *c)
{
    SdConfig config;

    if (c->policy.kind != DG_POLICY_SD || c->policy.path[0] == '\0')
        return DG_OK;
    c->policy.prediction = DG_PREDICT_EPSILON;
    return dg_sd_config_read(&config, c->policy.path);
}

const PolicyFamily dg_policy_sd = {
    .create = sd_create,
    .destroy = sd_destroy,
    .load = sd_load,
    .place = sd_place,
    .tokenize = sd_tokenize,
    .encode = sd_encode,
    .predict = sd_predict,
    .decode = sd_decode,
};
