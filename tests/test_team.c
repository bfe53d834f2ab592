/* Worker threads: every item once, failures in order, sums without order. */
#include "tiny_run.h"

#include <math.h>
#include <omp.h>
#include <time.h>

enum { NUM = 37, ITEMS = 50 };

static Team *new_team(int threads)
{
    const TeamOpts o = { .backend = dg_backend_cpu(),
                         .num_threads = threads,
                         .step_bytes = 1 << 16,
                         .scratch_bytes = 100,
                         .num_grads = NUM,
                         .exact = 1,
                         .max_items = ITEMS };
    Team *t;

    MUST(dg_team_create(&t, &o));
    return t;
}

typedef struct Work {
    int done[ITEMS];
    int fails; /* items from here on fail, 0: none; every third one */
    int nested;
    int late; /* item 12 takes long */
} Work;

static int run_one(Worker *w, int64_t i, void *user)
{
    Work *k = user;
    int64_t bad;

#pragma omp atomic
    k->done[i]++;
#pragma omp critical
    k->nested += omp_get_max_threads() > 1;
    for (int g = 0; g < NUM; g++)
        w->grads[g] = (float)(i + 1) * 1e-3f / (float)(g + 3);
    if (k->fails > 0 && i == 9) /* item 12 fails before it, */
        nanosleep(&(struct timespec) { .tv_nsec = 4000000 }, NULL);
    if (k->late && i == 12) /* or after it */
        nanosleep(&(struct timespec) { .tv_nsec = 12000000 }, NULL);
    if (k->fails > 0 && i >= k->fails && i % 3 == 0)
        return dg_fail(DG_EINVAL, "item %lld", (long long)i);
    return dg_team_add(w, &bad);
}

static void test_each_item_runs_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        Team *t = new_team(threads);
        Work k = { { 0 }, 0, 0, 0 };

        assert_int_equal(t->num, threads);
        MUST(dg_team_run(t, ITEMS, run_one, &k));
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(k.done[i], 1);
        assert_int_equal(k.nested, 0);
        MUST(dg_team_run(t, 0, run_one, &k));
        dg_team_destroy(t);
    }
    dg_team_destroy(NULL);
}

static int see_threads(Worker *w, int64_t i, void *user)
{
    int *seen = user;

    (void)i;
    seen[w->index] = omp_get_num_threads();
    return DG_OK;
}

/* OMP_DYNAMIC has no more threads than processors, and fewer where these are
 * busy: rounds, in which workers wait for each other, take all of them. */
static void test_all_threads_are_there(void **state)
{
    const int threads = omp_get_num_procs() + 2;
    int seen[threads];
    Team *t;

    (void)state;
    memset(seen, 0, sizeof seen);
    omp_set_dynamic(1);
    t = new_team(threads);
    MUST(dg_team_run(t, threads, see_threads, seen));
    for (int i = 0; i < threads; i++)
        assert_int_equal(seen[i], threads);
    dg_team_destroy(t);
}

/* Whoever fails first, the message is that of the lowest item. */
static void test_lowest_failure_is_told(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++)
        for (int round = 0; round < 20; round++) {
            Team *t = new_team(threads);
            Work k = { { 0 }, 7, 0, round % 2 };

            dg_clear_error();
            assert_int_equal(dg_team_run(t, ITEMS, run_one, &k), DG_EINVAL);
            assert_string_equal(dg_last_error()->text, "item 9");
            for (int i = 0; i <= 9; i++)
                assert_int_equal(k.done[i], 1);
            if (threads == 1)
                assert_int_equal(k.done[10], 0);
            dg_team_destroy(t);
        }
}

static void test_sums_do_not_depend_on_threads(void **state)
{
    float sums[4][NUM];

    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        Team *t = new_team(threads);
        Work k = { { 0 }, 0, 0, 0 };

        for (int round = 0; round < 2; round++) {
            ExactSum own;

            MUST(dg_team_sum(t, &tiny_comm, ITEMS, run_one, &k));
            own = dg_team_own(t);
            dg_exact_read(&own, sums[threads - 1], 1);
        }
        assert_memory_equal(sums[threads - 1], sums[0], sizeof sums[0]);
        dg_team_destroy(t);
    }
    for (int g = 0; g < NUM; g++) /* 1 + ... + 50 = 1275; float terms */
        assert_true(fabsf(sums[0][g] / (1.275f / (float)(g + 3)) - 1) < 1e-6f);
}

static int fill_workers(Worker *w, int64_t i, void *user)
{
    (void)user;
    for (size_t b = 0; b < 100; b++)
        ((unsigned char *)w->scratch)[b] = (unsigned char)(i + 1);
    w->ctx.flops += (uint64_t)(10 * (i + 1));
    return dg_tensor_new(&w->ctx, DG_F32, 1, (int64_t[]) { 1000 }) != NULL
               ? DG_OK
               : dg_context_error(&w->ctx);
}

static void test_flops_and_peaks_are_collected(void **state)
{
    Team *t = new_team(3);

    (void)state;
    MUST(dg_team_run(t, 4, fill_workers, NULL));
    assert_int_equal(dg_team_take_flops(t), 100);
    assert_int_equal(dg_team_take_flops(t), 0);
    assert_true(dg_team_peak(t) >= 4000);
    assert_true(t->bytes >= 3 * ((1 << 16) + 100 + NUM * (4 + 8)));
    dg_team_destroy(t);
}

static int too_much(Worker *w, int64_t i, void *user)
{
    (void)i;
    (void)user;
    return dg_tensor_new(&w->ctx, DG_F32, 1, (int64_t[]) { 1 << 20 }) != NULL
               ? DG_OK
               : dg_context_error(&w->ctx);
}

static void test_full_arena_is_an_error(void **state)
{
    Team *t = new_team(2);

    (void)state;
    assert_int_equal(dg_team_run(t, 4, too_much, NULL), DG_ENOMEM);
    dg_team_destroy(t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_each_item_runs_once),
    cmocka_unit_test(test_all_threads_are_there),
    cmocka_unit_test(test_lowest_failure_is_told),
    cmocka_unit_test(test_sums_do_not_depend_on_threads),
    cmocka_unit_test(test_flops_and_peaks_are_collected),
    cmocka_unit_test(test_full_arena_is_an_error),
};

TINY_MAIN(tests)
