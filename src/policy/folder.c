#include "folder.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "family.h"
#include "tensor/mirror.h"
#include "weights/load.h"

#include <stdio.h>
#include <stdlib.h>

int dg_folder_tokenizer(Tokenizer **out, const Folder *folder,
                        const char *component, TokenizerKind kind,
                        int64_t vocab_size)
{
    const TokenizerInfo *info;
    char path[DG_FOLDER_PATH];
    int err = dg_folder_path(path, folder->path, component, NULL);

    if (!err)
        err = dg_tokenizer_open(out, path);
    if (err)
        return err;
    info = dg_tokenizer_info(*out);
    if (info->kind != kind)
        return dg_fail(DG_EFORMAT, "%s: not a %s tokenizer", path,
                       kind == DG_TOKENIZER_T5 ? "T5" : "CLIP");
    if (info->num_ids > vocab_size)
        return dg_fail(DG_EFORMAT, "%s: %d token ids, the %s has %lld", path,
                       info->num_ids,
                       kind == DG_TOKENIZER_T5 ? "text_encoder_2"
                                               : "text_encoder",
                       (long long)vocab_size);
    if (kind == DG_TOKENIZER_CLIP && info->num_ids < vocab_size)
        dg_warn("%s: %d token ids, the text_encoder has %lld: is it whole?",
                path, info->num_ids, (long long)vocab_size);
    return DG_OK;
}

int dg_folder_blame(const Folder *folder, int err)
{
    char reason[512];

    if (err != DG_EINVAL)
        return err;
    snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
    return dg_fail(DG_EFORMAT, "%s: %s", folder->path, reason);
}

static const char *const encoder_names[] = { "encoder.*", "quant_conv.*" };

/* The values of the wanted tensors: first of them, and how many. */
static int64_t span(const WeightWant *wants, int num, int64_t *first)
{
    int64_t end = 0;

    *first = num > 0 ? wants[0].at : 0;
    for (int i = 0; i < num; i++) {
        int64_t count = 1;

        for (int d = 0; d < wants[i].num_dims; d++)
            count *= wants[i].dims[d];
        if (wants[i].at < *first)
            *first = wants[i].at;
        if (wants[i].at + count > end)
            end = wants[i].at + count;
    }
    return end - *first;
}

int dg_folder_load(const Folder *folder, const Comm *comm, ParamSet *set,
                   const char *component, int decoder)
{
    const ManifestOpts half = { encoder_names, 2 };
    char path[DG_FOLDER_PATH], prefix[64];
    WeightWant *wants = NULL;
    LoadOpts o = { .path = path,
                   .manifest = decoder ? &half : NULL,
                   .together = set->together };
    int64_t first, num;
    uint64_t digest = 0;
    int err = dg_folder_path(path, folder->path, component, NULL);

    snprintf(prefix, sizeof prefix, "%s.", component);
    if (!err)
        err = dg_manifest_of_params(&wants, &o.num_wants, set, prefix);
    err = dg_agree(comm, err);
    o.wants = wants;
    o.digest = &digest;
    if (!err) {
        /* other components may lie in the same set */
        num = span(wants, o.num_wants, &first);
        err = set->values != NULL
                  ? dg_load_values(comm, &o, first, num, set->values + first)
                  : dg_load_values(comm, &o, 0, 0, NULL);
    }
    free(wants);
    set->digest += digest;
    return err;
}

int dg_folder_decoder(Vae **out, const VaeConfig *c, ParamSet *set, int outline)
{
    const int err = dg_vae_create(out, c, DG_VAE_DECODER, set, "vae.");

    return err || outline ? err : dg_params_allocate(set, NULL);
}

int dg_folder_place(FolderCopy *out, ParamSet *set, const Backend *backend)
{
    const int err = dg_params_place(&out->at, set, backend, DG_F32);

    if (err)
        return err;
    out->on = backend;
    dg_memory_drop(set->values, sizeof *set->values * (size_t)set->count);
    return DG_OK;
}

void dg_folder_unplace(FolderCopy *copy)
{
    if (copy->on != NULL)
        copy->on->give(copy->at);
    *copy = (FolderCopy) { 0 };
}

/* z as the decoder wants it, in place; counted on the host */
static void from_model(const Vae *vae, Context *ctx, Tensor *z)
{
    const int64_t num = dg_tensor_count(z);
    float *host = (float *)dg_policy_on_host(ctx, dg_tensor_f32(z), num);

    if (host == NULL)
        return;
    dg_vae_from_model(dg_vae_config(vae), host, num);
    if (ctx->backend->apart)
        ctx->backend->upload(z->data, host, sizeof *host * (size_t)num);
}

/* The decoder on its way: each time the same, from what is in the arenas. */
typedef struct Decoding {
    const Vae *vae;
    Context *ctx;
    Tensor *z, *picture;
    size_t mark, meta;
    uint64_t flops; /* counted before */
} Decoding;

static void run_decoder(void *user)
{
    Decoding *d = user;

    dg_arena_release(&d->ctx->arena, d->mark);
    dg_arena_release(&d->ctx->meta, d->meta);
    d->ctx->flops = d->flops;
    d->picture = dg_vae_decode(d->vae, d->ctx, d->z);
}

int dg_folder_paint(const Vae *vae, Context *ctx, Tensor *z, float *rgb)
{
    Decoding d = { .vae = vae, .ctx = ctx, .z = z, .flops = ctx->flops };
    int64_t num;
    int err;

    if (z != NULL && ctx->backend->computes)
        from_model(vae, ctx, z);
    d.mark = dg_arena_mark(&ctx->arena);
    d.meta = dg_arena_mark(&ctx->meta);
    if (!dg_context_error(ctx) && ctx->check_finite)
        run_decoder(&d); /* ops that look at what they made are no graph's */
    else if (!dg_context_error(ctx))
        dg_context_replay(ctx, run_decoder, &d, NULL, 0);
    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    num = dg_tensor_count(d.picture);
    err = dg_kernel_download(ctx->backend, rgb, d.picture->data,
                             sizeof *rgb * (size_t)num);
    for (int64_t i = 0; i < num && !err; i++)
        rgb[i] = dg_policy_pixel(rgb[i] * 0.5f + 0.5f);
    return err;
}
