#ifndef DG_TESTS_CLIP_BED_H
#define DG_TESTS_CLIP_BED_H
/* Rewards with the networks of tests/golden/clip_tiny, on any backend. */
#include "tiny_run.h"

#include "clip_golden.h"
#include "models/clip_model.h"

#define CLIP_KEYS "path=\"" CLIP_FOLDER "\";tokenizer=\"" CLIP_WORDS "\";"

typedef struct ClipBed {
    Config config;
    Reward r[DG_CONFIG_REWARDS];
    int64_t num;
    RewardPlan plan; /* of pictures of 64 x 64 */
    Context ctx;
    float *features; /* [CLIP_PROMPTS, num features] */
    void *scratch;
} ClipBed;

static const char clip_three[] = "rewards=({name=\"hpsv2\";" CLIP_KEYS "},"
                                 "{name=\"brightness\";},"
                                 "{name=\"clip\";" CLIP_KEYS "},"
                                 "{name=\"pickscore\";" CLIP_KEYS "})";

static inline void clip_count(ClipBed *b, const Backend *backend, int64_t size)
{
    Backend table;
    Context ctx;

    dg_backend_plan(&table, backend);
    MUST(dg_context_init(&ctx, &table, 0));
    MUST(dg_rewards_plan(&b->plan, b->r, b->num, &ctx, size, size));
    dg_context_fini(&ctx);
}

/** rewards: the assignment of the configuration; networks are not opened */
static inline void clip_configure(ClipBed *b, const char *rewards)
{
    memset(b, 0, sizeof *b);
    dg_config_defaults(&b->config);
    MUST(dg_config_set(&b->config, rewards));
    b->num = b->config.num_rewards;
    MUST(dg_rewards_init(b->r, &b->config));
}

static inline void clip_open(ClipBed *b, const Backend *backend,
                             const char *rewards)
{
    int64_t n;

    clip_configure(b, rewards);
    MUST(dg_rewards_open(b->r, &b->config, b->num, &tiny_comm));
    MUST(dg_rewards_place(b->r, b->num, backend));
    clip_count(b, backend, 64);
    MUST(dg_context_init(&b->ctx, backend, b->plan.bytes));
    b->scratch = malloc(dg_rewards_scratch(b->r, b->num, 64, 64));
    assert_non_null(b->scratch);
    n = dg_rewards_num_features(b->r, b->num);
    b->features = malloc(sizeof *b->features * CLIP_PROMPTS * (size_t)n);
    assert_non_null(b->features);
    for (int i = 0; i < CLIP_PROMPTS; i++) {
        const Prompt prompt = { .text = (char *)clip_prompts[i] };

        MUST(dg_rewards_encode(b->r, b->num, &b->ctx, &prompt,
                               b->features + i * n));
    }
}

static inline void clip_close(ClipBed *b)
{
    dg_context_fini(&b->ctx);
    dg_rewards_close(b->r, b->num);
    free(b->features);
    free(b->scratch);
}

/** Reward k of a square picture of at most 64 x 64. */
static inline RewardScore clip_score(ClipBed *b, int k, const float *rgb,
                                     int64_t size, int prompt)
{
    const Prompt text = { .text = (char *)clip_prompts[prompt] };
    const RewardInput in = {
        .rgb = rgb,
        .height = size,
        .width = size,
        .prompt = &text,
        .features =
            b->features + prompt * dg_rewards_num_features(b->r, b->num),
        .ctx = &b->ctx,
        .scratch = b->scratch,
    };
    RewardScore s;

    dg_reward_score(&b->r[k], &in, &s);
    return s;
}

/** All of a square picture of 64 x 64, those of one network together. */
static inline void clip_score_all(ClipBed *b, RewardScore *s, const float *rgb,
                                  int prompt)
{
    const Prompt text = { .text = (char *)clip_prompts[prompt] };
    const RewardInput in = {
        .rgb = rgb,
        .height = 64,
        .width = 64,
        .prompt = &text,
        .features =
            b->features + prompt * dg_rewards_num_features(b->r, b->num),
        .ctx = &b->ctx,
        .scratch = b->scratch,
    };

    MUST(dg_rewards_score(b->r, b->num, &in, s, NULL, NULL));
}

/** What transformers makes of the prompts. */
static inline void clip_check_texts(const Backend *backend)
{
    float want[CLIP_WIDTH];
    ClipBed b;

    clip_open(&b, backend, clip_three);
    assert_int_equal(dg_rewards_num_features(b.r, b.num), 3 * CLIP_WIDTH);
    for (int i = 0; i < CLIP_PROMPTS; i++)
        for (int k = 0; k < 3; k++) {
            clip_golden(want, CLIP_WIDTH, "text", i);
            dg_clip_normalize(want, CLIP_WIDTH);
            clip_near("text", b.features + (3 * i + k) * CLIP_WIDTH, want,
                      CLIP_WIDTH, 1e-6);
        }
    clip_close(&b);
}

/** And how it scores the pictures that are square. */
static inline void clip_check_scores(const Backend *backend)
{
    static const char *const ways[] = { "f32_cos", NULL, "u8_cos", "u8_cos" };
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), want[CLIP_PROMPTS];
    ClipBed b;

    assert_non_null(rgb);
    clip_open(&b, backend, clip_three);
    for (int i = 0; i < CLIP_SIZES; i += 4) {
        const int side = clip_sizes[i][0];

        assert_int_equal(side, clip_sizes[i][1]);
        clip_picture(rgb, side, side);
        for (int k = 0; k < 4; k++)
            for (int p = 0; p < CLIP_PROMPTS && ways[k] != NULL; p++) {
                const RewardScore s = clip_score(&b, k, rgb, side, p);

                clip_golden(want, CLIP_PROMPTS, ways[k], i);
                assert_int_equal(s.missing, 0);
                clip_near(ways[k], &s.value, &want[p], 1, 1e-5);
            }
    }
    free(rgb);
    clip_close(&b);
}

#endif
