#ifndef DG_TESTS_IMAGE_REWARD_BED_H
#define DG_TESTS_IMAGE_REWARD_BED_H
/* The reward imagereward with the networks of tests/golden/image_reward_tiny,
 * on any backend, and what transformers makes of them
 * (make_image_reward_fixture.py). Pictures are those of clip_golden.h. */
#include "tiny_run.h"

#include "clip_golden.h"
#include "models/image_reward.h"

#define IR_FOLDER "tests/golden/image_reward_tiny"
#define IR_FILE   IR_FOLDER "/ImageReward.pt"
#define IR_WORDS  "tests/golden/bert_small"
#define IR_KEYS   "path=\"" IR_FILE "\";tokenizer=\"" IR_WORDS "\";"

enum {
    IR_PROMPTS = 4,
    IR_TOKENS = 35,
    IR_LONG = 2 /* the prompt of more than 35 tokens */
};

static const char *const ir_prompts[IR_PROMPTS] = {
    "A red circle, and two blue squares!", "",
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat "
    "3 green triangles left of a cat 3 green triangles left of a cat ",
    "Cr\xC3\xA8me br\xC3\xBBl\xC3\xA9\x65 \xE9\xBE\x8D [SEP] "
    "d\xC3\xA9j\xC3\xA0-vu"
};

typedef struct IrBed {
    Config config;
    Reward r[DG_CONFIG_REWARDS];
    RewardPlan plan; /* of pictures of 90 x 90 */
    Context ctx;
    float features[IR_PROMPTS][IR_TOKENS];
    void *scratch;
} IrBed;

static inline void ir_count(IrBed *b, const Backend *backend, int64_t side)
{
    Backend table;
    Context ctx;

    dg_backend_plan(&table, backend);
    MUST(dg_context_init(&ctx, &table, 0));
    MUST(dg_rewards_plan(&b->plan, b->r, 1, &ctx, side, side));
    dg_context_fini(&ctx);
}

/** keys: of the reward; the network is not opened */
static inline void ir_configure(IrBed *b, const char *keys)
{
    char rewards[1024];

    memset(b, 0, sizeof *b);
    dg_config_defaults(&b->config);
    snprintf(rewards, sizeof rewards, "rewards=({name=\"imagereward\";%s})",
             keys);
    MUST(dg_config_set(&b->config, rewards));
    MUST(dg_rewards_init(b->r, &b->config));
}

/** Room for any of the pictures. */
static inline size_t ir_scratch(const IrBed *b)
{
    size_t most = dg_rewards_scratch(b->r, 1, 90, 90);

    for (int i = 0; i < CLIP_SIZES; i++) {
        const size_t bytes =
            dg_rewards_scratch(b->r, 1, clip_sizes[i][0], clip_sizes[i][1]);

        most = bytes > most ? bytes : most;
    }
    return most;
}

static inline void ir_open(IrBed *b, const Backend *backend, const char *keys)
{
    ir_configure(b, keys);
    MUST(dg_rewards_open(b->r, &b->config, 1, &tiny_comm));
    MUST(dg_rewards_place(b->r, 1, backend));
    ir_count(b, backend, 90);
    MUST(dg_context_init(&b->ctx, backend, b->plan.bytes));
    b->scratch = malloc(ir_scratch(b));
    assert_non_null(b->scratch);
    assert_int_equal(dg_rewards_num_features(b->r, 1), IR_TOKENS);
    for (int p = 0; p < IR_PROMPTS; p++) {
        const Prompt prompt = { .text = (char *)ir_prompts[p] };

        MUST(dg_rewards_encode(b->r, 1, &b->ctx, &prompt, b->features[p]));
    }
}

static inline void ir_close(IrBed *b)
{
    dg_context_fini(&b->ctx);
    dg_rewards_close(b->r, 1);
    free(b->scratch);
}

static inline RewardScore ir_score(IrBed *b, const float *rgb, int size,
                                   int prompt)
{
    const Prompt text = { .text = (char *)ir_prompts[prompt] };
    const RewardInput in = {
        .rgb = rgb,
        .height = clip_sizes[size][0],
        .width = clip_sizes[size][1],
        .prompt = &text,
        .features = b->features[prompt],
        .ctx = &b->ctx,
        .scratch = b->scratch,
    };
    RewardScore s;

    dg_reward_score(&b->r[0], &in, &s);
    return s;
}

/** All pictures and prompts, as transformers scores them. */
static inline void ir_check_scores(const Backend *backend)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), want[IR_PROMPTS];
    IrBed b;

    assert_non_null(rgb);
    ir_open(&b, backend, IR_KEYS);
    for (int i = 0; i < CLIP_SIZES; i++) {
        clip_picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
        clip_golden_of(IR_FOLDER, want, IR_PROMPTS, "score", i);
        for (int p = 0; p < IR_PROMPTS; p++) {
            const RewardScore s = ir_score(&b, rgb, i, p);

            assert_int_equal(s.missing, 0);
            clip_near("score", &s.value, &want[p], 1, 1e-5);
        }
    }
    free(rgb);
    ir_close(&b);
}

#endif
