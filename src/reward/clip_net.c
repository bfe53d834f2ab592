#include "clip_net.h"

#include "base/error.h"
#include "clip_config.h"
#include "tensor/mirror.h"

#include <string.h>

/* --- creation ----------------------------------------------------------- */

static int bad_model(const ClipNet *n, const char *folder)
{
    if (n->net.c.model[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].model = \"\": must name the sizes, since "
                       "%s has no config.json or open_clip_config.json",
                       (long long)n->net.index, folder);
    return dg_fail(DG_EINVAL,
                   "rewards[%lld].model = \"%s\": must be ViT-L-14, "
                   "ViT-L-14-quickgelu, ViT-H-14 or ViT-H-14-378-quickgelu",
                   (long long)n->net.index, n->net.c.model);
}

/* Sizes: by name, by what lies beside the weights, or the reward's own. */
static int choose_sizes(ClipNet *n, const ClipFlavour *f)
{
    const char *name = n->net.c.model[0] != '\0' ? n->net.c.model : f->model;
    ClipFolder known = { .colours = dg_picture_colours_clip() };
    char folder[DG_NET_PATH];
    int found = 0, err = DG_OK;

    dg_net_folder(folder, n->net.c.path);
    if (n->net.c.model[0] == '\0')
        err = dg_clip_config_read(&known, &found, folder);
    if (err)
        return err;
    if (!found && (name == NULL || dg_clip_model_named(&known.model, name)))
        return bad_model(n, folder);
    if (!found && strstr(name, "-378") != NULL)
        known.squash = 1; /* as DFN's own preprocessing */
    n->config = known.model;
    n->config.vision_only = f->vision_only;
    n->net.picture = (PictureOpts) {
        .side = n->config.vision.image_size,
        .squash = known.squash,
        .crop_low = f->transformers || known.transformers,
        .resampler = f->resampler,
        .quantize = n->net.c.quantize,
        .colours = known.colours,
    };
    n->clean = !n->net.picture.crop_low;
    return DG_OK;
}

int dg_clip_net_init(ClipNet *n, const RewardConfig *c, int64_t index,
                     const ClipFlavour *f)
{
    int err = dg_net_init(&n->net, c, index);

    if (!err)
        err = choose_sizes(n, f);
    if (err)
        return err;
    return dg_net_created(&n->net, dg_clip_model_create(&n->model, &n->config,
                                                        &n->net.params, ""));
}

void dg_clip_net_fini(ClipNet *n)
{
    dg_clip_model_destroy(n->model);
    dg_net_fini(&n->net);
}

/* --- weights ------------------------------------------------------------ */

/* What is not the vision tower's, in transformers' layout and OpenCLIP's. */
static const char *const texts[] = { "text_model.*",
                                     "text_projection*",
                                     "logit_scale",
                                     "transformer.*",
                                     "token_embedding.weight",
                                     "positional_embedding",
                                     "ln_final.*",
                                     "text.*" };
static const ManifestOpts without_texts = { .ignore = texts,
                                            .num_ignore =
                                                sizeof texts / sizeof *texts };

int dg_clip_net_load(ClipNet *n, const Comm *comm, int err)
{
    return dg_net_load(&n->net, n->config.vision_only ? &without_texts : NULL,
                       comm, err);
}

/* --- pictures ----------------------------------------------------------- */

static Tensor *see(const void *net, Context *ctx, Tensor *pixels)
{
    return dg_clip_model_image(((const ClipNet *)net)->model, ctx, pixels);
}

float *dg_clip_net_see(const ClipNet *n, const RewardInput *in)
{
    const int64_t e = n->config.projection_dim;
    const size_t bytes = sizeof(float) * (size_t)e;
    Context *ctx = in->ctx;
    float *features;
    Tensor *t = dg_net_look(n, in, see);

    if (t == NULL || !ctx->backend->computes)
        return NULL;
    features = dg_arena_take(&ctx->meta, bytes);
    ctx->err = features != NULL
                   ? dg_kernel_download(ctx->backend, features, t->data, bytes)
                   : DG_ENOMEM;
    if (ctx->err)
        return NULL;
    dg_clip_normalize(features, e);
    return features;
}
