/* Evaluation: the bootstrap against closed forms, one answer whatever the
 * threads and batches. */
#include "tiny_run.h"

#include "train/evaluate.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <unistd.h>

/* Means of n draws of 0/1 values: normal with variance p (1 - p) / n. With
 * 4000 resamplings the ends are known to about 1.3 % of a standard deviation
 * (sqrt(q (1 - q) / R) / density at 1.96); four times that, and the step of
 * the binomial, 1/n, are allowed. */
static void test_bootstrap_of_zeros_and_ones(void **state)
{
    enum { N = 900 };
    double value[N];
    Interval x;

    (void)state;
    for (int i = 0; i < N; i++)
        value[i] = i % 3 == 0;
    dg_bootstrap(&x, value, N, 4000, 1);
    const double p = 1.0 / 3, sd = sqrt(p * (1 - p) / N);

    assert_true(fabs(x.mean - p) < 1e-12);
    assert_true(fabs(x.low - (p - 1.96 * sd)) < 0.17 * sd + 1.0 / N);
    assert_true(fabs(x.high - (p + 1.96 * sd)) < 0.17 * sd + 1.0 / N);
}

static void test_bootstrap_narrows_with_the_root_of_n(void **state)
{
    double value[1600];
    Interval few, many;

    (void)state;
    for (int i = 0; i < 1600; i++)
        value[i] = sin(3.1 * i);
    dg_bootstrap(&few, value, 100, 4000, 1);
    dg_bootstrap(&many, value, 1600, 4000, 1);
    assert_true(fabs((few.high - few.low) / (many.high - many.low) - 4) < 0.4);
}

static void test_bootstrap_of_equal_values_is_a_point(void **state)
{
    const double value[] = { 0.25, 0.25, 0.25 };
    Interval x;

    (void)state;
    dg_bootstrap(&x, value, 3, 100, 1);
    assert_true(x.mean == 0.25 && x.low == 0.25 && x.high == 0.25);
}

/* Not a point, which would look certain. */
static void test_bootstrap_of_one_value_has_no_interval(void **state)
{
    const double value[] = { NAN, 0.25, NAN };
    char text[DG_INTERVAL_BYTES];
    Interval x;

    (void)state;
    dg_bootstrap(&x, value, 3, 100, 1);
    assert_true(x.mean == 0.25 && isnan(x.low) && isnan(x.high));
    dg_interval_text(text, &x, 2);
    assert_string_equal(text, "0.25 [none]");
}

static void test_bootstrap_leaves_out_nan(void **state)
{
    const double with[] = { NAN, 1, 2, NAN, 4 }, without[] = { 1, 2, 4 };
    const double none[] = { NAN, NAN };
    Interval a, b, c;

    (void)state;
    dg_bootstrap(&a, with, 5, 300, 7);
    dg_bootstrap(&b, without, 3, 300, 7);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.low >= 1 && a.high <= 4 && a.low < a.mean);
    dg_bootstrap(&c, none, 2, 300, 7);
    assert_true(isnan(c.mean) && isnan(c.low) && isnan(c.high));
    dg_bootstrap(&c, none, 0, 300, 7);
    assert_true(isnan(c.mean));
}

static void evaluate_sets(Evaluation *e, const char *rewards, uint8_t *pictures,
                          int threads, int64_t batch)
{
    const char *const sets[] = { rewards, "grpo.micro_batch=5",
                                 "evaluate.bootstrap=50", NULL };
    TinyRun t;

    tiny_open(&t, threads, sets);
    MUST(dg_evaluate(
        e, &(EvaluateJob) { .session = &t.session,
                            .team = t.team,
                            .policy = t.policy,
                            .prompts = &t.prompts,
                            .rewards = t.rewards,
                            .num_prompts = 6,
                            .seeds = 2,
                            .batch = batch,
                            .seed = 3,
                            .pictures = pictures,
                            .with_scores = (int)t.config.num_rewards }));
    tiny_close(&t);
}

static void evaluate(Evaluation *e, uint8_t *pictures, int threads,
                     int64_t batch)
{
    evaluate_sets(e, "rewards=({name=\"brightness\";})", pictures, threads,
                  batch);
}

static void test_threads_and_batches_change_nothing(void **state)
{
    enum { BYTES = 12 * 32 * 32 * 3 };
    static uint8_t first[BYTES], other[BYTES];
    Evaluation a, b;

    (void)state;
    evaluate(&a, first, 1, 1);
    assert_int_equal(a.prompts, 6);
    assert_int_equal(a.missing, 0);
    assert_int_equal(a.all.pictures, 12);
    assert_true(isnan(a.all.strict.mean)); /* brightness has none */
    assert_memory_not_equal(first, first + BYTES / 12, BYTES / 12);
    for (int threads = 1; threads <= 2; threads++)
        for (int64_t batch = 2; batch <= 5; batch += 3) {
            memset(other, 0, sizeof other);
            evaluate(&b, other, threads, batch);
            assert_memory_equal(first, other, BYTES);
            assert_memory_equal(&a.all.reward, &b.all.reward,
                                sizeof a.all.reward);
            assert_int_equal(a.num_tags, b.num_tags);
            for (int i = 0; i < a.num_tags; i++)
                assert_memory_equal(&a.tags[i].reward, &b.tags[i].reward,
                                    sizeof a.all.reward);
        }
}

/* A picture's bytes by the flow's steps from its own noise, of the
 * configuration's number and shift. */
static void paint(uint8_t *to, TinyRun *t, int64_t prompt, uint32_t seed)
{
    const PolicyShape *shape = &t->policy->shape;
    const int64_t D = shape->elements,
                  pixels = 3 * shape->height * shape->width;
    const EvaluateConfig *c = &t->config.evaluate;
    const RngKey key = { .seed = 3,
                         .purpose = DG_RNG_EVAL_LATENTS,
                         .prompt = (uint32_t)prompt,
                         .sample = seed };
    Worker *w = &t->team->workers[0];
    float *z = malloc(sizeof *z * (size_t)D);
    float *rgb = malloc(sizeof *rgb * (size_t)pixels);
    float *condition = malloc(sizeof *condition * (size_t)shape->condition);
    const float *const now = z, *const told = condition;
    Schedule s;

    MUST(dg_sampling_encode(w, t->policy, t->prompts.item[prompt].text,
                            condition));
    MUST(dg_schedule_init_flow(&s, (int)c->steps, c->shift));
    dg_rng_normal(z, 0, D, &key);
    for (int i = 0; i < s.num_steps; i++) {
        const float time = dg_schedule_time(&s, i, shape->time);
        const PolicyBatch b = {
            .num = 1, .z = &now, .time = &time, .condition = &told
        };
        const float dt = s.sigma[i + 1] - s.sigma[i];
        const Tensor *u;

        dg_context_reset(&w->ctx);
        u = dg_policy_predict(t->policy, &w->ctx, &b);
        assert_non_null(u);
        for (int64_t d = 0; d < D; d++)
            z[d] = z[d] + dt * dg_tensor_f32(u)[d];
    }
    MUST(dg_policy_decode(t->policy, &w->ctx, z, rgb));
    for (int64_t i = 0; i < pixels; i++)
        to[i] = (uint8_t)lrintf(255 * rgb[i]);
    dg_schedule_fini(&s);
    free(z);
    free(rgb);
    free(condition);
}

static void test_pictures_follow_the_flow(void **state)
{
    enum { BYTES = 32 * 32 * 3 };
    static const char *const sets[] = { "evaluate.shift=2", "evaluate.steps=3",
                                        "evaluate.bootstrap=50", NULL };
    static uint8_t got[4][BYTES], want[BYTES];
    Evaluation unused;
    TinyRun t;

    (void)state;
    tiny_open(&t, 2, sets);
    MUST(dg_evaluate(&unused, &(EvaluateJob) { .session = &t.session,
                                               .team = t.team,
                                               .policy = t.policy,
                                               .prompts = &t.prompts,
                                               .num_prompts = 2,
                                               .seeds = 2,
                                               .batch = 3,
                                               .seed = 3,
                                               .pictures = got[0] }));
    for (int i = 0; i < 4; i++) {
        paint(want, &t, i / 2, (uint32_t)i % 2);
        assert_memory_equal(got[i], want, BYTES);
    }
    tiny_close(&t);
}

/* Tags are a partition of the prompts: each has its own pictures, and all
 * together the mean of all. */
static void test_tags_part_the_pictures(void **state)
{
    Evaluation e;
    double sum = 0;
    int64_t pictures = 0;

    (void)state;
    evaluate(&e, NULL, 2, 3);
    assert_true(e.num_tags > 1);
    for (int i = 0; i < e.num_tags; i++) {
        pictures += e.tags[i].pictures;
        sum += e.tags[i].reward.mean * (double)e.tags[i].pictures;
    }
    assert_int_equal(pictures, 12);
    assert_true(fabs(sum / 12 - e.all.reward.mean) < 1e-12);
}

/* Each of 64 tasks has its row; of more, and of longer names, a warning tells
 * how many prompts are in none. */
static void test_tasks_without_a_row_are_told(void **state)
{
    const char *const sets[] = { "rewards=({name=\"brightness\";})",
                                 "evaluate.bootstrap=50", NULL };
    enum { NUM = DG_EVALUATE_TAGS + 4 };
    char tag[NUM][80], told[4096] = "";
    Prompt item[NUM];
    PromptList list;
    Evaluation e;
    TinyRun t;
    int saved;
    FILE *log;

    (void)state;
    tiny_open(&t, 2, sets);
    for (int i = 0; i < NUM; i++) {
        item[i] = t.prompts.item[0];
        snprintf(tag[i], sizeof tag[i], "%0*d", i == 1 ? 64 : 3, i);
        item[i].tag = tag[i];
    }
    list = t.prompts;
    list.item = item;
    list.num = NUM;
    log = tmpfile();
    assert_non_null(log);
    fflush(stderr);
    saved = dup(2);
    dup2(fileno(log), 2);
    const int err = dg_evaluate(&e, &(EvaluateJob) { .session = &t.session,
                                                     .team = t.team,
                                                     .policy = t.policy,
                                                     .prompts = &list,
                                                     .rewards = t.rewards,
                                                     .num_prompts = NUM,
                                                     .seeds = 1,
                                                     .batch = 5,
                                                     .seed = 3,
                                                     .with_scores = 1 });
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(log);
    fread(told, 1, sizeof told - 1, log);
    fclose(log);
    assert_int_equal(err, DG_OK);
    assert_int_equal(e.num_tags, DG_EVALUATE_TAGS);
    assert_string_equal(e.tags[1].tag, "002");
    assert_non_null(strstr(told, "4 prompts are in no task's row"));
    tiny_close(&t);
}

/* A network that gives no numbers: no score of any picture is there. */
static void test_failed_pictures_have_no_score(void **state)
{
    static const char *const sets[] = { "evaluate.bootstrap=50", NULL };
    Evaluation e;
    TinyRun t;

    (void)state;
    tiny_open(&t, 2, sets);
    for (int64_t i = 0; i < t.policy->net.count; i++)
        t.policy->net.values[i] = NAN;
    MUST(dg_evaluate(
        &e, &(EvaluateJob) { .session = &t.session,
                             .team = t.team,
                             .policy = t.policy,
                             .prompts = &t.prompts,
                             .rewards = t.rewards,
                             .num_prompts = 3,
                             .seeds = 2,
                             .batch = 3,
                             .seed = 3,
                             .with_scores = (int)t.config.num_rewards }));
    for (int k = 0; k < e.num_rewards; k++) {
        assert_int_equal(e.rewards[k].missing, 6);
        assert_true(isnan(e.rewards[k].reward.mean));
    }
    assert_true(isnan(e.all.reward.mean));
    tiny_close(&t);
}

/* One that is kept follows its policy, paints the same in rounds, and may be
 * given up. */
static void test_a_kept_one_follows_its_policy(void **state)
{
    static const char *const sets[] = { "evaluate.bootstrap=50", NULL };
    const double never = 0, at_once = 1e-9;
    Evaluation first, again, other;
    TinyRun t;
    Eval *e;

    (void)state;
    tiny_open(&t, 2, sets);
    const int64_t last = t.policy->net.count - 1;

    MUST(dg_evaluate_open(
        &e, &(EvaluateJob) { .session = &t.session,
                             .team = t.team,
                             .policy = t.policy,
                             .prompts = &t.prompts,
                             .rewards = t.rewards,
                             .num_prompts = 3,
                             .seeds = 3,
                             .batch = 2,
                             .seed = 3,
                             .with_scores = (int)t.config.num_rewards }));
    MUST(dg_evaluate_run(&first, e, NULL));
    MUST(dg_evaluate_run(&again, e, &never));
    assert_memory_equal(&first.sum, &again.sum, sizeof first.sum);
    assert_int_equal(again.stopped, 0);
    t.policy->net.values[last] += 1;
    MUST(dg_evaluate_run(&other, e, &never));
    assert_true(other.sum.mean != first.sum.mean);
    MUST(dg_evaluate_run(&other, e, &at_once));
    assert_int_equal(other.stopped, 1);
    t.policy->net.values[last] -= 1;
    MUST(dg_evaluate_run(&again, e, &never));
    assert_memory_equal(&first.sum, &again.sum, sizeof first.sum);
    dg_evaluate_close(e);
    tiny_close(&t);
}

/* The weighted sum, by the rewards' means where none is missing. */
static void test_rewards_are_weighed(void **state)
{
    Evaluation e;

    (void)state;
    evaluate_sets(&e,
                  "rewards=({name=\"brightness\";weight=-0.7;},"
                  "{name=\"brightness\";weight=3.0;})",
                  NULL, 1, 4);
    assert_true(fabs(e.sum.mean - 2.3 * e.rewards[0].reward.mean) < 1e-7);
    assert_true(e.sum.low < e.sum.mean && e.sum.mean < e.sum.high);
}

static void test_reward_is_that_of_the_pictures(void **state)
{
    enum { PIXELS = 12 * 32 * 32 };
    static uint8_t rgb[3 * PIXELS];
    Evaluation e;
    double sum = 0;

    (void)state;
    evaluate(&e, rgb, 1, 4);
    for (int i = 0; i < PIXELS; i++)
        sum += 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] +
               0.114 * rgb[3 * i + 2];
    /* pictures are rounded to 1/255: their mean to far less */
    assert_true(fabs(e.all.reward.mean - sum / 255 / PIXELS) < 1e-4);
    assert_true(e.all.reward.low <= e.all.reward.mean &&
                e.all.reward.mean <= e.all.reward.high);
}

static void test_text_and_json_say_the_same(void **state)
{
    Evaluation e;
    char *text, *json, want[32];
    cJSON *root;

    (void)state;
    evaluate(&e, NULL, 2, 4);
    MUST(dg_evaluation_text(&text, &e));
    MUST(dg_evaluation_json(&json, &e));
    root = cJSON_Parse(json);
    assert_non_null(root);
    const cJSON *all = cJSON_GetObjectItem(root, "all");
    const cJSON *mean =
        cJSON_GetObjectItem(cJSON_GetObjectItem(all, "reward"), "mean");

    assert_true(fabs(mean->valuedouble - e.all.reward.mean) < 1e-8);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(root, "tasks")),
                     e.num_tags);
    assert_true(cJSON_IsNull(
        cJSON_GetObjectItem(cJSON_GetObjectItem(all, "strict"), "mean")));
    snprintf(want, sizeof want, "%.3f", e.all.reward.mean);
    assert_non_null(strstr(text, want));
    /* what is not there is no number, and stands below its head */
    assert_null(strstr(text, "nan"));
    const char *row = strstr(text, "\nall ") + 1;
    assert_int_equal(strstr(row, "none\n") - row,
                     strstr(text, "strict [95 %]") - text);
    cJSON_Delete(root);
    free(text);
    free(json);
}

/* A prompts file names its tasks as it likes. */
static void test_json_keeps_a_task_s_name(void **state)
{
    static const char name[] = "a \"b\"\\\t\xc3\xa4";
    Evaluation e = { .num_tags = 1 };
    char *json;
    cJSON *root;

    (void)state;
    strcpy(e.all.tag, "all");
    strcpy(e.tags[0].tag, name);
    MUST(dg_evaluation_json(&json, &e));
    root = cJSON_Parse(json);
    assert_non_null(root);
    const cJSON *task =
        cJSON_GetArrayItem(cJSON_GetObjectItem(root, "tasks"), 0);

    assert_string_equal(cJSON_GetObjectItem(task, "task")->valuestring, name);
    cJSON_Delete(root);
    free(json);
}

/* Two rewards of one sampling: each has what it has alone. */
static void test_every_reward_is_scored(void **state)
{
    static const char *const kinds[] = { "brightness", "shapes" };
    const char *two =
        "rewards=({name=\"brightness\";weight=-2.0;},{name=\"shapes\";})";
    Evaluation both, one;
    char *text, *json;
    cJSON *root;

    (void)state;
    evaluate_sets(&both, two, NULL, 2, 3);
    assert_int_equal(both.num_rewards, 2);
    for (int k = 0; k < 2; k++)
        assert_string_equal(both.rewards[k].name, kinds[k]);
    assert_memory_equal(&both.rewards[0].reward, &both.all.reward,
                        sizeof both.all.reward);
    assert_true(isnan(both.rewards[0].strict.mean));
    evaluate_sets(&one, "rewards=({name=\"shapes\";})", NULL, 1, 4);
    assert_int_equal(one.num_rewards, 1);
    assert_memory_equal(&both.rewards[1].reward, &one.all.reward,
                        sizeof one.all.reward);
    assert_memory_equal(&both.rewards[1].strict, &one.all.strict,
                        sizeof one.all.strict);
    assert_int_equal(both.rewards[1].missing, one.missing);
    assert_true(both.rewards[1].reward.mean != both.all.reward.mean);
    MUST(dg_evaluation_text(&text, &both));
    assert_non_null(strstr(text, "\nshapes "));
    assert_non_null(strstr(text, "\nweighted sum of the rewards: "));
    MUST(dg_evaluation_json(&json, &both));
    root = cJSON_Parse(json);
    assert_non_null(root);
    assert_true(
        fabs(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "sum"), "high")
                 ->valuedouble -
             both.sum.high) < 1e-8);
    for (int k = 0; k < 2; k++) {
        const cJSON *r =
            cJSON_GetArrayItem(cJSON_GetObjectItem(root, "rewards"), k);

        assert_string_equal(cJSON_GetObjectItem(r, "name")->valuestring,
                            kinds[k]);
        assert_true(
            fabs(cJSON_GetObjectItem(cJSON_GetObjectItem(r, "reward"), "low")
                     ->valuedouble -
                 both.rewards[k].reward.low) < 1e-8);
    }
    cJSON_Delete(root);
    free(text);
    free(json);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bootstrap_of_zeros_and_ones),
    cmocka_unit_test(test_bootstrap_narrows_with_the_root_of_n),
    cmocka_unit_test(test_bootstrap_of_one_value_has_no_interval),
    cmocka_unit_test(test_bootstrap_of_equal_values_is_a_point),
    cmocka_unit_test(test_bootstrap_leaves_out_nan),
    cmocka_unit_test(test_threads_and_batches_change_nothing),
    cmocka_unit_test(test_pictures_follow_the_flow),
    cmocka_unit_test(test_tags_part_the_pictures),
    cmocka_unit_test(test_tasks_without_a_row_are_told),
    cmocka_unit_test(test_failed_pictures_have_no_score),
    cmocka_unit_test(test_a_kept_one_follows_its_policy),
    cmocka_unit_test(test_rewards_are_weighed),
    cmocka_unit_test(test_reward_is_that_of_the_pictures),
    cmocka_unit_test(test_text_and_json_say_the_same),
    cmocka_unit_test(test_json_keeps_a_task_s_name),
    cmocka_unit_test(test_every_reward_is_scored),
};

TINY_MAIN(tests)
