/* The family of Stable Diffusion 1.x: all of CLIP's states condition a U-Net
 * that predicts noise. A latent is a map, channels-last, so its pixels are the
 * tokens. From a Hugging Face folder it has the folder's tokenizer and
 * auto-encoder, whose decoder is frozen, in memory of its own: neither trained
 * nor stored in checkpoints. Of the configuration's sizes, without a folder, it
 * reads the words of the shapes world and paints pixels directly. */
#include "family.h"

#include "base/error.h"
#include "folder.h"
#include "sd_config.h"
#include "sd_pixels.h"
#include "tensor/mirror.h"
#include "tensor/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct SdPolicy {
    PolicyImpl base;
    char path[DG_CONFIG_STRING]; /* "": sizes are the configuration's */
    Folder folder;               /* of path */
    SdConfig config;
    Unet *unet;
    ClipText *clip;
    int64_t map_h, map_w; /* of the latent map */
    /* of a folder */
    Vae *vae;        /* decoder; NULL in a reference, which paints nothing */
    ParamSet codec;  /* of the decoder, */
    FolderCopy copy; /* and where kernels read it */
    Tokenizer *tokenizer;
    /* without one */
    Words words;
    SdPixels pixels;
} SdPolicy;

static SdPolicy *impl_of(const Policy *p)
{
    return (SdPolicy *)p->impl;
}

static int has_folder(const SdPolicy *s)
{
    return s->path[0] != '\0';
}

/* Pixels of the picture beside one of the map. */
static int set_factor(SdPolicy *s, const Config *c, int64_t *factor)
{
    int err = DG_OK;

    if (has_folder(s)) {
        *factor = (int64_t)1 << (s->config.vae.num_levels - 1);
        return DG_OK;
    }
    err = dg_sd_pixels_cell(factor, s->config.unet.in_channels);
    if (!err)
        s->pixels = (SdPixels) { 0, 0, *factor, (float)c->policy.latent_scale };
    return err;
}

static int set_shape(Policy *p, SdPolicy *s, const Config *c)
{
    const SdConfig *m = &s->config;
    int64_t factor, height, width;
    int err = set_factor(s, c, &factor);

    if (!err)
        err = dg_policy_sides(&height, &width, c, factor,
                              has_folder(s) ? s->path : "unet.in_channels");
    if (err)
        return err;
    if (c->policy.prediction != DG_PREDICT_EPSILON)
        return dg_fail(DG_EINVAL, "policy.prediction: must be epsilon with "
                                  "policy.kind = sd");
    s->pixels.height = height;
    s->pixels.width = width;
    s->map_h = height / factor;
    s->map_w = width / factor;
    p->shape = (PolicyShape) {
        .tokens = s->map_h * s->map_w,
        .features = m->unet.in_channels,
        .elements = s->map_h * s->map_w * m->unet.in_channels,
        .height = height,
        .width = width,
        .clip_tokens = m->clip.max_position_embeddings,
        .condition = m->clip.max_position_embeddings * m->clip.hidden_size,
        .prediction = DG_PREDICT_EPSILON,
        .time = DG_TIME_INTEGER,
    };
    return DG_OK;
}

static int set_words(const Policy *p, SdPolicy *s, const Config *c)
{
    dg_words_world(&s->words, DG_WORDS_EOS_LAST);
    return dg_policy_vocab(&s->config.clip.vocab_size, p, "clip.vocab_size",
                           c->clip.vocab_size, &s->words);
}

static int create_networks(Policy *p, SdPolicy *s)
{
    int err = dg_unet_create(&s->unet, &s->config.unet, &p->net, "unet.");

    if (!err)
        err = dg_clip_create(&s->clip, &s->config.clip, &p->text,
                             "text_encoder.");
    if (!has_folder(s))
        return err;
    if (err || p->net.id == DG_PARAMS_REFERENCE)
        return dg_folder_blame(&s->folder, err);
    p->codec = &s->codec;
    err = dg_folder_decoder(&s->vae, &s->config.vae, &s->codec, p->outline);
    return dg_folder_blame(&s->folder, err);
}

/* Of an outline alone without its folder: the public sizes, no tokens. */
static int read_folder(const Policy *p, SdPolicy *s)
{
    int err;

    if (dg_policy_lenient(p) && !dg_folder_exists(s->path)) {
        s->config = dg_sd_config_public();
        return DG_OK;
    }
    err = dg_sd_config_read(&s->config, s->path);
    return err ? err
               : dg_folder_tokenizer(&s->tokenizer, &s->folder, "tokenizer",
                                     DG_TOKENIZER_CLIP,
                                     s->config.clip.vocab_size);
}

static int sd_create(Policy *p, const Config *c)
{
    SdPolicy *s = calloc(1, sizeof *s);
    int err;

    if (s == NULL)
        return dg_fail(DG_ENOMEM, "policy");
    s->base.family = &dg_policy_sd;
    p->impl = &s->base;
    snprintf(s->path, sizeof s->path, "%s", c->policy.path);
    s->folder = (Folder) { s->path, "Stable Diffusion 1.x" };
    err = dg_params_init(&s->codec, DG_PARAMS_CODEC);
    if (!err)
        err = has_folder(s) ? read_folder(p, s)
                            : dg_sd_config_sizes(&s->config, c);
    if (!err)
        err = set_shape(p, s, c);
    if (!err && !has_folder(s))
        err = set_words(p, s, c);
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
    dg_folder_unplace(&s->copy);
    dg_tokenizer_destroy(s->tokenizer);
    free(s);
}

static int sd_load(Policy *p, const Comm *comm, int all)
{
    SdPolicy *s = impl_of(p);
    int err;

    if (!has_folder(s))
        return DG_OK;
    err = all == DG_FOLDER_TEXT
              ? DG_OK
              : dg_folder_load(&s->folder, comm, &s->codec, "vae", 1);
    if (!err && all)
        err = dg_folder_load(&s->folder, comm, &p->text, "text_encoder", 0);
    if (!err && all == DG_FOLDER_ALL)
        err = dg_folder_load(&s->folder, comm, &p->net, "unet", 0);
    return err;
}

static int sd_place(Policy *p, const Backend *backend)
{
    SdPolicy *s = impl_of(p);

    return s->vae != NULL ? dg_folder_place(&s->copy, &s->codec, backend)
                          : DG_OK;
}

static int sd_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                       int32_t *ids_clip, int *cut)
{
    const SdPolicy *s = impl_of(p);
    const int32_t length = (int32_t)p->shape.clip_tokens;
    TokenCount count = { 0 };
    int err;

    (void)ids_t5;       /* none: shape.text_tokens is 0 */
    if (!has_folder(s)) /* refuses what is too long */
        return dg_words_encode(&s->words, ids_clip, NULL, prompt, length, 0);
    err = dg_tokenizer_encode(s->tokenizer, ids_clip, length, &count, prompt);
    *cut = count.truncated;
    return err;
}

static void sd_encode(const Policy *p, Context *ctx, const PromptTokens *t,
                      Tensor *part[2])
{
    Tensor *states = dg_clip_forward(impl_of(p)->clip, ctx, t->clip, 1,
                                     p->shape.clip_tokens, NULL);

    part[0] = dg_op_cast(ctx, states, DG_F32);
    part[1] = NULL;
}

static Tensor *sd_predict(const Policy *p, Context *ctx, const PolicyBatch *b)
{
    const SdPolicy *s = impl_of(p);
    const PolicyShape *shape = &p->shape;
    const int64_t z_dims[4] = { b->num, s->map_h, s->map_w, shape->features };
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

static int decode_vae(const Policy *p, Context *ctx, const float *latent,
                      float *rgb)
{
    const SdPolicy *s = impl_of(p);
    const int64_t dims[4] = { 1, s->map_h, s->map_w, p->shape.features };

    if (s->vae == NULL)
        dg_panic("a reference network does not decode");
    dg_context_reset(ctx);
    return dg_folder_paint(s->vae, ctx,
                           dg_policy_rows(ctx, &latent, 0, 4, dims), rgb);
}

static int sd_decode(const Policy *p, Context *ctx, const float *latent,
                     float *rgb)
{
    const SdPolicy *s = impl_of(p);

    if (has_folder(s))
        return decode_vae(p, ctx, latent, rgb);
    if (!ctx->backend->computes) /* it takes no memory */
        return DG_OK;
    dg_context_reset(ctx);
    latent = dg_policy_on_host(ctx, latent, p->shape.elements);
    if (latent == NULL)
        return dg_context_error(ctx);
    dg_sd_pixels_decode(&s->pixels, latent, rgb);
    return DG_OK;
}

static int sd_codes(const Policy *p)
{
    return !has_folder(impl_of(p));
}

static void sd_code(const Policy *p, const float *rgb, float *latent)
{
    dg_sd_pixels_code(&impl_of(p)->pixels, rgb, latent);
}

static int sd_adopt(Config *c, int there)
{
    SdConfig config;

    c->policy.prediction = DG_PREDICT_EPSILON;
    return there ? dg_sd_config_read(&config, c->policy.path) : DG_OK;
}

const PolicyFamily dg_policy_sd = {
    .component = "unet",
    .describe = dg_sd_describe,
    .create = sd_create,
    .destroy = sd_destroy,
    .adopt = sd_adopt,
    .load = sd_load,
    .place = sd_place,
    .tokenize = sd_tokenize,
    .encode = sd_encode,
    .predict = sd_predict,
    .decode = sd_decode,
    .codes = sd_codes,
    .code = sd_code,
};
