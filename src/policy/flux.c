/* The FLUX family: T5 states and CLIP's pooled state condition the FLUX
 * transformer. Its networks come from a folder, with the auto-encoder of
 * FLUX.1, or are small ones that paint pixels directly: their codec is a fixed
 * space-to-depth by 'cell' pixels, followed by FLUX's own 2x2 packing.
 *
 * FLUX predicts velocity and is given sigma, or, where bfloat16 code is to be
 * met, the integer time / 1000, which it then rounds as that code does. The
 * same network may predict the noise of a DDIM schedule, as DiT does, and is
 * then given t / 1000: each way its time embedding sees a number in
 * [0, 1000]. */
#include "flux.h"

#include "base/error.h"
#include "tensor/mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const PolicyFamily with_folder;

static FluxPolicy *impl_of(const Policy *p)
{
    return (FluxPolicy *)p->impl;
}

/* Pixels by space-to-depth: a latent cell is 'cell' pixels wide. */
static int set_cell(FluxPolicy *f, const Config *c)
{
    const int64_t features = c->flux.in_channels;

    for (f->cell = 1; 12 * f->cell * f->cell < features; f->cell++)
        ;
    if (12 * f->cell * f->cell != features)
        return dg_fail(DG_EINVAL,
                       "flux.in_channels = %lld: must be 12 cell^2 (12, 48, "
                       "108, ...) for pictures coded by space-to-depth",
                       (long long)features);
    return DG_OK;
}

/* The folder's decoder; FLUX.1's in an outline without folder. */
static int set_vae(const Policy *p, FluxPolicy *f, const Config *c)
{
    int err = DG_OK;

    if (f->path[0] == '\0' && !dg_policy_lenient(p))
        return dg_fail(DG_EINVAL,
                       "policy.codec = \"vae\": needs policy.path, the folder "
                       "of its weights; without, it can be planned "
                       "(dancegrpo plan)");
    if (dg_policy_lenient(p) && !dg_folder_exists(f->path))
        f->vae_config = dg_vae_flux();
    else
        err = dg_flux_read_codec(&f->vae_config, &f->shift, &f->folder);
    if (err)
        return err;
    if (c->flux.in_channels != 4 * f->vae_config.latent_channels)
        return dg_fail(DG_EINVAL,
                       "flux.in_channels = %lld: must be %lld with "
                       "policy.codec = \"vae\" (its channels, packed 2 x 2)",
                       (long long)c->flux.in_channels,
                       (long long)(4 * f->vae_config.latent_channels));
    f->cell = (int64_t)1 << (f->vae_config.num_levels - 1);
    return DG_OK;
}

static ModelTime time_of(const PolicyConfig *c)
{
    return c->prediction == DG_PREDICT_EPSILON || c->bf16_compat
               ? DG_TIME_UNIT
               : DG_TIME_SIGMA;
}

static int set_shape(Policy *p, FluxPolicy *f, const Config *c)
{
    const int64_t features = c->flux.in_channels;
    int64_t height, width, tokens;
    const int64_t clip =
        c->clip.positions > 0 ? c->clip.positions : c->policy.text_length;
    int err =
        c->policy.codec == DG_CODEC_VAE ? set_vae(p, f, c) : set_cell(f, c);

    if (!err) /* latent cells are packed 2 x 2 */
        err =
            dg_policy_sides(&height, &width, c, 2 * f->cell,
                            f->path[0] != '\0' ? f->path : "flux.in_channels");
    if (err)
        return err;
    f->grid_h = height / (2 * f->cell);
    f->grid_w = width / (2 * f->cell);
    tokens = f->grid_h * f->grid_w;
    p->shape = (PolicyShape) {
        .tokens = tokens,
        .features = features,
        .elements = tokens * features,
        .height = height,
        .width = width,
        .text_tokens = c->policy.text_length,
        .embed_width = c->t5.d_model,
        .clip_tokens = clip,
        .pooled_width = c->clip.hidden,
        .condition = c->policy.text_length * c->t5.d_model + c->clip.hidden,
        .prediction = c->policy.prediction,
        .time = time_of(&c->policy),
        .auto_shift = dg_flux_shift(&f->shift, tokens),
    };
    return DG_OK;
}

static int create_networks(Policy *p, FluxPolicy *f, const Config *c)
{
    const FluxConfig flux = {
        .in_channels = c->flux.in_channels,
        .num_layers = (int)c->flux.num_layers,
        .num_single_layers = (int)c->flux.num_single_layers,
        .attention_head_dim = c->flux.head_dim,
        .num_attention_heads = c->flux.num_heads,
        .joint_attention_dim = c->flux.joint_attention_dim,
        .pooled_projection_dim = c->flux.pooled_dim,
        .guidance_embeds = c->flux.guidance_embeds,
        .rope_theta = c->flux.rope_theta,
        .axes_dims_rope = { c->flux.axes_dims[0], c->flux.axes_dims[1],
                            c->flux.axes_dims[2] },
    };
    T5Config t5 = {
        .d_model = c->t5.d_model,
        .d_kv = c->t5.d_kv,
        .d_ff = c->t5.d_ff,
        .num_layers = (int)c->t5.num_layers,
        .num_heads = c->t5.num_heads,
        .relative_attention_num_buckets = 32,
        .relative_attention_max_distance = 128,
    };
    ClipTextConfig clip = {
        .hidden_size = c->clip.hidden,
        .intermediate_size = c->clip.intermediate,
        .num_hidden_layers = (int)c->clip.layers,
        .num_attention_heads = c->clip.heads,
        .max_position_embeddings = p->shape.clip_tokens,
    };
    int err = dg_policy_vocab(&t5.vocab_size, p, "t5.vocab_size",
                              c->t5.vocab_size, &f->t5_words);

    if (!err)
        err = dg_policy_vocab(&clip.vocab_size, p, "clip.vocab_size",
                              c->clip.vocab_size, &f->clip_words);
    if (!err)
        err = dg_flux_create(&f->transformer, &flux, &p->net, "transformer.");

    if (!err)
        err = dg_clip_create(&f->clip, &clip, &p->text, "text_encoder.");
    if (!err)
        err = dg_t5_create(&f->t5, &t5, &p->text, "text_encoder_2.");
    if (!err)
        err = dg_t5_prepare(f->t5, p->shape.text_tokens);
    if (!err)
        err = dg_flux_prepare(f->transformer, f->grid_h, f->grid_w,
                              p->shape.text_tokens);
    return err;
}

/* Words and pixels of the world, or what a folder has instead. */
static int choose_codec(FluxPolicy *f, const Config *c)
{
    f->shift = dg_flux_shift_public();
    if (c->policy.codec == DG_CODEC_VAE) {
        f->base.family = &with_folder;
        snprintf(f->path, sizeof f->path, "%s", c->policy.path);
        f->folder = (Folder) { f->path, "FLUX.1" };
        return dg_params_init(&f->codec, DG_PARAMS_CODEC);
    }
    dg_words_world(&f->t5_words, DG_WORDS_EOS_FIRST);
    dg_words_world(&f->clip_words, DG_WORDS_EOS_LAST);
    return DG_OK;
}

static int flux_create(Policy *p, const Config *c)
{
    FluxPolicy *f = calloc(1, sizeof *f);
    int err;

    if (f == NULL)
        return dg_fail(DG_ENOMEM, "policy");
    f->base.family = &dg_policy_flux;
    f->guidance = (float)c->policy.guidance;
    f->scale = (float)c->policy.latent_scale;
    f->guidance_embeds = c->flux.guidance_embeds;
    f->bf16_compat = c->policy.bf16_compat;
    p->impl = &f->base;
    err = choose_codec(f, c);
    if (!err)
        err = set_shape(p, f, c);
    if (!err)
        err = create_networks(p, f, c);
    if (!err && c->policy.codec == DG_CODEC_VAE)
        err = dg_flux_open_folder(p, f, c);
    return err;
}

static void flux_destroy(Policy *p)
{
    FluxPolicy *f = impl_of(p);

    dg_flux_close_folder(f);
    dg_flux_destroy(f->transformer);
    dg_t5_destroy(f->t5);
    dg_clip_destroy(f->clip);
    free(f);
}

/* A prompt that is too long is refused, none is cut. */
static int flux_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                         int32_t *ids_clip, int *cut)
{
    const FluxPolicy *f = impl_of(p);
    int err = dg_words_encode(&f->t5_words, ids_t5, NULL, prompt,
                              (int)p->shape.text_tokens, 0);

    (void)cut;
    return err ? err
               : dg_words_encode(&f->clip_words, ids_clip, NULL, prompt,
                                 (int)p->shape.clip_tokens, 0);
}

static void flux_encode(const Policy *p, Context *ctx, const PromptTokens *t,
                        Tensor *part[2])
{
    const FluxPolicy *f = impl_of(p);
    Tensor *states, *pooled = NULL;

    states = dg_t5_forward(f->t5, ctx, t->t5, 1, p->shape.text_tokens);
    dg_clip_forward(f->clip, ctx, t->clip, 1, p->shape.clip_tokens, &pooled);
    part[0] = dg_op_cast(ctx, states, DG_F32);
    part[1] = dg_op_cast(ctx, pooled, DG_F32);
}

static Tensor *flux_predict(const Policy *p, Context *ctx, const PolicyBatch *b)
{
    const FluxPolicy *f = impl_of(p);
    const PolicyShape *s = &p->shape;
    const int64_t z_dims[3] = { b->num, s->tokens, s->features };
    const int64_t c_dims[3] = { b->num, s->text_tokens, s->embed_width };
    const int64_t p_dims[2] = { b->num, s->pooled_width };
    FluxInputs in = { .t = b->time, .grid_h = f->grid_h, .grid_w = f->grid_w };
    float guidance[64];
    Tensor *pooled = NULL;

    if (b->num > (int64_t)(sizeof guidance / sizeof *guidance))
        dg_panic("a batch of %lld predictions", (long long)b->num);
    for (int64_t i = 0; i < b->num; i++)
        guidance[i] = f->guidance;
    in.guidance = f->guidance_embeds ? guidance : NULL;
    in.bf16_compat = f->bf16_compat;
    in.hidden = dg_policy_rows(ctx, b->z, 0, 3, z_dims);
    if (b->condition != NULL) {
        in.context = dg_policy_rows(ctx, b->condition, 0, 3, c_dims);
        in.pooled = dg_policy_rows(ctx, b->condition,
                                   s->text_tokens * s->embed_width, 2, p_dims);
    } else {
        in.context =
            dg_t5_forward(f->t5, ctx, b->t5_ids, b->num, s->text_tokens);
        dg_clip_forward(f->clip, ctx, b->clip_ids, b->num, s->clip_tokens,
                        &pooled);
        in.pooled = pooled;
    }
    if (dg_context_error(ctx))
        return NULL;
    return dg_flux_forward(f->transformer, ctx, &in);
}

/* Place of pixel component (y, x, c) in the packed latent: the channel of
 * the unpacked latent is c cell^2 + (y mod cell) cell + (x mod cell); packing
 * makes feature = channel 4 + dy 2 + dx. */
static int64_t packed_place(const FluxPolicy *f, int64_t y, int64_t x, int c)
{
    const int64_t cell = f->cell;
    const int64_t channel = (c * cell + y % cell) * cell + x % cell;
    const int64_t ly = y / cell, lx = x / cell;
    const int64_t token = ly / 2 * f->grid_w + lx / 2;

    return token * 12 * cell * cell + channel * 4 + ly % 2 * 2 + lx % 2;
}

static int flux_decode(const Policy *p, Context *ctx, const float *latent,
                       float *rgb)
{
    const FluxPolicy *f = impl_of(p);
    const int64_t height = p->shape.height, width = p->shape.width;
    const float half = 0.5f / f->scale;

    if (!ctx->backend->computes) /* it takes no memory */
        return DG_OK;
    dg_context_reset(ctx);
    latent = dg_policy_on_host(ctx, latent, p->shape.elements);
    if (latent == NULL)
        return dg_context_error(ctx);
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                const float v = latent[packed_place(f, y, x, c)] * half + 0.5f;

                rgb[(y * width + x) * 3 + c] = dg_policy_pixel(v);
            }
    return DG_OK;
}

static void flux_code(const Policy *p, const float *rgb, float *latent)
{
    const FluxPolicy *f = impl_of(p);
    const int64_t height = p->shape.height, width = p->shape.width;

    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                latent[packed_place(f, y, x, c)] =
                    f->scale * (2 * rgb[(y * width + x) * 3 + c] - 1);
}

/* Sorted and indented as json.dumps(..., indent=2, sort_keys=True) does. */
static void flux_describe(const Config *c, FILE *out)
{
    const FluxSizes *f = &c->flux;

    fprintf(out,
            "{\n"
            "  \"_class_name\": \"FluxTransformer2DModel\",\n"
            "  \"attention_head_dim\": %lld,\n"
            "  \"axes_dims_rope\": [\n    %lld,\n    %lld,\n    %lld\n  ],\n"
            "  \"guidance_embeds\": %s,\n"
            "  \"in_channels\": %lld,\n"
            "  \"joint_attention_dim\": %lld,\n"
            "  \"num_attention_heads\": %lld,\n"
            "  \"num_layers\": %lld,\n"
            "  \"num_single_layers\": %lld,\n"
            "  \"out_channels\": null,\n"
            "  \"patch_size\": 1,\n"
            "  \"pooled_projection_dim\": %lld\n"
            "}\n",
            (long long)f->head_dim, (long long)f->axes_dims[0],
            (long long)f->axes_dims[1], (long long)f->axes_dims[2],
            f->guidance_embeds ? "true" : "false", (long long)f->in_channels,
            (long long)f->joint_attention_dim, (long long)f->num_heads,
            (long long)f->num_layers, (long long)f->num_single_layers,
            (long long)f->pooled_dim);
}

const PolicyFamily dg_policy_flux = {
    .component = "transformer",
    .describe = flux_describe,
    .create = flux_create,
    .destroy = flux_destroy,
    .adopt = dg_flux_adopt,
    .tokenize = flux_tokenize,
    .encode = flux_encode,
    .predict = flux_predict,
    .decode = flux_decode,
    .code = flux_code,
};

static const PolicyFamily with_folder = {
    .component = "transformer",
    .create = flux_create,
    .destroy = flux_destroy,
    .load = dg_flux_load,
    .place = dg_flux_place,
    .tokenize = dg_flux_tokenize,
    .encode = flux_encode,
    .predict = flux_predict,
    .decode = dg_flux_decode,
};
