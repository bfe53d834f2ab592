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

static void destroy_model(void *model)
{
    dg_clip_model_destroy(model);
}

int dg_clip_net_init(ClipNet *n, const RewardConfig *c, int64_t index,
                     const ClipFlavour *f)
{
    int err = dg_net_init(&n->net, c, index, destroy_model);
    ClipModel *model;

    if (!err)
        err = choose_sizes(n, f);
    if (err)
        return err;
    err = dg_clip_model_create(&model, &n->config, &n->net.tower->params, "");
    if (!err)
        n->net.tower->model = model;
    return dg_net_created(&n->net, err);
}

void dg_clip_net_fini(ClipNet *n)
{
    dg_net_fini(&n->net);
}

const ClipModel *dg_clip_net_model(const ClipNet *n)
{
    return n->net.tower->model;
}

/* --- one network for several rewards ------------------------------------ */

/* One without texts has the sizes of the whole network too. */
int dg_clip_net_same(const void *net, const void *other)
{
    const ClipNet *a = net, *b = other;

    return dg_net_same_path(&a->net, &b->net) &&
           dg_clip_model_same(&a->config, &b->config);
}

static int has_texts(const Tower *t)
{
    return !dg_clip_model_config(t->model)->vision_only;
}

/* Where only this one has texts, its network is the one that all have: the
 * towers change what they have, since others may be in the host's already. */
void dg_clip_net_join(void *net, void *host)
{
    Tower *mine = ((ClipNet *)net)->net.tower,
          *hosts = ((ClipNet *)host)->net.tower;

    if (has_texts(mine) && !has_texts(hosts)) {
        const Tower before = *hosts;
        const int users = mine->users;

        *hosts = *mine;
        hosts->users = before.users;
        *mine = before;
        mine->users = users;
    }
    dg_net_join(net, host);
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

static const ManifestOpts *besides(const ClipNet *n)
{
    return has_texts(n->net.tower) ? NULL : &without_texts;
}

int dg_clip_net_prepare(ClipNet *n, const Comm *comm, int err)
{
    return dg_net_prepare(&n->net, besides(n), comm, err);
}

int dg_clip_net_load(ClipNet *n, const Comm *comm)
{
    return dg_net_load(&n->net, besides(n), comm);
}

/* --- pictures ----------------------------------------------------------- */

int64_t dg_clip_net_num_seen(const void *net)
{
    return ((const ClipNet *)net)->config.projection_dim;
}

static int same_colours(const PictureColours *a, const PictureColours *b)
{
    int same = 1;

    for (int i = 0; i < 3; i++)
        same &= a->mean[i] == b->mean[i] && a->deviation[i] == b->deviation[i];
    return same;
}

int dg_clip_net_alike(const void *net, const void *other)
{
    const Net *a = net, *b = other;
    const PictureOpts *p = &a->picture, *q = &b->picture;

    return a->tower == b->tower && p->side == q->side &&
           p->squash == q->squash && p->crop_low == q->crop_low &&
           p->resampler == q->resampler && p->quantize == q->quantize &&
           same_colours(&p->colours, &q->colours);
}

static Tensor *run(const void *net, Context *ctx, Tensor *pixels)
{
    return dg_clip_model_image(dg_clip_net_model(net), ctx, pixels);
}

int dg_clip_net_see(const void *net, const RewardInput *in, float *seen)
{
    const int64_t e = dg_clip_net_num_seen(net);
    Context *ctx = in->ctx;
    const Tensor *t = dg_net_look(net, in, run);

    if (dg_context_error(ctx) || !ctx->backend->computes)
        return dg_context_error(ctx);
    ctx->err = dg_kernel_download(ctx->backend, seen, t->data,
                                  sizeof *seen * (size_t)e);
    if (!ctx->err)
        dg_clip_normalize(seen, e);
    return ctx->err;
}
