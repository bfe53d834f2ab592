/* Rewards with a network in a run: every sample is judged by its own picture,
 * its own prompt and the reward's own network; one that is not finite by none. */
#include "tiny_run.h"

#include "train/evaluate.h"
#include "weights/safetensors.h"
#include "weights/snapshot.h"

#include <math.h>

#define FOLDER "tests/golden/clip_tiny"
#define WORDS  "tokenizer=\"tests/golden/sd_tiny/tokenizer\";"

/* A copy of the network whose texts point the other way. */
static void write_contrary(const char *folder)
{
    WeightSource *s;
    WeightOut t[128];
    char path[300], command[600];
    int64_t num;

    MUST(dg_snapshot_open(&s, FOLDER, NULL));
    num = dg_source_num(s);
    assert_true(num <= 128);
    for (int64_t i = 0; i < num; i++) {
        const WeightInfo *info = dg_source_info(s, i);
        float *data = malloc(sizeof *data * (size_t)info->count);

        assert_non_null(data);
        MUST(dg_source_read(s, i, 0, info->count, data));
        if (strcmp(info->name, "text_projection.weight") == 0)
            for (int64_t k = 0; k < info->count; k++)
                data[k] = -data[k];
        t[i] = (WeightOut) { .name = info->name,
                             .type = DG_WEIGHT_F32,
                             .num_dims = info->num_dims,
                             .data = data };
        memcpy(t[i].dims, info->dims, sizeof t[i].dims);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    MUST(dg_safetensors_write(path, t, num, NULL, NULL));
    for (int64_t i = 0; i < num; i++)
        free((void *)t[i].data);
    dg_source_close(s);
    snprintf(command, sizeof command, "cp " FOLDER "/config.json '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* The network, something plain, and the contrary network. */
static void open_judged(TinyRun *t, int threads, const char *folder)
{
    char rewards[900];
    const char *sets[] = { rewards, NULL };

    snprintf(rewards, sizeof rewards,
             "rewards=({name=\"clip\";path=\"" FOLDER "\";" WORDS "},"
             "{name=\"brightness\";},"
             "{name=\"pickscore\";path=\"%s\";" WORDS "})",
             folder);
    tiny_open(t, threads, sets);
}

/* What reward 0 says of a picture and a prompt, all by itself. */
static float judge(TinyRun *t, const float *rgb, const Prompt *prompt)
{
    Context *ctx = &t->team->workers[0].ctx;
    const Prompt copy = *prompt; /* of no list: read as it comes */
    float features[64];
    RewardScore s;

    assert_true(dg_rewards_num_features(t->rewards, 1) <= 64);
    MUST(dg_rewards_encode(t->rewards, 1, ctx, &copy, features));
    dg_reward_score(&t->rewards[0],
                    &(RewardInput) { .rgb = rgb,
                                     .height = t->policy->shape.height,
                                     .width = t->policy->shape.width,
                                     .prompt = prompt,
                                     .features = features,
                                     .ctx = ctx,
                                     .scratch = t->team->workers[0].scratch },
                    &s);
    assert_int_equal(s.missing, 0);
    return s.value;
}

static void test_samples_are_judged_by_their_own_prompt(void **state)
{
    float *rgb = malloc(sizeof *rgb * 3 * 64 * 64);
    char folder[256];
    int differ = 0;
    TinyRun t;

    (void)state;
    assert_non_null(rgb);
    tiny_folder(folder);
    write_contrary(folder);
    for (int threads = 1; threads <= 2; threads++) {
        Rollout *r;

        open_judged(&t, threads, folder);
        if (threads == 2)
            MUST(dg_rewards_read(t.rewards, 3, &t.prompts));
        tiny_experience(&t, 1);
        r = t.rollout;
        for (int64_t i = 0; i < r->N; i++) {
            const Prompt *prompt = &t.prompts.item[r->prompt[i / r->G]];
            float alone;

            MUST(dg_policy_decode(t.policy, &t.team->workers[0].ctx,
                                  r->final + i * r->D, rgb));
            alone = judge(&t, rgb, prompt);
            assert_true(r->scores[i * r->K].value == alone);
            assert_true(r->scores[i * r->K + 2].value == -alone);
            assert_false(r->scores[i * r->K + 1].missing);
            differ += judge(&t, rgb, &t.prompts.item[r->prompt[0]]) != alone;
        }
        tiny_close(&t);
    }
    assert_true(differ > 0); /* prompts are told apart at all */
    tiny_drop(folder);
    free(rgb);
}

/* evaluate keeps pictures in 8 bits, which is all that the network sees */
static void test_evaluation_judges_each_picture(void **state)
{
    TinyRun t;
    Evaluation e;
    EvaluateJob job;
    double sum = 0;
    char folder[256];
    int64_t pixels;
    float *rgb;

    (void)state;
    tiny_folder(folder);
    write_contrary(folder);
    open_judged(&t, 1, folder);
    pixels = 3 * t.policy->shape.height * t.policy->shape.width;
    rgb = malloc(sizeof *rgb * (size_t)pixels);
    job = (EvaluateJob) { .session = &t.session,
                          .team = t.team,
                          .policy = t.policy,
                          .prompts = &t.prompts,
                          .rewards = t.rewards,
                          .num_prompts = 3,
                          .seeds = 2,
                          .batch = t.config.grpo.micro_batch,
                          .seed = 5,
                          .with_scores = 1,
                          .pictures = calloc(6, (size_t)pixels) };
    assert_non_null(rgb);
    assert_non_null(job.pictures);
    MUST(dg_evaluate(&e, &job));
    assert_int_equal(e.missing, 0);
    for (int64_t i = 0; i < 6; i++) {
        for (int64_t k = 0; k < pixels; k++)
            rgb[k] = (float)job.pictures[i * pixels + k] / 255;
        sum += (double)judge(&t, rgb, &t.prompts.item[i / 2]);
    }
    if (!(fabs(e.all.reward.mean - sum / 6) < 1e-12))
        fail_msg("evaluated %.9g, by itself %.9g", e.all.reward.mean, sum / 6);
    free(job.pictures);
    free(rgb);
    tiny_close(&t);
    tiny_drop(folder);
}

/* Where the reward's network is the largest thing there is, the step arena is
 * its. Sizes alone: there are no weights. */
static void test_the_largest_need_is_planned(void **state)
{
    TinyRun t;
    StepPlan without, with;
    Reward r[DG_CONFIG_REWARDS];
    Config c;

    (void)state;
    tiny_open(&t, 1, NULL);
    dg_config_defaults(&c);
    MUST(dg_config_set(&c, "rewards=({name=\"hpsv2\";path=\"none.pt\";})"));
    MUST(dg_rewards_init(r, &c));
    MUST(dg_rewards_outline(r, &c, 1));
    MUST(dg_step_plan(&without, t.policy, dg_backend_cpu(),
                      &(StepPlanOpts) { .batch = 1 }));
    MUST(dg_step_plan(
        &with, t.policy, dg_backend_cpu(),
        &(StepPlanOpts) { .batch = 1, .rewards = r, .num_rewards = 1 }));
    assert_true(with.reward.bytes > without.step_bytes);
    assert_int_equal(with.step_bytes, with.reward.bytes);
    assert_int_equal(without.reward.bytes, 0);
    dg_rewards_close(r, 1);
    tiny_close(&t);
}

/* A latent that is not finite after its last step, which the small codec would make
 * white: no reward sees the picture, and it is told of. */
static void test_a_spoilt_latent_is_named(void **state)
{
    TinyRun t;
    Rollout *r;

    (void)state;
    tiny_open(&t, 2, NULL);
    r = t.rollout;
    for (int again = 0; again < 2; again++) {
        MUST(dg_rollout_begin(r, &t.session, t.prompts.num, 0));
        MUST(dg_rollout_encode(r, t.team, t.policy, &t.prompts));
        MUST(dg_rollout_sample(r, &t.session, t.team, t.policy));
        r->final[(r->G + 2) * r->D + 5] = again ? NAN : INFINITY;
        r->final[(r->G + 3) * r->D + 1] = -INFINITY;
        MUST(dg_rollout_score(
            &(Scoring) { r, t.policy, &t.prompts, t.rewards, NULL, 0 },
            t.team));
        for (int64_t i = 0; i < r->N * r->K; i++) {
            const int64_t item = i / r->K - r->G;

            assert_int_equal(r->scores[i].missing,
                             item == 2 || item == 3 ? DG_SCORE_SPOILT : 0);
            assert_true(!r->scores[i].missing || isnan(r->scores[i].value));
        }
        assert_int_equal(r->spoilt.item, r->G + 2);
        assert_non_null(strstr(r->spoilt.text,
                               "the latent after the last step is not, element "
                               "5 of "));
        assert_int_equal(r->note_item, r->G + 2);
        assert_non_null(strstr(r->note, r->spoilt.text));
        assert_int_equal(r->pictures[1].num, r->G - 2);
    }
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_samples_are_judged_by_their_own_prompt),
    cmocka_unit_test(test_evaluation_judges_each_picture),
    cmocka_unit_test(test_the_largest_need_is_planned),
    cmocka_unit_test(test_a_spoilt_latent_is_named),
};

TINY_MAIN(tests)
