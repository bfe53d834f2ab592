#include "flux.h"

#include "base/error.h"

static FluxPolicy *impl_of(const Policy *p)
{
    return (FluxPolicy *)p->impl;
}

static int open_tokenizers(FluxPolicy *f, const Config *c)
{
    const TokenizerInfo *clip;
    int err = dg_folder_tokenizer(&f->clip_tokens, &f->folder, "tokenizer",
                                  DG_TOKENIZER_CLIP, c->clip.vocab_size);

    if (!err)
        err = dg_folder_tokenizer(&f->t5_tokens, &f->folder, "tokenizer_2",
                                  DG_TOKENIZER_T5, c->t5.vocab_size);
    if (err)
        return err;
    clip = dg_tokenizer_info(f->clip_tokens);
    if (clip->eos != clip->num_ids - 1)
        return dg_fail(DG_EFORMAT,
                       "%s/tokenizer: the end mark's id is %d: must be the "
                       "largest, %d, by which the pooled state is found",
                       f->path, clip->eos, clip->num_ids - 1);
    return DG_OK;
}

int dg_flux_open_folder(Policy *p, FluxPolicy *f, const Config *c)
{
    int err = DG_OK;

    if (!dg_policy_lenient(p) || dg_folder_exists(f->path))
        err = open_tokenizers(f, c);
    if (err || p->net.id == DG_PARAMS_REFERENCE)
        return err;
    p->codec = &f->codec;
    err = dg_folder_decoder(&f->vae, &f->vae_config, &f->codec, p->outline);
    return dg_folder_blame(&f->folder, err);
}

void dg_flux_close_folder(FluxPolicy *f)
{
    dg_vae_destroy(f->vae);
    dg_params_fini(&f->codec);
    dg_folder_unplace(&f->copy);
    dg_tokenizer_destroy(f->t5_tokens);
    dg_tokenizer_destroy(f->clip_tokens);
}

int dg_flux_load(Policy *p, const Comm *comm, int all)
{
    const FluxPolicy *f = impl_of(p);
    ParamSet *codec = &impl_of(p)->codec;
    int err = all == DG_FOLDER_TEXT
                  ? DG_OK
                  : dg_folder_load(&f->folder, comm, codec, "vae", 1);

    if (!err && all)
        err = dg_folder_load(&f->folder, comm, &p->text, "text_encoder", 0);
    if (!err && all)
        err = dg_folder_load(&f->folder, comm, &p->text, "text_encoder_2", 0);
    if (!err && all == DG_FOLDER_ALL)
        err = dg_folder_load(&f->folder, comm, &p->net, "transformer", 0);
    return err;
}

int dg_flux_place(Policy *p, const Backend *backend)
{
    FluxPolicy *f = impl_of(p);

    return f->vae != NULL ? dg_folder_place(&f->copy, &f->codec, backend)
                          : DG_OK;
}

/* CLIP reads 77 tokens at most, as in FLUX's own pipeline: it gives the pooled
 * state alone, and is not asked. */
int dg_flux_tokenize(const Policy *p, const char *prompt, int32_t *ids_t5,
                     int32_t *ids_clip, int *cut)
{
    const FluxPolicy *f = impl_of(p);
    TokenCount count = { 0 };
    int err = dg_tokenizer_encode(
        f->t5_tokens, ids_t5, (int32_t)p->shape.text_tokens, &count, prompt);

    *cut = count.truncated;
    return err ? err
               : dg_tokenizer_encode(f->clip_tokens, ids_clip,
                                     (int32_t)p->shape.clip_tokens, NULL,
                                     prompt);
}

/* The map [1, 2 grid_h, 2 grid_w, channels] of a packed latent, where the host can
 * read it: feature = channel 4 + dy 2 + dx of the 2 x 2 cells of a token. */
static void unpack(const FluxPolicy *f, float *z, const float *latent)
{
    const int64_t channels = f->vae_config.latent_channels;
    const int64_t width = 2 * f->grid_w;

    for (int64_t y = 0; y < 2 * f->grid_h; y++)
        for (int64_t x = 0; x < width; x++) {
            const float *token =
                latent + (y / 2 * f->grid_w + x / 2) * 4 * channels;
            const int64_t place = y % 2 * 2 + x % 2;

            for (int64_t c = 0; c < channels; c++)
                z[(y * width + x) * channels + c] = token[c * 4 + place];
        }
}

/* The same as a tensor; NULL on error. */
static Tensor *map_of(const Policy *p, Context *ctx, const float *latent)
{
    const FluxPolicy *f = impl_of(p);
    const int64_t dims[4] = { 1, 2 * f->grid_h, 2 * f->grid_w,
                              f->vae_config.latent_channels };
    const size_t bytes = sizeof(float) * (size_t)p->shape.elements;
    Tensor *map = dg_tensor_new(ctx, DG_F32, 4, dims);
    float *z;

    if (map == NULL || !ctx->backend->computes)
        return map;
    latent = dg_policy_on_host(ctx, latent, p->shape.elements);
    if (latent == NULL)
        return NULL;
    if (!ctx->backend->apart) {
        unpack(f, dg_tensor_f32(map), latent);
        return map;
    }
    z = dg_arena_take(&ctx->meta, bytes);
    if (z == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    unpack(f, z, latent);
    ctx->backend->upload(map->data, z, bytes);
    return map;
}

int dg_flux_decode(const Policy *p, Context *ctx, const float *latent,
                   float *rgb)
{
    const FluxPolicy *f = impl_of(p);

    if (f->vae == NULL)
        dg_panic("a reference network does not decode");
    dg_context_reset(ctx);
    return dg_folder_paint(f->vae, ctx, map_of(p, ctx, latent), rgb);
}
