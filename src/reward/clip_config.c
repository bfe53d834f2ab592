#include "clip_config.h"

#include "base/error.h"
#include "net.h"
#include "weights/model_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file being read. The first error stays; then readers do nothing. */
typedef struct Reader {
    char path[DG_NET_PATH];
    ModelConfig *file;
    int err;
} Reader;

/* 1 if the file is there, and then open. */
static int open_file(Reader *r, const char *folder, const char *file)
{
    *r = (Reader) { .file = NULL };
    if (snprintf(r->path, sizeof r->path, "%s/%s", folder, file) >=
        (int)sizeof r->path) {
        r->err = dg_fail(DG_EINVAL, "rewards: path %.60s...: too long", folder);
        return 0;
    }
    if (access(r->path, F_OK) != 0)
        return 0;
    r->err = dg_model_config_open(&r->file, r->path);
    return 1;
}

/* standard where the key is left out; 0: it must be there */
static int64_t whole(Reader *r, const char *key, int64_t most, int64_t standard)
{
    int64_t value = standard;

    if (!r->err && (standard == 0 || dg_model_config_has(r->file, key)))
        r->err = dg_model_config_int(r->file, key, 1, most, &value);
    return value;
}

static int flag(Reader *r, const char *key)
{
    int value = 0;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_bool(r->file, key, &value);
    return value;
}

static void want_absent(Reader *r, const char *key)
{
    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s: is not of a CLIP that rewards can read",
                         r->path, key);
}

/* The means and deviations that pictures are normalised with. */
static void read_colours(PictureColours *out, Reader *r, const char *mean,
                         const char *deviation)
{
    const char *const keys[2] = { mean, deviation };
    float *const to[2] = { out->mean, out->deviation };

    for (int k = 0; k < 2; k++) {
        double v[3];

        if (r->err || !dg_model_config_has(r->file, keys[k]))
            continue;
        r->err = dg_model_config_reals(r->file, keys[k], v, 3);
        for (int i = 0; i < 3 && !r->err; i++) {
            to[k][i] = (float)v[i];
            if (k == 1 && !(to[k][i] > 0))
                r->err = dg_fail(DG_EFORMAT, "%s: %s: must be more than 0",
                                 r->path, keys[k]);
        }
    }
}

/* --- transformers' config.json ------------------------------------------ */

static ClipAct hidden_act(Reader *r, const char *key)
{
    const char *text = "quick_gelu";

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_text(r->file, key, &text);
    if (!r->err && strcmp(text, "gelu") != 0 && strcmp(text, "quick_gelu") != 0)
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s is \"%.60s\": must be gelu or quick_gelu",
                         r->path, key, text);
    return strcmp(text, "gelu") == 0 ? DG_CLIP_GELU : DG_CLIP_QUICK_GELU;
}

static void want_eps(Reader *r, const char *key)
{
    double eps = 1e-5;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_real(r->file, key, &eps);
    if (!r->err && fabs(eps - 1e-5) > 1e-12)
        r->err = dg_fail(DG_EFORMAT, "%s: %s is %g: must be 1e-5", r->path, key,
                         eps);
}

/* Keys that are left out are the standard of transformers' classes. */
static void read_transformers(ClipModelConfig *c, Reader *r)
{
    const char *type = "clip";

    if (!r->err && dg_model_config_has(r->file, "model_type"))
        r->err = dg_model_config_text(r->file, "model_type", &type);
    if (!r->err && strcmp(type, "clip") != 0)
        r->err =
            dg_fail(DG_EFORMAT, "%s: model_type is \"%.60s\": must be clip",
                    r->path, type);
    want_eps(r, "text_config.layer_norm_eps");
    want_eps(r, "vision_config.layer_norm_eps");
    c->projection_dim = whole(r, "projection_dim", 65536, 512);
    c->text = (ClipTextConfig) {
        .vocab_size = whole(r, "text_config.vocab_size", INT32_MAX, 49408),
        .hidden_size = whole(r, "text_config.hidden_size", 65536, 512),
        .intermediate_size =
            whole(r, "text_config.intermediate_size", 262144, 2048),
        .num_hidden_layers =
            (int)whole(r, "text_config.num_hidden_layers", 200, 12),
        .num_attention_heads =
            whole(r, "text_config.num_attention_heads", 1024, 8),
        .max_position_embeddings =
            whole(r, "text_config.max_position_embeddings", 65536, 77),
        .act = hidden_act(r, "text_config.hidden_act"),
    };
    c->vision = (ClipVisionConfig) {
        .image_size = whole(r, "vision_config.image_size", 4096, 224),
        .patch_size = whole(r, "vision_config.patch_size", 4096, 32),
        .hidden_size = whole(r, "vision_config.hidden_size", 65536, 768),
        .intermediate_size =
            whole(r, "vision_config.intermediate_size", 262144, 3072),
        .num_hidden_layers =
            (int)whole(r, "vision_config.num_hidden_layers", 200, 12),
        .num_attention_heads =
            whole(r, "vision_config.num_attention_heads", 1024, 12),
        .act = hidden_act(r, "vision_config.hidden_act"),
    };
}

/* --- transformers' preprocessor_config.json ------------------------------ */

static void want_step(Reader *r, const char *key)
{
    int there = 1;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_bool(r->file, key, &there);
    if (!r->err && !there)
        r->err = dg_fail(DG_EFORMAT, "%s: %s: must be true", r->path, key);
}

/* "size" is a number, or one by name; two of them squeeze the picture. */
static void read_size(ClipFolder *f, Reader *r)
{
    static const char *const keys[] = { "size.shortest_edge", "size.height",
                                        "size.width" };
    const int64_t side = f->model.vision.image_size;
    int named = 0;

    for (int i = 0; i < 3 && !r->err; i++) {
        int64_t value = side;

        if (!dg_model_config_has(r->file, keys[i]))
            continue;
        r->err = dg_model_config_int(r->file, keys[i], side, side, &value);
        f->squash |= i > 0;
        named = 1;
    }
    if (!r->err && !named && dg_model_config_has(r->file, "size")) {
        int64_t value;

        r->err = dg_model_config_int(r->file, "size", side, side, &value);
    }
}

static void read_preprocessor(ClipFolder *f, Reader *r)
{
    enum { PIL_BICUBIC = 3 };
    int64_t value;

    want_step(r, "do_resize");
    want_step(r, "do_normalize");
    if (!r->err && dg_model_config_has(r->file, "resample"))
        r->err = dg_model_config_int(r->file, "resample", PIL_BICUBIC,
                                     PIL_BICUBIC, &value);
    if (!r->err)
        read_size(f, r);
    if (!f->squash)
        want_step(r, "do_center_crop");
    read_colours(&f->colours, r, "image_mean", "image_std");
}

/* --- OpenCLIP's open_clip_config.json ----------------------------------- */

static int64_t inner_width(Reader *r, const char *key, int64_t width)
{
    double ratio = 4;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_real(r->file, key, &ratio);
    if (!r->err && !(ratio > 0 && ratio < 64))
        r->err = dg_fail(DG_EFORMAT, "%s: %s is %g: must be in (0, 64)",
                         r->path, key, ratio);
    return (int64_t)((double)width * ratio);
}

static int is_squash(Reader *r)
{
    static const char key[] = "preprocess_cfg.resize_mode";
    const char *mode = "shortest";

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_text(r->file, key, &mode);
    if (!r->err && strcmp(mode, "shortest") != 0 && strcmp(mode, "squash") != 0)
        r->err = dg_fail(DG_EFORMAT,
                         "%s: %s is \"%.60s\": must be shortest or squash",
                         r->path, key, mode);
    return strcmp(mode, "squash") == 0;
}

/* A text that is left out, or what it must be. */
static void want_text(Reader *r, const char *key, const char *want)
{
    const char *text = want;

    if (!r->err && dg_model_config_has(r->file, key))
        r->err = dg_model_config_text(r->file, key, &text);
    if (!r->err && strcmp(text, want) != 0)
        r->err = dg_fail(DG_EFORMAT, "%s: %s is \"%.60s\": must be \"%s\"",
                         r->path, key, text, want);
}

/* What other networks of OpenCLIP do with weights of the same names. */
static void refuse_others(Reader *r)
{
    static const char *const keys[] = {
        "model_cfg.vision_cfg.timm_model_name",
        "model_cfg.vision_cfg.norm_kwargs",
        "model_cfg.vision_cfg.act_kwargs",
        "model_cfg.text_cfg.hf_model_name",
        "model_cfg.text_cfg.norm_kwargs",
        "model_cfg.text_cfg.act_kwargs",
    };

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        want_absent(r, keys[i]);
    if (flag(r, "model_cfg.text_cfg.no_causal_mask"))
        want_absent(r, "model_cfg.text_cfg.no_causal_mask");
    want_text(r, "model_cfg.text_cfg.pool_type", "argmax");
    want_text(r, "model_cfg.vision_cfg.pool_type", "tok");
    want_text(r, "preprocess_cfg.interpolation", "bicubic");
}

static void read_open_clip(ClipFolder *f, Reader *r)
{
    const ClipAct act =
        flag(r, "model_cfg.quick_gelu") ? DG_CLIP_QUICK_GELU : DG_CLIP_GELU;
    ClipModelConfig *c = &f->model;
    int64_t head;

    refuse_others(r);
    c->projection_dim = whole(r, "model_cfg.embed_dim", 65536, 0);
    c->text = (ClipTextConfig) {
        .vocab_size =
            whole(r, "model_cfg.text_cfg.vocab_size", INT32_MAX, 49408),
        .hidden_size = whole(r, "model_cfg.text_cfg.width", 65536, 512),
        .num_hidden_layers =
            (int)whole(r, "model_cfg.text_cfg.layers", 200, 12),
        .num_attention_heads = whole(r, "model_cfg.text_cfg.heads", 1024, 8),
        .max_position_embeddings =
            whole(r, "model_cfg.text_cfg.context_length", 65536, 77),
        .act = act,
    };
    c->text.intermediate_size =
        inner_width(r, "model_cfg.text_cfg.mlp_ratio", c->text.hidden_size);
    c->vision = (ClipVisionConfig) {
        .image_size = whole(r, "model_cfg.vision_cfg.image_size", 4096, 224),
        .patch_size = whole(r, "model_cfg.vision_cfg.patch_size", 4096, 16),
        .hidden_size = whole(r, "model_cfg.vision_cfg.width", 65536, 768),
        .num_hidden_layers =
            (int)whole(r, "model_cfg.vision_cfg.layers", 200, 12),
        .act = act,
    };
    head = whole(r, "model_cfg.vision_cfg.head_width", 65536, 64);
    c->vision.num_attention_heads = c->vision.hidden_size / head;
    if (!r->err && c->vision.hidden_size % head != 0)
        r->err =
            dg_fail(DG_EFORMAT,
                    "%s: model_cfg.vision_cfg.width = %lld: must be a "
                    "multiple of head_width = %lld",
                    r->path, (long long)c->vision.hidden_size, (long long)head);
    c->vision.intermediate_size =
        inner_width(r, "model_cfg.vision_cfg.mlp_ratio", c->vision.hidden_size);
    f->squash = is_squash(r);
    read_colours(&f->colours, r, "preprocess_cfg.mean", "preprocess_cfg.std");
}

int dg_clip_config_read(ClipFolder *out, int *found, const char *folder)
{
    ClipFolder f = { .colours = dg_picture_colours_clip() };
    Reader r, beside = { .file = NULL };

    *found = open_file(&r, folder, "open_clip_config.json");
    if (*found) {
        read_open_clip(&f, &r);
    } else if (!r.err) {
        *found = open_file(&r, folder, "config.json");
        f.transformers = *found;
        if (*found)
            read_transformers(&f.model, &r);
        if (*found && !r.err &&
            open_file(&beside, folder, "preprocessor_config.json"))
            read_preprocessor(&f, &beside);
    }
    dg_model_config_close(beside.file);
    dg_model_config_close(r.file);
    if (!r.err)
        r.err = beside.err;
    if (!r.err && *found)
        *out = f;
    return r.err;
}
