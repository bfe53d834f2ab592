#include "sd_config.h"

#include "base/error.h"
#include "folder.h"

#include <string.h>

/* Which levels have attention: key[i] is with, or else plain. */
static void level_types(FolderReader *r, const char *key, int *out, int num,
                        const char *with, const char *plain)
{
    const char *text;
    int there = 0;

    if (!r->err)
        r->err = dg_model_config_num_texts(r->file, key, &there);
    if (!r->err && there != num)
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s has %d entr%s: must have %d, as "
                         "block_out_channels",
                         r->path, key, there, there == 1 ? "y" : "ies", num);
    for (int i = 0; i < num && !r->err; i++) {
        r->err = dg_model_config_text_at(r->file, key, i, &text);
        if (r->err)
            return;
        out[i] = strcmp(text, with) == 0;
        if (!out[i] && strcmp(text, plain) != 0)
            r->err = dg_fail(DG_EFORMAT, "%s: %s: \"%.60s\": must be %s or %s",
                             r->path, key, text, with, plain);
    }
}

static int read_unet(UnetConfig *c, const Folder *folder)
{
    FolderReader r;

    dg_folder_open(&r, folder, "unet", "config.json");
    dg_folder_want_text(&r, "_class_name", "UNet2DConditionModel");
    dg_folder_want_text(&r, "act_fn", "silu");
    dg_folder_want_text(&r, "mid_block_type", "UNetMidBlock2DCrossAttn");
    dg_folder_want_text(&r, "resnet_time_scale_shift", "default");
    dg_folder_want_text(&r, "time_embedding_type", "positional");
    dg_folder_want_flag(&r, "flip_sin_to_cos", 1);
    dg_folder_want_flag(&r, "use_linear_projection", 0);
    dg_folder_want_flag(&r, "center_input_sample", 0);
    dg_folder_want_flag(&r, "dual_cross_attention", 0);
    dg_folder_want_real(&r, "freq_shift", 0);
    dg_folder_want_real(&r, "downsample_padding", 1);
    dg_folder_want_real(&r, "mid_block_scale_factor", 1);
    dg_folder_want_real(&r, "transformer_layers_per_block", 1);
    dg_folder_want_real(&r, "resnet_out_scale_factor", 1);
    dg_folder_want_flag(&r, "resnet_skip_time_act", 0);
    dg_folder_want_null(&r, "time_embedding_act_fn");
    dg_folder_want_null(&r, "timestep_post_act");
    dg_folder_want_null(&r, "class_embed_type");
    dg_folder_want_null(&r, "addition_embed_type");
    dg_folder_want_null(&r, "encoder_hid_dim");
    dg_folder_want_null(&r, "num_attention_heads");
    *c = (UnetConfig) { 0 };
    c->num_levels =
        dg_folder_widths(&r, c->block_out_channels, DG_UNET_MAX_LEVELS);
    level_types(&r, "down_block_types", c->down_attention, c->num_levels,
                "CrossAttnDownBlock2D", "DownBlock2D");
    level_types(&r, "up_block_types", c->up_attention, c->num_levels,
                "CrossAttnUpBlock2D", "UpBlock2D");
    c->in_channels = dg_folder_whole(&r, "in_channels", 1024);
    c->out_channels = dg_folder_whole(&r, "out_channels", 1024);
    c->layers_per_block = (int)dg_folder_whole(&r, "layers_per_block", 64);
    c->attention_head_dim = dg_folder_whole(&r, "attention_head_dim", 1024);
    c->cross_attention_dim = dg_folder_whole(&r, "cross_attention_dim", 65536);
    c->norm_num_groups = dg_folder_whole(&r, "norm_num_groups", 65536);
    c->norm_eps = dg_folder_real(&r, "norm_eps", 1e-5);
    return dg_folder_close(&r);
}

/* The schedule is the program's own: a folder may not ask for another. */
static int check_scheduler(const Folder *folder)
{
    FolderReader r;
    int there, err = dg_folder_open_scheduler(&r, folder, &there);

    if (err || !there)
        return err;
    dg_folder_want_text(&r, "prediction_type", "epsilon");
    dg_folder_want_text(&r, "beta_schedule", "scaled_linear");
    dg_folder_want_real(&r, "beta_start", 0.00085);
    dg_folder_want_real(&r, "beta_end", 0.012);
    dg_folder_want_null(&r, "trained_betas");
    dg_folder_want_flag(&r, "rescale_betas_zero_snr", 0);
    dg_folder_want_real(&r, "num_train_timesteps", 1000);
    return dg_folder_close(&r);
}

static int check_fit(const SdConfig *c, const char *folder)
{
    if (c->unet.in_channels != c->vae.latent_channels ||
        c->unet.out_channels != c->vae.latent_channels)
        return dg_fail(DG_EFORMAT,
                       "%s: unet in_channels %lld, out_channels %lld: must "
                       "both be the vae's latent_channels %lld",
                       folder, (long long)c->unet.in_channels,
                       (long long)c->unet.out_channels,
                       (long long)c->vae.latent_channels);
    if (c->unet.cross_attention_dim != c->clip.hidden_size)
        return dg_fail(DG_EFORMAT,
                       "%s: unet cross_attention_dim %lld: must be the "
                       "text_encoder's hidden_size %lld",
                       folder, (long long)c->unet.cross_attention_dim,
                       (long long)c->clip.hidden_size);
    return DG_OK;
}

int dg_sd_config_read(SdConfig *out, const char *path)
{
    const Folder folder = { path, "Stable Diffusion 1.x" };
    int err = read_unet(&out->unet, &folder);

    if (!err)
        err = dg_folder_read_vae(&out->vae, &folder);
    if (!err)
        err = dg_folder_read_clip(&out->clip, &folder);
    if (!err)
        err = check_scheduler(&folder);
    return err ? err : check_fit(out, path);
}

SdConfig dg_sd_config_public(void)
{
    return (SdConfig) {
        .unet = dg_unet_sd1(),
        .vae = dg_vae_sd1(),
        .clip = { .vocab_size = 49408,
                  .hidden_size = 768,
                  .intermediate_size = 3072,
                  .num_hidden_layers = 12,
                  .num_attention_heads = 12,
                  .max_position_embeddings = 77 },
    };
}
