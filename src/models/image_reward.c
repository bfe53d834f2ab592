#include "models/image_reward.h"

#include "base/error.h"
#include "nn/layer.h"
#include "patches.h"

#include <stdlib.h>

enum { NUM_LINEARS = 5 };

struct ImageReward {
    Vit *vision;
    Bert *text;
    Linear mlp[NUM_LINEARS];
};

/* Where they are in the original's list, whose others are dropouts: there is
 * no activation between them. */
static const struct {
    const char *name;
    int64_t width;
} linears[NUM_LINEARS] = { { "layers.0", 1024 },
                           { "layers.2", 128 },
                           { "layers.4", 64 },
                           { "layers.6", 16 },
                           { "layers.7", 1 } };

ImageRewardConfig dg_image_reward_v1(void)
{
    return (ImageRewardConfig) {
        .vision = { 224, 16, 1024, 4096, 24, 16 },
        .text = { 30524, 768, 3072, 12, 12, 512, 1024 },
    };
}

static int add_mlp(ImageReward *m, ParamSet *set, int64_t width)
{
    LayerPath p;

    dg_path_init(&p, set, "mlp.");
    for (int i = 0; i < NUM_LINEARS; i++) {
        m->mlp[i] =
            dg_layer_linear(&p, linears[i].name, width, linears[i].width,
                            DG_WITH_BIAS, DG_INIT_NORMAL_FAN);
        width = linears[i].width;
    }
    return p.err;
}

int dg_image_reward_create(ImageReward **out, const ImageRewardConfig *c,
                           ParamSet *set)
{
    BertConfig text = c->text;
    ImageReward *m = calloc(1, sizeof *m);
    int err;

    if (m == NULL)
        return dg_fail(DG_ENOMEM, "ImageReward");
    text.encoder_width = c->vision.hidden_size;
    err = dg_vit_create(&m->vision, &c->vision, set, "blip.visual_encoder.");
    if (!err)
        err = dg_bert_create(&m->text, &text, set, "blip.text_encoder.");
    if (!err)
        err = add_mlp(m, set, text.hidden_size);
    if (err)
        dg_image_reward_destroy(m);
    else
        *out = m;
    return err;
}

void dg_image_reward_destroy(ImageReward *m)
{
    if (m == NULL)
        return;
    dg_vit_destroy(m->vision);
    dg_bert_destroy(m->text);
    free(m);
}

Tensor *dg_image_reward_see(const ImageReward *m, Context *ctx, Tensor *pixels)
{
    return dg_vit_forward(m->vision, ctx, pixels);
}

Tensor *dg_image_reward_judge(const ImageReward *m, Context *ctx, Tensor *seen,
                              const int32_t *ids, int64_t tokens)
{
    Tensor *x;

    if (ctx->err || seen == NULL)
        return NULL;
    x = dg_bert_forward(m->text, ctx, ids, seen->dims[0], tokens, seen);
    x = dg_op_pick_token(ctx, x, dg_patches_first(ctx, seen->dims[0]));
    for (int i = 0; i < NUM_LINEARS; i++)
        x = dg_linear(ctx, x, &m->mlp[i], DG_ACT_NONE);
    return x;
}
