#include "folder.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int dg_folder_path(char out[DG_FOLDER_PATH], const char *folder,
                   const char *component, const char *file)
{
    const int n = snprintf(out, DG_FOLDER_PATH, "%s/%s%s%s", folder, component,
                           file != NULL ? "/" : "", file != NULL ? file : "");

    return n < DG_FOLDER_PATH
               ? DG_OK
               : dg_fail(DG_EINVAL, "policy.path: %.60s...: too long", folder);
}

int dg_folder_exists(const char *folder)
{
    struct stat st;

    return stat(folder, &st) == 0 && S_ISDIR(st.st_mode);
}

static int has_part(const char *folder, const char *component)
{
    char part[DG_FOLDER_PATH];

    return dg_folder_path(part, folder, component, NULL) == DG_OK &&
           dg_folder_exists(part);
}

int dg_folder_check_part(const char *folder, const char *own,
                         const char *own_kind, const char *other,
                         const char *other_kind)
{
    if (has_part(folder, own))
        return DG_OK;
    if (has_part(folder, other))
        return dg_fail(DG_EFORMAT,
                       "policy.path = \"%s\": a folder with %s and without %s: "
                       "policy.kind must be \"%s\"",
                       folder, other, own, other_kind);
    return dg_fail(DG_EFORMAT,
                   "policy.path = \"%s\": no folder %s in it: must be a whole "
                   "pipeline as Hugging Face has it (policy.kind = \"%s\")",
                   folder, own, own_kind);
}

void dg_folder_open(FolderReader *r, const Folder *folder,
                    const char *component, const char *file)
{
    *r = (FolderReader) { .model = folder->model };
    r->err = dg_folder_path(r->path, folder->path, component, file);
    if (!r->err)
        r->err = dg_model_config_open(&r->file, r->path);
}

int dg_folder_open_scheduler(FolderReader *r, const Folder *folder, int *there)
{
    static const char *const name = "scheduler_config.json";
    char path[DG_FOLDER_PATH];
    const int err = dg_folder_path(path, folder->path, "scheduler", name);

    *there = !err && access(path, F_OK) == 0;
    if (*there)
        dg_folder_open(r, folder, "scheduler", name);
    return err;
}

int dg_folder_close(FolderReader *r)
{
    dg_model_config_close(r->file);
    return r->err;
}

int64_t dg_folder_whole(FolderReader *r, const char *key, int64_t most)
{
    int64_t value = 1;

    if (!r->err)
        r->err = dg_model_config_int(r->file, key, 1, most, &value);
    return value;
}

double dg_folder_real(FolderReader *r, const char *key, double std)
{
    double value = std;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_real(r->file, key, &value);
    return value;
}

int dg_folder_flag(FolderReader *r, const char *key, int std)
{
    int value = std;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_bool(r->file, key, &value);
    return value;
}

void dg_folder_want_text(FolderReader *r, const char *key, const char *want)
{
    const char *text = want;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_text(r->file, key, &text);
    if (!r->err && strcmp(text, want) != 0)
        r->err = dg_fail(DG_EFORMAT, "%s: %s is \"%.60s\": must be \"%s\" (%s)",
                         r->path, key, text, want, r->model);
}

void dg_folder_want_flag(FolderReader *r, const char *key, int want)
{
    if (dg_folder_flag(r, key, want) != want && !r->err)
        r->err = dg_fail(DG_EFORMAT, "%s: %s: must be %s (%s)", r->path, key,
                         want ? "true" : "false", r->model);
}

void dg_folder_want_real(FolderReader *r, const char *key, double want)
{
    const double value = dg_folder_real(r, key, want);

    if (!r->err && fabs(value - want) > 1e-9)
        r->err = dg_fail(DG_EFORMAT, "%s: %s is %g: must be %g (%s)", r->path,
                         key, value, want, r->model);
}

void dg_folder_want_null(FolderReader *r, const char *key)
{
    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_fail(DG_EFORMAT, "%s: %s: must be null (%s)", r->path, key,
                         r->model);
}

int dg_folder_widths(FolderReader *r, int64_t *out, int most)
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

int dg_folder_read_vae(VaeConfig *out, const Folder *folder)
{
    FolderReader r;

    dg_folder_open(&r, folder, "vae", "config.json");
    dg_folder_want_text(&r, "_class_name", "AutoencoderKL");
    dg_folder_want_text(&r, "act_fn", "silu");
    dg_folder_want_flag(&r, "mid_block_add_attention", 1);
    *out = (VaeConfig) { 0 };
    out->num_levels =
        dg_folder_widths(&r, out->block_out_channels, DG_VAE_MAX_LEVELS);
    out->in_channels = dg_folder_whole(&r, "in_channels", 3);
    out->out_channels = dg_folder_whole(&r, "out_channels", 3);
    if (!r.err && out->out_channels != 3)
        r.err = dg_fail(DG_EFORMAT, "%s: out_channels: must be 3", r.path);
    out->layers_per_block = (int)dg_folder_whole(&r, "layers_per_block", 64);
    out->latent_channels = dg_folder_whole(&r, "latent_channels", 1024);
    out->norm_num_groups = dg_folder_whole(&r, "norm_num_groups", 65536);
    out->use_quant_conv = dg_folder_flag(&r, "use_quant_conv", 1);
    out->use_post_quant_conv = dg_folder_flag(&r, "use_post_quant_conv", 1);
    out->scaling_factor = dg_folder_real(&r, "scaling_factor", 0.18215);
    out->shift_factor = dg_folder_real(&r, "shift_factor", 0);
    return dg_folder_close(&r);
}

int dg_folder_read_clip(ClipTextConfig *out, const Folder *folder)
{
    FolderReader r;

    dg_folder_open(&r, folder, "text_encoder", "config.json");
    dg_folder_want_text(&r, "hidden_act", "quick_gelu");
    dg_folder_want_real(&r, "layer_norm_eps", 1e-5);
    *out = (ClipTextConfig) {
        .vocab_size = dg_folder_whole(&r, "vocab_size", INT32_MAX),
        .hidden_size = dg_folder_whole(&r, "hidden_size", 65536),
        .intermediate_size = dg_folder_whole(&r, "intermediate_size", 262144),
        .num_hidden_layers = (int)dg_folder_whole(&r, "num_hidden_layers", 200),
        .num_attention_heads = dg_folder_whole(&r, "num_attention_heads", 1024),
        .max_position_embeddings =
            dg_folder_whole(&r, "max_position_embeddings", 65536),
    };
    return dg_folder_close(&r);
}
