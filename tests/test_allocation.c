/* Promise 6: after its beginning the training loop takes no memory. Every
 * malloc, calloc, realloc and aligned_alloc called by this program's own code
 * (which is linked into this executable) is counted; a run of five iterations
 * must call them as often as one of two. Calls inside libraries are not ours. */
#include "tiny_run.h"

#include "train/trainer.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS 0 /* the sanitizer has the allocator */
#else
#define COUNTS 1

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern char __executable_start, etext;

static volatile int64_t calls; /* malloc is taken not to change it */

static void count(const void *from)
{
    if ((const char *)from >= &__executable_start &&
        (const char *)from < &etext)
        __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
}

__attribute__((noinline)) void *malloc(size_t size)
{
    count(__builtin_return_address(0));
    return __libc_malloc(size);
}

__attribute__((noinline)) void *calloc(size_t num, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_calloc(num, size);
}

__attribute__((noinline)) void *realloc(void *p, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_realloc(p, size);
}

__attribute__((noinline)) void *aligned_alloc(size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}
#endif

/* Allocations of a whole run; nothing is written between its iterations. */
static int64_t allocations(int iterations, const char *const *sets)
{
    char folder[256], assignment[300];
    TinyRun t;
    RunEnd end;
    int64_t before = 0, after = 0;

    tiny_folder(folder);
    tiny_open(&t, 2, sets);
    snprintf(assignment, sizeof assignment, "run.dir=\"%s/run\"", folder);
    MUST(dg_config_set(&t.config, assignment));
    snprintf(assignment, sizeof assignment, "run.iterations=%d", iterations);
    MUST(dg_config_set(&t.config, assignment));
    MUST(dg_config_set(&t.config, "checkpoint.every=0"));
    MUST(dg_config_set(&t.config, "trajectory.every=0"));
    MUST(dg_config_set(&t.config, "report.every=0"));
    MUST(dg_config_set(&t.config, "log.level=\"warn\""));
#if COUNTS
    before = calls;
#endif
    MUST(dg_train(&t.session, &end));
#if COUNTS
    after = calls;
#endif
    tiny_close(&t);
    tiny_drop(folder);
    return after - before;
}

static void expect_none(const char *const *sets)
{
    int64_t two, five;

    if (!COUNTS)
        skip();
    allocations(2, sets); /* whatever is kept from a first time */
    two = allocations(2, sets);
    five = allocations(5, sets);
    assert_true(two > 20);
    assert_int_equal(five - two, 0);
}

static void test_counter_counts(void **state)
{
    (void)state;
#if COUNTS
    const int64_t before = calls;
    void *volatile p = malloc(10);
    void *volatile q = calloc(3, 5);

    p = realloc(p, 1000);
    assert_int_equal(calls - before, 3);
    free(p);
    free(q);
#else
    skip();
#endif
}

static void test_loop_allocates_nothing(void **state)
{
    (void)state;
    expect_none(NULL);
}

static void test_every_option_allocates_nothing(void **state)
{
    static const char *const sets[] = { "grpo.best_of_n=true",
                                        "grpo.keep_top=1",
                                        "grpo.keep_bottom=1",
                                        "grpo.kl_beta=0.1",
                                        "grpo.micro_batch=5",
                                        "grpo.adv_agg=\"per_reward\"",
                                        "sampler.sde=\"cps\"",
                                        "sampler.window_size=2",
                                        "sampler.window_every=1",
                                        "sampler.window_solver=dpmpp_2m",
                                        "grpo.timestep_mode=\"window\"",
                                        "grpo.timestep_scope=\"group\"",
                                        "cfg.scale=2",
                                        "parallel.recompute=true",
                                        NULL };

    (void)state;
    expect_none(sets);
}

static void test_loop_without_exact_sums_allocates_nothing(void **state)
{
    static const char *const sets[] = { "parallel.exact_sum=false",
                                        "prompts.shuffle=false", NULL };

    (void)state;
    expect_none(sets);
}

static void test_rewards_with_a_network_allocate_nothing(void **state)
{
    static const char *const sets[] = {
        "rewards=({name=\"hpsv2\";path=\"tests/golden/clip_tiny\";"
        "tokenizer=\"tests/golden/sd_tiny/tokenizer\";},"
        "{name=\"aesthetic\";path=\"tests/golden/clip_tiny\";"
        "head=\"tests/golden/head_tiny.pth\";},"
        "{name=\"jpeg_size\";weight=-1.0;},"
        "{name=\"imagereward\";path=\"tests/golden/image_reward_tiny/"
        "ImageReward.pt\";tokenizer=\"tests/golden/bert_small\";},"
        "{name=\"brightness\";})",
        "log.level=\"warn\"", NULL
    };

    (void)state;
    expect_none(sets);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_counter_counts),
    cmocka_unit_test(test_loop_allocates_nothing),
    cmocka_unit_test(test_every_option_allocates_nothing),
    cmocka_unit_test(test_rewards_with_a_network_allocate_nothing),
    cmocka_unit_test(test_loop_without_exact_sums_allocates_nothing),
};

TINY_MAIN(tests)
