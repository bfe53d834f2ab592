#include "clip_net.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "clip_config.h"
#include "tensor/mirror.h"
#include "tensor/ops.h"
#include "weights/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- creation ----------------------------------------------------------- */

static int bad_model(const ClipNet *n, const char *folder)
{
    if (n->c.model[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "rewards[%lld].model = \"\": must name the sizes, since "
                       "%s has no config.json or open_clip_config.json",
                       (long long)n->index, folder);
    return dg_fail(DG_EINVAL,
                   "rewards[%lld].model = \"%s\": must be ViT-L-14, "
                   "ViT-L-14-quickgelu, ViT-H-14 or ViT-H-14-378-quickgelu",
                   (long long)n->index, n->c.model);
}

/* Sizes: by name, by what lies beside the weights, or the reward's own. */
static int choose_sizes(ClipNet *n, const ClipFlavour *f)
{
    const char *name = n->c.model[0] != '\0' ? n->c.model : f->model;
    ClipFolder known = { .colours = dg_picture_colours_clip() };
    char folder[DG_CLIP_PATH];
    int found = 0, err = DG_OK;

    dg_clip_folder(folder, n->c.path);
    if (n->c.model[0] == '\0')
        err = dg_clip_config_read(&known, &found, folder);
    if (err)
        return err;
    if (!found && (name == NULL || dg_clip_model_named(&known.model, name)))
        return bad_model(n, folder);
    if (!found && strstr(name, "-378") != NULL)
        known.squash = 1; /* as DFN's own preprocessing */
    n->config = known.model;
    n->config.vision_only = f->vision_only;
    n->picture = (PictureOpts) {
        .side = n->config.vision.image_size,
        .squash = known.squash,
        .crop_low = f->transformers || known.transformers,
        .resampler = f->resampler,
        .quantize = n->c.quantize,
        .colours = known.colours,
    };
    n->clean = !n->picture.crop_low;
    return DG_OK;
}

int dg_clip_net_init(ClipNet *n, const RewardConfig *c, int64_t index,
                     const ClipFlavour *f)
{
    char reason[512];
    int err;

    snprintf(n->name, sizeof n->name, "%s", c->name);
    n->index = index;
    n->c = *c;
    err = dg_params_init(&n->params, DG_PARAMS_REWARD);
    if (!err)
        err = choose_sizes(n, f);
    if (err)
        return err;
    err = dg_clip_model_create(&n->model, &n->config, &n->params, "");
    if (err == DG_EINVAL) {
        snprintf(reason, sizeof reason, "%.500s", dg_last_error()->text);
        err = dg_fail(DG_EFORMAT, "rewards[%lld], %s: %s", (long long)index,
                      c->path, reason);
    }
    return err;
}

void dg_clip_net_fini(ClipNet *n)
{
    dg_clip_model_destroy(n->model);
    if (n->on != NULL)
        n->on->give(n->at);
    dg_params_fini(&n->params);
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

int dg_clip_net_find(const ClipNet *n)
{
    if (access(n->c.path, F_OK) != 0)
        return dg_fail(DG_EIO, "rewards[%lld].path = \"%s\": %s",
                       (long long)n->index, n->c.path, strerror(errno));
    return DG_OK;
}

int dg_clip_net_load(ClipNet *n, const Comm *comm, int err)
{
    WeightWant *wants = NULL;
    LoadOpts o = { .path = n->c.path,
                   .manifest = n->config.vision_only ? &without_texts : NULL };

    if (!err)
        err = dg_manifest_of_params(&wants, &o.num_wants, &n->params, "");
    err = dg_agree(comm, err);
    o.wants = wants;
    if (!err) /* the files are checked before gigabytes are reserved */
        err = dg_load_values(comm, &o, 0, 0, NULL);
    if (!err)
        err = dg_agree(comm, dg_params_allocate(&n->params, NULL));
    if (!err)
        err = dg_load_values(comm, &o, 0, n->params.count, n->params.values);
    free(wants);
    if (!err)
        dg_info("reward %s: %s, %lld parameters, pictures of %lld x %lld",
                n->name, n->c.path, (long long)dg_params_num_values(&n->params),
                (long long)n->picture.side, (long long)n->picture.side);
    return err;
}

int dg_clip_net_place(void *net, const Backend *backend)
{
    ClipNet *n = net;
    const int err = dg_params_place(&n->at, &n->params, backend, DG_F32);

    if (err)
        return err;
    n->on = backend;
    dg_memory_drop(n->params.values,
                   sizeof *n->params.values * (size_t)n->params.count);
    return DG_OK;
}

int64_t dg_clip_net_num_values(const void *net)
{
    return ((const ClipNet *)net)->params.count;
}

/* --- pictures ----------------------------------------------------------- */

/* The network's input made of a picture, on the host; a counting arena counts
 * what that takes. */
static const float *prepare(const ClipNet *n, const float *rgb, int64_t height,
                            int64_t width, Arena *a, int *err)
{
    const int64_t side = n->picture.side;
    float *pixels =
        dg_arena_take(a, sizeof *pixels * (size_t)(3 * side * side));

    *err = dg_picture_prepare(pixels, &n->picture, rgb, height, width, a);
    return pixels;
}

size_t dg_clip_net_scratch(const void *net, int64_t height, int64_t width)
{
    Arena a;
    int err;

    dg_arena_init_count(&a, "picture");
    prepare(net, NULL, height, width, &a, &err);
    return a.peak;
}

/* A picture on its way through the network. */
typedef struct Seeing {
    const ClipNet *net;
    Context *ctx;
    const float *pixels; /* as the network takes them, the host's */
    Tensor *features;
    uint64_t flops; /* counted before */
} Seeing;

static void run_tower(void *user)
{
    Seeing *s = user;
    const int64_t side = s->net->picture.side, dims[4] = { 1, side, side, 3 };

    dg_context_reset(s->ctx);
    s->ctx->flops = s->flops;
    s->features = dg_clip_model_image(s->net->model, s->ctx,
                                      dg_op_input(s->ctx, s->pixels, 4, dims));
}

static Tensor *look(const ClipNet *n, const RewardInput *in)
{
    Seeing s = { .net = n, .ctx = in->ctx, .flops = in->ctx->flops };
    Arena host;
    int err = DG_OK;

    dg_arena_init_over(&host, "picture", in->scratch,
                       dg_clip_net_scratch(n, in->height, in->width));
    if (s.ctx->backend->computes)
        s.pixels = prepare(n, in->rgb, in->height, in->width, &host, &err);
    if (!err)
        dg_context_replay(s.ctx, run_tower, &s, NULL, 0, 0);
    else
        s.ctx->err = err;
    return s.features;
}

float *dg_clip_net_see(const ClipNet *n, const RewardInput *in)
{
    const int64_t e = n->config.projection_dim;
    const size_t bytes = sizeof(float) * (size_t)e;
    Context *ctx = in->ctx;
    float *features;
    Tensor *t;

    dg_context_reset(ctx);
    t = look(n, in);
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
