#include "sd_config.h"

#include "base/error.h"
#include "weights/model_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file being read. The first error stays; then readers do nothing. */
typedef struct Reader {
    char path[DG_SD_PATH];
    ModelConfig *file;
    int err;
} Reader;

int dg_sd_path(char out[DG_SD_PATH], const char *folder, const char *component,
               const char *file)
{
    const int n = snprintf(out, DG_SD_PATH, "%s/%s%s%s", folder, component,
                           file != NULL ? "/" : "", file != NULL ? file : "");

    return n < DG_SD_PATH
               ? DG_OK
               : dg_fail(DG_EINVAL, "policy.path: %.60s...: too long", folder);
}

static void open_file(Reader *r, const char *folder, const char *component,
                      const char *file)
{
    *r = (Reader) { .file = NULL };
    r->err = dg_sd_path(r->path, folder, component, file);
    if (!r->err)
        r->err = dg_model_config_open(&r->file, r->path);
}

static int close_file(Reader *r)
{
    dg_model_config_close(r->file);
    return r->err;
}

static int64_t whole(Reader *r, const char *key, int64_t most)
{
    int64_t value = 1;

    if (!r->err)
        r->err = dg_model_config_int(r->file, key, 1, most, &value);
    return value;
}

/* std where the key is left out, as files of an older program do */
static double real(Reader *r, const char *key, double std)
{
    double value = std;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_real(r->file, key, &value);
    return value;
}

static int flag(Reader *r, const char *key, int std)
{
    int value = std;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_bool(r->file, key, &value);
    return value;
}

static void want_text(Reader *r, const char *key, const char *want)
{
    const char *text = want;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_text(r->file, key, &text);
    if (!r->err && strcmp(text, want) != 0)
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s is \"%.60s\": must be \"%s\" (Stable "
                         "Diffusion 1.x)",
                         r->path, key, text, want);
}

static void want_flag(Reader *r, const char *key, int want)
{
    if (flag(r, key, want) != want && !r->err)
        r->err =
            dg_fail(DG_EFORMAT, "%s: %s: must be %s (Stable Diffusion 1.x)",
                    r->path, key, want ? "true" : "false");
}

static void want_real(Reader *r, const char *key, double want)
{
    const double value = real(r, key, want);

    if (!r->err && fabs(value - want) > 1e-9)
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s is %g: must be %g (Stable Diffusion 1.x)",
                         r->path, key, value, want);
}

static void want_null(Reader *r, const char *key)
{
    if (!r->err && dg_model_config_has(r->file, key))
        r->err =
            dg_fail(DG_EFORMAT, "%s: %s: must be null (Stable Diffusion 1.x)",
                    r->path, key);
}

static int widths(Reader *r, int64_t *out, int most)
{
    int num = 0;

    if (!r->err)
        r->err = dg_model_config_ints(r->file, "block_out_channels", out, most,
                                      &num);
    if (!r->err && num == 0)
        r->err =
            dg_fail(DG_EFORMAT, "%s: block_out_channels: is empty", r->path);
    for (int i = 0; i < num && !r->err; i++)
        if (out[i] < 1 || out[i] > 65536)
            r->err = dg_fail(DG_EFORMAT,
                             "%s: block_out_channels: %lld: must be in "
                             "[1, 65536]",
                             r->path, (long long)out[i]);
    return num;
}

/* Which levels have attention: key[i] is with, or else plain. */
static void level_types(Reader *r, const char *key, int *out, int num,
                        const char *with, const char *plain)
{
    const char *text;
    int there = 0;

    if (!r->err)
        r->err = dg_model_config_num_texts(r->file, key, &there);
    if (!r->err && there != num)
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s has %d entries: must have %d, as "
                         "block_out_channels",
                         r->path, key, there, num);
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

static int read_unet(UnetConfig *c, const char *folder)
{
    Reader r;

    open_file(&r, folder, "unet", "config.json");
    want_text(&r, "_class_name", "UNet2DConditionModel");
    want_text(&r, "act_fn", "silu");
    want_text(&r, "mid_block_type", "UNetMidBlock2DCrossAttn");
    want_text(&r, "resnet_time_scale_shift", "default");
    want_text(&r, "time_embedding_type", "positional");
    want_flag(&r, "flip_sin_to_cos", 1);
    want_flag(&r, "use_linear_projection", 0);
    want_flag(&r, "center_input_sample", 0);
    want_flag(&r, "dual_cross_attention", 0);
    want_real(&r, "freq_shift", 0);
    want_real(&r, "downsample_padding", 1);
    want_real(&r, "mid_block_scale_factor", 1);
    want_real(&r, "transformer_layers_per_block", 1);
    want_null(&r, "class_embed_type");
    want_null(&r, "addition_embed_type");
    want_null(&r, "encoder_hid_dim");
    want_null(&r, "num_attention_heads");
    *c = (UnetConfig) { 0 };
    c->num_levels = widths(&r, c->block_out_channels, DG_UNET_MAX_LEVELS);
    level_types(&r, "down_block_types", c->down_attention, c->num_levels,
                "CrossAttnDownBlock2D", "DownBlock2D");
    level_types(&r, "up_block_types", c->up_attention, c->num_levels,
                "CrossAttnUpBlock2D", "UpBlock2D");
    c->in_channels = whole(&r, "in_channels", 1024);
    c->out_channels = whole(&r, "out_channels", 1024);
    c->layers_per_block = (int)whole(&r, "layers_per_block", 64);
    c->attention_head_dim = whole(&r, "attention_head_dim", 1024);
    c->cross_attention_dim = whole(&r, "cross_attention_dim", 65536);
    c->norm_num_groups = whole(&r, "norm_num_groups", 65536);
    c->norm_eps = real(&r, "norm_eps", 1e-5);
    return close_file(&r);
}

static int read_vae(VaeConfig *c, const char *folder)
{
    Reader r;

    open_file(&r, folder, "vae", "config.json");
    want_text(&r, "_class_name", "AutoencoderKL");
    want_text(&r, "act_fn", "silu");
    want_flag(&r, "mid_block_add_attention", 1);
    *c = (VaeConfig) { 0 };
    c->num_levels = widths(&r, c->block_out_channels, DG_VAE_MAX_LEVELS);
    c->in_channels = whole(&r, "in_channels", 3);
    c->out_channels = whole(&r, "out_channels", 3);
    if (!r.err && c->out_channels != 3)
        r.err = dg_fail(DG_EFORMAT, "%s: out_channels: must be 3", r.path);
    c->layers_per_block = (int)whole(&r, "layers_per_block", 64);
    c->latent_channels = whole(&r, "latent_channels", 1024);
    c->norm_num_groups = whole(&r, "norm_num_groups", 65536);
    c->use_quant_conv = flag(&r, "use_quant_conv", 1);
    c->use_post_quant_conv = flag(&r, "use_post_quant_conv", 1);
    c->scaling_factor = real(&r, "scaling_factor", 0.18215);
    c->shift_factor = real(&r, "shift_factor", 0);
    return close_file(&r);
}

static int read_clip(ClipTextConfig *c, const char *folder)
{
    Reader r;

    open_file(&r, folder, "text_encoder", "config.json");
    want_text(&r, "hidden_act", "quick_gelu");
    want_real(&r, "layer_norm_eps", 1e-5);
    *c = (ClipTextConfig) {
        .vocab_size = whole(&r, "vocab_size", INT32_MAX),
        .hidden_size = whole(&r, "hidden_size", 65536),
        .intermediate_size = whole(&r, "intermediate_size", 262144),
        .num_hidden_layers = (int)whole(&r, "num_hidden_layers", 200),
        .num_attention_heads = whole(&r, "num_attention_heads", 1024),
        .max_position_embeddings = whole(&r, "max_position_embeddings", 65536),
    };
    return close_file(&r);
}

/* The schedule is the program's own: a folder may not ask for another. */
static int check_scheduler(const char *folder)
{
    Reader r;
    char path[DG_SD_PATH];
    int err = dg_sd_path(path, folder, "scheduler", "scheduler_config.json");

    if (err || access(path, F_OK) != 0)
        return err;
    open_file(&r, folder, "scheduler", "scheduler_config.json");
    want_text(&r, "prediction_type", "epsilon");
    want_text(&r, "beta_schedule", "scaled_linear");
    want_real(&r, "beta_start", 0.00085);
    want_real(&r, "beta_end", 0.012);
    want_real(&r, "num_train_timesteps", 1000);
    return close_file(&r);
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

int dg_sd_config_read(SdConfig *out, const char *folder)
{
    int err = read_unet(&out->unet, folder);

    if (!err)
        err = read_vae(&out->vae, folder);
    if (!err)
        err = read_clip(&out->clip, folder);
    if (!err)
        err = check_scheduler(folder);
    return err ? err : check_fit(out, folder);
}
