#ifndef DG_MODELS_IMAGE_REWARD_H
#define DG_MODELS_IMAGE_REWARD_H
/*
 * ImageReward (arXiv:2304.05977): BLIP's vision transformer and BERT, in which
 * the prompt reads the picture, and five linear layers on the first token.
 * Parameter names are those of ImageReward.pt.
 */
#include "models/bert.h"
#include "models/vit.h"

typedef struct ImageRewardConfig {
    VitConfig vision;
    BertConfig text; /* encoder_width is the vision's hidden_size */
} ImageRewardConfig;

/* Of a score: (m - mean) / deviation, m what the network gives. */
#define DG_IMAGE_REWARD_MEAN      0.16717362830052426
#define DG_IMAGE_REWARD_DEVIATION 1.0333394966054072

enum { DG_IMAGE_REWARD_TOKENS = 35 }; /* of a prompt, marks included, at most */

typedef struct ImageReward ImageReward;

/** ImageReward-v1.0's sizes: ViT-L/16 of 224 pixels, BERT base. */
ImageRewardConfig dg_image_reward_v1(void);

/**
 * Adds the network's parameters to set. c is copied, set borrowed. Not
 * collective. Errors: DG_EINVAL on a bad config, DG_ENOMEM.
 */
int dg_image_reward_create(ImageReward **out, const ImageRewardConfig *c,
                           ParamSet *set);
void dg_image_reward_destroy(ImageReward *m);

/** What BERT reads of pictures: see dg_vit_forward(). */
Tensor *dg_image_reward_see(const ImageReward *m, Context *ctx, Tensor *pixels);

/** m [B, 1], not normalised, of what was seen and of prompts' ids [B, tokens],
 *  without pads: see dg_bert_forward(). */
Tensor *dg_image_reward_judge(const ImageReward *m, Context *ctx, Tensor *seen,
                              const int32_t *ids, int64_t tokens);

#endif
