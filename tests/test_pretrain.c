/* Pretraining's inputs: what is spoilt by how much, what the target is, and
 * how often a prompt is left out. */
#include "tiny_run.h"

#include "../src/train/pretrain_setup.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How often the file of that name has been opened. */
static const char *watched;
static int num_opened;

/* In place of libc's, which HDF5 calls. */
__attribute__((no_sanitize("thread"))) int open(const char *path, int flags,
                                                ...)
{
    mode_t mode = 0;
    va_list more;

    va_start(more, flags);
    if (flags & O_CREAT)
        mode = va_arg(more, mode_t);
    va_end(more);
    num_opened += watched != NULL && strcmp(path, watched) == 0;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

enum { NUM = 600, SIZE = 4, D = 3072 };

typedef struct Bench {
    TinyRun run;
    Pretrain p;
    PretrainScratch x;
    void *memory;
    int32_t empty[64];
} Bench;

static void open_bench(Bench *b, const char *const *sets)
{
    memset(b, 0, sizeof *b);
    tiny_open(&b->run, 1, sets);
    b->p.session = &b->run.session;
    b->p.policy = b->run.policy;
    b->p.stream = (WorldStream) { .seed = 5, .side = 32 };
    b->p.batch = 1 << 19;
    dg_schedule_alpha_bar_table(b->p.alpha_bar);
    b->memory =
        malloc(dg_pretrain_scratch(&b->x, b->run.policy, SIZE, NULL, NULL));
    assert_non_null(b->memory);
    dg_pretrain_scratch(&b->x, b->run.policy, SIZE, b->memory, b->memory);
    MUST(dg_policy_tokenize(b->run.policy, "", b->empty, b->empty + 16));
}

static void close_bench(Bench *b)
{
    free(b->memory);
    tiny_close(&b->run);
}

/* Picture 'index' as entry index % SIZE; clean [D] out: its latent. Returns
 * whether its prompt is left out: the tokens are one or the other. */
static int make(Bench *b, int index, float *clean)
{
    const int at = index % SIZE;
    int32_t full[64];
    const int32_t *t5 = b->x.t5_ids + at * 16, *clip = b->x.clip_ids + at * 16;
    int dropped;

    MUST(dg_pretrain_picture(&b->p, &b->x, at, index));
    assert_ptr_equal(b->x.rows[at], b->x.z + at * D);
    dg_policy_code(b->run.policy, b->x.rgb, clean);
    MUST(dg_policy_tokenize(b->run.policy, b->x.scene.prompt, full, full + 16));
    dropped = memcmp(t5, b->empty, 64) == 0;
    assert_memory_equal(t5, dropped ? b->empty : full, 64);
    assert_memory_equal(clip, (dropped ? b->empty : full) + 16, 64);
    return dropped;
}

/* Mean and variance of num numbers are those of N(0, 1), to five standard
 * deviations. */
static void check_normal(double sum, double squares, double num)
{
    assert_true(fabs(sum / num) < 5 / sqrt(num));
    assert_true(fabs(squares / num - 1) < 5 * sqrt(2 / num));
}

/* z = sqrt(a) x + sqrt(1 - a) n at an integer time shown as t / 1000, n the
 * target: two products and a sum, each rounded, of values below 10. Times are
 * uniform: mean 499.5, standard deviation 288.7, every tenth visited. The
 * loss's weight is a^-loss_power. */
static void test_epsilon_is_the_ddpm_forward_process(void **state)
{
    static const char *const sets[] = { "policy.prediction=epsilon",
                                        "pretrain.loss_power=0.5", NULL };
    float clean[D], table[DG_TRAIN_TIMES];
    double sum = 0, squares = 0, times = 0;
    int tenth[10] = { 0 };
    Bench b;

    (void)state;
    open_bench(&b, sets);
    dg_schedule_alpha_bar_table(table);
    for (int k = 0; k < NUM; k++) {
        const float *z = b.x.z + k % SIZE * D, *n = b.x.target + k % SIZE * D;
        long t;

        assert_false(make(&b, k, clean));
        t = lrint((double)b.x.time[k % SIZE] * 1000);
        assert_in_range(t, 0, 999);
        assert_true(b.x.time[k % SIZE] == (float)t / 1000);
        assert_true(fabs(b.x.weight[k % SIZE] * sqrt((double)table[t]) - 1) <
                    0x1p-23);
        for (int i = 0; i < D; i++) {
            const double a = (double)table[t];

            assert_true(fabs(z[i] - (sqrt(a) * clean[i] + sqrt(1 - a) * n[i])) <
                        3 * 10 * 0x1p-24);
            sum += n[i];
            squares += (double)n[i] * n[i];
        }
        times += (double)t;
        tenth[t / 100]++;
    }
    check_normal(sum, squares, (double)NUM * D);
    assert_true(fabs(times / NUM - 499.5) < 5 * 288.7 / sqrt(NUM));
    for (int i = 0; i < 10; i++) /* 60 +- 7.3 each */
        assert_in_range(tenth[i], 60 - 37, 60 + 37);
    close_bench(&b);
}

/* z = (1 - sigma) x + sigma n, target n - x, sigma shown. */
static void test_velocity_is_flow_matching(void **state)
{
    float clean[D];
    double sum = 0, squares = 0;
    Bench b;

    (void)state;
    open_bench(&b, NULL);
    for (int k = 0; k < NUM / 10; k++) {
        const float *z = b.x.z + k % SIZE * D, *v = b.x.target + k % SIZE * D;
        double sigma;

        assert_false(make(&b, k, clean));
        sigma = (double)b.x.time[k % SIZE];
        assert_true(sigma > 0 && sigma < 1);
        assert_true(b.x.weight[k % SIZE] == 1);
        for (int i = 0; i < D; i++) {
            const double n = (double)v[i] + clean[i];

            assert_true(fabs(z[i] - ((1 - sigma) * clean[i] + sigma * n)) <
                        4 * 10 * 0x1p-24);
            sum += n;
            squares += n * n;
        }
    }
    check_normal(sum, squares, NUM / 10.0 * D);
    close_bench(&b);
}

/* A binomial: five standard deviations. With 0 none, with 1 all; the noise
 * and time of a picture do not depend on it. */
static void test_prompts_are_dropped_as_often_as_asked(void **state)
{
    static const char *const some[] = { "pretrain.prompt_drop=0.2", NULL };
    static const char *const all[] = { "pretrain.prompt_drop=1", NULL };
    float clean[D], z[D];
    int dropped = 0;
    Bench b;

    (void)state;
    open_bench(&b, some);
    for (int k = 0; k < NUM; k++)
        dropped += make(&b, k, clean);
    assert_true(fabs(dropped - 0.2 * NUM) < 5 * sqrt(0.2 * 0.8 * NUM));
    make(&b, 0, clean);
    memcpy(z, b.x.z, sizeof z);
    close_bench(&b);
    open_bench(&b, all);
    for (int k = NUM / 10; k >= 0; k--)
        assert_true(make(&b, k, clean));
    assert_memory_equal(z, b.x.z, sizeof z);
    close_bench(&b);
}

/* The same for prompts of other pictures; the picture stays. A few of those
 * others say the same by chance. */
static void test_prompts_are_swapped_as_often_as_asked(void **state)
{
    static const char *const sets[] = { "pretrain.prompt_swap=0.3", NULL };
    float clean[D], rgb[D], own_latent[D];
    WorldScene own;
    int swapped = 0, same = 0;
    Bench b;

    (void)state;
    open_bench(&b, sets);
    for (int k = 0; k < NUM; k++) {
        WorldScene other;

        assert_false(make(&b, k, clean));
        MUST(dg_world_stream_scene(&own, &b.p.stream, (uint64_t)k));
        MUST(dg_world_stream_scene(&other, &b.p.stream,
                                   (uint64_t)k + ((uint64_t)1 << 40)));
        dg_world_draw(rgb, &own, (int)b.run.policy->shape.width);
        dg_policy_code(b.run.policy, rgb, own_latent);
        assert_memory_equal(own_latent, clean, sizeof clean);
        swapped += strcmp(b.x.scene.prompt, own.prompt) != 0;
        same += strcmp(other.prompt, own.prompt) == 0;
        assert_true(strcmp(b.x.scene.prompt, own.prompt) == 0 ||
                    strcmp(b.x.scene.prompt, other.prompt) == 0);
    }
    assert_true(same < NUM / 20);
    assert_true(fabs(swapped - 0.3 * (NUM - same)) < 5 * sqrt(0.3 * 0.7 * NUM));
    close_bench(&b);
}

/* sum_b w_b |u_b - target_b|^2 / divisor in a loop of its own, all sums of few
 * numbers exact in float; the gradient is its derivative, a quadratic, whose
 * difference quotient is exact. A picture is two rows of lanes and a rest. */
static void test_loss_is_weighted_per_picture(void **state)
{
    enum { EACH = 42, ALL = 3 * EACH };
    const int64_t dims[3] = { 3, 6, EACH / 6 };
    float u[ALL], g[ALL], target[ALL], weight[3] = { 1, 0.5f, 4 };
    Tensor tu = { .dtype = DG_F32, .num_dims = 3, .data = u }, tg = tu;
    PretrainScratch x = { .target = target, .weight = weight };
    double want = 0, loss;
    Mirror errors;

    (void)state;
    MUST(dg_mirror_new(&errors, NULL, 3 * sizeof(double), "test"));
    memcpy(tu.dims, dims, sizeof dims);
    memcpy(tg.dims, dims, sizeof dims);
    tg.data = g;
    for (int i = 0; i < ALL; i++) {
        u[i] = (float)(i % 5);
        target[i] = (float)(i % 7) / 2;
        want += (double)weight[i / EACH] * (u[i] - target[i]) *
                (u[i] - target[i]) / 32;
    }
    MUST(dg_pretrain_loss(&loss, &errors, &tu, &tg, &x, 32));
    assert_true(loss == want);
    for (int i = 0; i < ALL; i++) {
        const float g_at = g[i], u_at = u[i];
        double up, down;

        u[i] = u_at + 0.25f;
        MUST(dg_pretrain_loss(&up, &errors, &tu, &tg, &x, 32));
        u[i] = u_at - 0.25f;
        MUST(dg_pretrain_loss(&down, &errors, &tu, &tg, &x, 32));
        u[i] = u_at;
        assert_true((up - down) / 0.5 == (double)g_at);
        MUST(dg_pretrain_loss(&loss, &errors, &tu, &tg, &x, 32));
    }
    dg_mirror_free(&errors);
}

/* Poor pictures are as frequent as asked, and are the scene's own, faded
 * towards grey; noise and time do not depend on it. */
static void test_pictures_fade_as_often_as_asked(void **state)
{
    static const char *const sets[] = { "pretrain.faded=0.3", NULL };
    float clean[D], rgb[D], own[D], grey[D];
    WorldScene scene;
    int faded = 0;
    Bench b;

    (void)state;
    open_bench(&b, sets);
    for (int i = 0; i < D; i++)
        rgb[i] = 128.0f / 255;
    dg_policy_code(b.run.policy, rgb, grey);
    for (int k = 0; k < NUM; k++) {
        double across = 0, square = 0, left = 0, ratio;

        make(&b, k, clean);
        MUST(dg_world_stream_scene(&scene, &b.p.stream, (uint64_t)k));
        dg_world_draw(rgb, &scene, (int)b.run.policy->shape.width);
        dg_policy_code(b.run.policy, rgb, own);
        for (int i = 0; i < D; i++) {
            across += ((double)own[i] - grey[i]) * ((double)clean[i] - grey[i]);
            square += ((double)own[i] - grey[i]) * ((double)own[i] - grey[i]);
        }
        ratio = across / square;
        for (int i = 0; i < D; i++)
            left +=
                fabs(clean[i] - grey[i] - ratio * ((double)own[i] - grey[i]));
        assert_true(left / D < 1e-5); /* its own picture, times a number */
        faded += ratio < 0.999;
        assert_true(ratio > 0.149 && ratio < 1.001);
        assert_true(ratio < 0.501 || ratio > 0.999);
    }
    assert_true(fabs(faded - 0.3 * NUM) < 5 * sqrt(0.3 * 0.7 * NUM));
    close_bench(&b);
}

/* Blurred pictures are as frequent as asked; a picture that is not is its own,
 * bit for bit, one that is has less contrast than its own but as much light,
 * within what the rim, which is repeated, may add. */
static void test_pictures_blur_as_often_as_asked(void **state)
{
    static const char *const sets[] = { "pretrain.blurred=0.3", NULL };
    float clean[D], rgb[D], own[D];
    WorldScene scene;
    int blurred = 0;
    Bench b;

    (void)state;
    open_bench(&b, sets);
    for (int k = 0; k < NUM; k++) {
        double light = 0, own_light = 0, square = 0, own_square = 0;

        make(&b, k, clean);
        MUST(dg_world_stream_scene(&scene, &b.p.stream, (uint64_t)k));
        dg_world_draw(rgb, &scene, (int)b.run.policy->shape.width);
        dg_policy_code(b.run.policy, rgb, own);
        if (memcmp(own, clean, sizeof own) == 0)
            continue;
        blurred++;
        for (int i = 0; i < D; i++) {
            light += (double)clean[i];
            own_light += (double)own[i];
            square += (double)clean[i] * (double)clean[i];
            own_square += (double)own[i] * (double)own[i];
        }
        assert_true(square < 0.95 * own_square);
        assert_true(fabs(light - own_light) < 0.02 * D);
    }
    assert_true(fabs(blurred - 0.3 * NUM) < 5 * sqrt(0.3 * 0.7 * NUM));
    close_bench(&b);
}

/* One entry's prediction under the prompt, by way of its condition: another
 * path than the distillation's, which runs the encoders in the same pass. */
static void predict_one(float *out, Bench *b, int at, const char *prompt)
{
    const Policy *p = b->run.policy;
    Context *ctx = &b->run.team->workers[0].ctx;
    int32_t ids[64];
    const PromptTokens tokens = { ids, ids + 16 };
    float *condition = malloc(sizeof *condition * (size_t)p->shape.condition);
    const float *z = b->x.z + at * D, *c = condition;
    Tensor *u;

    assert_non_null(condition);
    MUST(dg_policy_tokenize(p, prompt, ids, ids + 16));
    dg_context_reset(ctx);
    MUST(dg_policy_encode(p, ctx, &tokens, condition));
    dg_context_reset(ctx);
    u = dg_policy_predict(
        p, ctx,
        &(PolicyBatch) {
            .num = 1, .z = &z, .time = b->x.time + at, .condition = &c });
    assert_non_null(u);
    memcpy(out, u->data, sizeof *out * D);
    free(condition);
}

/* u + w (c - u) of the teacher's two predictions, each within 1e-5 of the
 * other path's where values are of the order of 1; with another w, another
 * target, and an empty prompt's is u whatever w. */
static void test_distilled_targets_are_guided(void **state)
{
    static const char *const sets[] = { "pretrain.distill_cfg=2.5",
                                        "policy.weights=x.h5",
                                        "pretrain.prompt_drop=0.3", NULL };
    static float u[D], c[D], clean[D];
    char prompt[SIZE][DG_WORLD_MAX_PROMPT];
    double moved = 0;
    int dropped[SIZE], num = 0;
    Bench b;

    (void)state;
    open_bench(&b, sets);
    b.p.teacher = b.run.policy;
    for (int k = 0; k < SIZE; k++) {
        dropped[k] = make(&b, k, clean);
        num += dropped[k];
        strcpy(prompt[k], dropped[k] ? "" : b.x.scene.prompt);
    }
    assert_in_range(num, 1, SIZE - 1); /* both kinds */
    MUST(dg_pretrain_distill(&b.p, &b.run.team->workers[0].ctx, &b.x, SIZE));
    for (int k = 0; k < SIZE; k++) {
        const float *target = b.x.target + k * D;

        predict_one(u, &b, k, "");
        predict_one(c, &b, k, prompt[k]);
        for (int i = 0; i < D; i++) {
            const double want = u[i] + 2.5 * ((double)c[i] - u[i]);

            assert_true(fabs(target[i] - want) < 1e-5 * (1 + fabs(want)));
            moved += fabs((double)c[i] - u[i]);
        }
    }
    assert_true(moved / D > 1e-3); /* the prompt changes something */
    close_bench(&b);
}

/* One reading is for the policy and its teacher. */
static void test_a_teacher_is_not_read_again(void **state)
{
    TinyRun of, run;
    Pretrain t;
    char folder[256], path[300];
    int once;

    (void)state;
    tiny_folder(folder);
    tiny_open(&of, 1, NULL);
    MUST(dg_learner_save(of.learner, &of.session, folder, 1));
    tiny_open(&run, 1, NULL);
    snprintf(path, sizeof path, "policy.weights=\"%s/iter_000001.h5\"", folder);
    MUST(dg_config_set(&run.config, path));
    watched = run.config.policy.weights;
    num_opened = 0;
    MUST(dg_pretrain_build(&t, &run.session));
    once = num_opened;
    assert_true(once > 0 && t.teacher == NULL);
    dg_pretrain_close(&t);
    MUST(dg_config_set(&run.config, "pretrain.distill_cfg=2"));
    num_opened = 0;
    MUST(dg_pretrain_build(&t, &run.session));
    assert_int_equal(num_opened, once);
    watched = NULL;
    assert_memory_equal(t.teacher->values, of.policy->values,
                        sizeof(float) * (size_t)of.policy->num_values);
    assert_memory_equal(t.policy->values, t.teacher->values,
                        sizeof(float) * (size_t)of.policy->num_values);
    dg_pretrain_close(&t);
    tiny_close(&run);
    tiny_close(&of);
    tiny_drop(folder);
}

/* Prompts that are evaluated on are shown in no picture, by no other words. */
static void test_heldout_prompts_are_never_shown(void **state)
{
    static const char *const sets[] = { "pretrain.batch=2",
                                        "pretrain.item_size=1", NULL };
    PromptList heldout;
    uint64_t *meanings;
    size_t num;
    int all = 0;
    TinyRun run;
    WorldScene s;
    Pretrain t;

    (void)state;
    tiny_open(&run, 1, sets);
    MUST(dg_pretrain_build(&t, &run.session));
    MUST(dg_prompts_read(&heldout, run.config.prompts.eval_file));
    MUST(dg_prompts_meanings(&meanings, &num, &heldout));
    assert_true(num > 100 && t.heldout.num == heldout.num);
    for (uint64_t i = 0; i < 3000; i++) {
        WorldStream every = t.stream;

        for (int k = 0; k < 2; k++) {
            uint64_t meaning;
            int shown = 0;

            MUST(dg_world_stream_scene(&s, &every, i));
            meaning = dg_world_meaning(&s.meta);
            for (size_t j = 0; j < num; j++)
                shown |= meanings[j] == meaning;
            assert_true(!shown || k == 1);
            all += shown;
            every.num_excluded = 0; /* where they would be */
        }
    }
    assert_true(all > 100);
    free(meanings);
    dg_prompts_free(&heldout);
    dg_pretrain_close(&t);
    tiny_close(&run);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_heldout_prompts_are_never_shown),
    cmocka_unit_test(test_a_teacher_is_not_read_again),
    cmocka_unit_test(test_distilled_targets_are_guided),
    cmocka_unit_test(test_pictures_fade_as_often_as_asked),
    cmocka_unit_test(test_pictures_blur_as_often_as_asked),
    cmocka_unit_test(test_loss_is_weighted_per_picture),
    cmocka_unit_test(test_epsilon_is_the_ddpm_forward_process),
    cmocka_unit_test(test_velocity_is_flow_matching),
    cmocka_unit_test(test_prompts_are_dropped_as_often_as_asked),
    cmocka_unit_test(test_prompts_are_swapped_as_often_as_asked),
};

TINY_MAIN(tests)
