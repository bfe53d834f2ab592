#include "flux.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

static void read_axes(FolderReader *r, FluxSizes *s)
{
    static const int64_t usual[DG_CONFIG_AXES] = { 16, 56, 56 };
    int64_t sum = 0;
    int num = 0, odd = 0;

    memcpy(s->axes_dims, usual, sizeof s->axes_dims);
    if (!r->err && dg_model_config_has(r->file, "axes_dims_rope")) {
        r->err = dg_model_config_ints(r->file, "axes_dims_rope", s->axes_dims,
                                      DG_CONFIG_AXES, &num);
        if (!r->err && num != DG_CONFIG_AXES)
            r->err = dg_fail(DG_EFORMAT, "%s: axes_dims_rope: must have %d",
                             r->path, DG_CONFIG_AXES);
    }
    for (int i = 0; i < DG_CONFIG_AXES; i++) {
        odd |= s->axes_dims[i] < 0 || s->axes_dims[i] % 2 != 0;
        sum += s->axes_dims[i];
    }
    if (!r->err && (odd || sum != s->head_dim))
        r->err = dg_fail(DG_EFORMAT,
                         "%s: axes_dims_rope: must be even, with the sum "
                         "attention_head_dim = %lld",
                         r->path, (long long)s->head_dim);
}

static int read_transformer(FluxSizes *s, const Folder *folder)
{
    FolderReader r;

    dg_folder_open(&r, folder, "transformer", "config.json");
    dg_folder_want_text(&r, "_class_name", "FluxTransformer2DModel");
    dg_folder_want_real(&r, "patch_size", 1);
    s->in_channels = dg_folder_whole(&r, "in_channels", 65536);
    s->num_layers = dg_folder_whole(&r, "num_layers", 200);
    s->num_single_layers = dg_folder_whole(&r, "num_single_layers", 200);
    s->num_heads = dg_folder_whole(&r, "num_attention_heads", 256);
    s->head_dim = dg_folder_whole(&r, "attention_head_dim", 1024);
    s->joint_attention_dim = dg_folder_whole(&r, "joint_attention_dim", 65536);
    s->pooled_dim = dg_folder_whole(&r, "pooled_projection_dim", 65536);
    s->guidance_embeds = dg_folder_flag(&r, "guidance_embeds", 0);
    s->rope_theta = 10000;
    dg_folder_want_real(&r, "out_channels", (double)s->in_channels);
    read_axes(&r, s);
    return dg_folder_close(&r);
}

static int read_t5(T5Sizes *s, const Folder *folder)
{
    FolderReader r;

    dg_folder_open(&r, folder, "text_encoder_2", "config.json");
    dg_folder_want_text(&r, "feed_forward_proj", "gated-gelu");
    dg_folder_want_real(&r, "layer_norm_epsilon", 1e-6);
    dg_folder_want_real(&r, "relative_attention_num_buckets", 32);
    dg_folder_want_real(&r, "relative_attention_max_distance", 128);
    s->d_model = dg_folder_whole(&r, "d_model", 65536);
    s->d_ff = dg_folder_whole(&r, "d_ff", 262144);
    s->num_layers = dg_folder_whole(&r, "num_layers", 200);
    s->num_heads = dg_folder_whole(&r, "num_heads", 256);
    s->d_kv = dg_folder_whole(&r, "d_kv", 1024);
    s->vocab_size = dg_folder_whole(&r, "vocab_size", 10000000);
    return dg_folder_close(&r);
}

static int read_clip(ClipSizes *s, const Folder *folder)
{
    ClipTextConfig clip;
    const int err = dg_folder_read_clip(&clip, folder);

    if (err)
        return err;
    if (clip.hidden_size % clip.num_attention_heads != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: text_encoder hidden_size %lld: must be a multiple "
                       "of num_attention_heads %lld",
                       folder->path, (long long)clip.hidden_size,
                       (long long)clip.num_attention_heads);
    *s = (ClipSizes) {
        .hidden = clip.hidden_size,
        .intermediate = clip.intermediate_size,
        .layers = clip.num_hidden_layers,
        .heads = clip.num_attention_heads,
        .vocab_size = clip.vocab_size,
        .positions = clip.max_position_embeddings,
    };
    return DG_OK;
}

/* --- schedule -------------------------------------------------------------- */

FluxShift dg_flux_shift_public(void)
{
    return (FluxShift) {
        .dynamic = 1,
        .shift = 3,
        .base_shift = 0.5,
        .max_shift = 1.15,
        .base_tokens = 256,
        .max_tokens = 4096,
    };
}

double dg_flux_shift(const FluxShift *s, int64_t tokens)
{
    const double slope =
        (s->max_shift - s->base_shift) / (s->max_tokens - s->base_tokens);

    if (!s->dynamic)
        return s->shift;
    return exp(s->base_shift + ((double)tokens - s->base_tokens) * slope);
}

/* The schedule is the program's own but for its shift: a folder may not ask
 * for another. */
static int read_scheduler(FluxShift *s, const Folder *folder)
{
    FolderReader r;
    int there, err = dg_folder_open_scheduler(&r, folder, &there);

    *s = dg_flux_shift_public();
    if (err || !there)
        return err;
    dg_folder_want_text(&r, "_class_name", "FlowMatchEulerDiscreteScheduler");
    dg_folder_want_text(&r, "time_shift_type", "exponential");
    dg_folder_want_real(&r, "num_train_timesteps", 1000);
    dg_folder_want_flag(&r, "use_karras_sigmas", 0);
    dg_folder_want_flag(&r, "use_exponential_sigmas", 0);
    dg_folder_want_flag(&r, "use_beta_sigmas", 0);
    dg_folder_want_flag(&r, "invert_sigmas", 0);
    dg_folder_want_flag(&r, "stochastic_sampling", 0);
    dg_folder_want_null(&r, "shift_terminal");
    s->dynamic = dg_folder_flag(&r, "use_dynamic_shifting", 0);
    s->shift = dg_folder_real(&r, "shift", 1);
    s->base_shift = dg_folder_real(&r, "base_shift", s->base_shift);
    s->max_shift = dg_folder_real(&r, "max_shift", s->max_shift);
    s->base_tokens = dg_folder_real(&r, "base_image_seq_len", s->base_tokens);
    s->max_tokens = dg_folder_real(&r, "max_image_seq_len", s->max_tokens);
    if (!r.err && !(s->max_tokens > s->base_tokens))
        r.err = dg_fail(DG_EFORMAT,
                        "%s: max_image_seq_len is %g: must be more than "
                        "base_image_seq_len %g",
                        r.path, s->max_tokens, s->base_tokens);
    if (!r.err && !(s->shift > 0))
        r.err = dg_fail(DG_EFORMAT, "%s: shift is %g: must be more than 0",
                        r.path, s->shift);
    return dg_folder_close(&r);
}

int dg_flux_read_codec(VaeConfig *vae, FluxShift *shift, const Folder *folder)
{
    const int err = dg_folder_read_vae(vae, folder);

    return err ? err : read_scheduler(shift, folder);
}

/* --- all of it ------------------------------------------------------------- */

static int check_fit(const Config *c, const VaeConfig *vae)
{
    const char *path = c->policy.path;

    if (c->flux.in_channels != 4 * vae->latent_channels)
        return dg_fail(DG_EFORMAT,
                       "%s: transformer in_channels %lld: must be 4 times the "
                       "vae's latent_channels %lld",
                       path, (long long)c->flux.in_channels,
                       (long long)vae->latent_channels);
    if (c->flux.joint_attention_dim != c->t5.d_model)
        return dg_fail(DG_EFORMAT,
                       "%s: transformer joint_attention_dim %lld: must be "
                       "text_encoder_2's d_model %lld",
                       path, (long long)c->flux.joint_attention_dim,
                       (long long)c->t5.d_model);
    if (c->flux.pooled_dim != c->clip.hidden)
        return dg_fail(DG_EFORMAT,
                       "%s: transformer pooled_projection_dim %lld: must be "
                       "the text_encoder's hidden_size %lld",
                       path, (long long)c->flux.pooled_dim,
                       (long long)c->clip.hidden);
    return DG_OK;
}

int dg_flux_adopt(Config *c, int there)
{
    const Folder folder = { c->policy.path, "FLUX.1" };
    VaeConfig vae;
    FluxShift shift;
    int err;

    if (c->policy.path[0] == '\0')
        return DG_OK;
    c->policy.prediction = DG_PREDICT_VELOCITY;
    c->policy.codec = DG_CODEC_VAE;
    if (!there)
        return DG_OK;
    err = read_transformer(&c->flux, &folder);
    if (!err)
        err = read_t5(&c->t5, &folder);
    if (!err)
        err = read_clip(&c->clip, &folder);
    if (!err)
        err = dg_flux_read_codec(&vae, &shift, &folder);
    return err ? err : check_fit(c, &vae);
}
