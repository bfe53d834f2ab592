/* A learner's state on the GPU: the host has no copy of it, and checkpoints
 * hold it all the same. */
#include "tiny_run.h"

#include "cuda/cuda.h"
#include "cuda_test.h"

#include "weights/half.h"

#include <malloc.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* bytes of the host's that are taken */
static size_t taken(void)
{
    const struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* on the GPU, with a state that is not zero */
static void open_with(TinyRun *t, Learner **out, const char *const *sets)
{
    Policy *p;
    float *x;
    int64_t n;

    tiny_open(t, 1, sets);
    dg_learner_destroy(t->learner); /* the host's */
    t->learner = NULL;
    p = t->policy;
    n = dg_policy_trained(p)->count;
    MUST(dg_policy_place(p, dg_backend_cuda()));
    MUST(dg_learner_create(out, p, n, &t->config.optim, 100, NULL));
    assert_non_null((*out)->ema);
    x = malloc(sizeof *x * (size_t)n);
    for (int which = DG_STATE_M; which <= DG_STATE_EMA; which++) {
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)(i % 1009 + 2000 * which) / 7.0f;
        dg_learner_put(*out, (LearnerState)which, x, 0, n);
    }
    free(x);
}

static void open_there(TinyRun *t, Learner **out)
{
    open_with(t, out, NULL);
}

static void check_state(const Learner *l)
{
    float *x = malloc(sizeof *x * (size_t)l->num);

    for (int which = DG_STATE_M; which <= DG_STATE_EMA; which++) {
        MUST(dg_learner_get(l, (LearnerState)which, x, 0, l->num));
        for (int64_t i = 0; i < l->num; i++)
            assert_true(x[i] == (float)(i % 1009 + 2000 * which) / 7.0f);
    }
    free(x);
}

static void test_host_has_no_copy(void **state)
{
    TinyRun t;
    Learner *l, *more;
    size_t before;

    (void)state;
    open_there(&t, &l);
    before = taken();
    MUST(
        dg_learner_create(&more, t.policy, l->num, &t.config.optim, 100, NULL));
    /* gradient, moments and EMA are 16 bytes a parameter */
    assert_true(taken() - before < 3 * (size_t)l->num);
    dg_learner_destroy(more);
    check_state(l);
    dg_learner_destroy(l);
    tiny_close(&t);
}

static void test_checkpoint_brings_it_back(void **state)
{
    char folder[256], path[300];
    int64_t iteration = 0;
    int found = 0;
    TinyRun t;
    Learner *l;
    float *zero;

    (void)state;
    tiny_folder(folder);
    open_there(&t, &l);
    zero = calloc((size_t)l->num, sizeof *zero);
    MUST(dg_learner_save(l, &t.session, folder, 7));
    for (int which = DG_STATE_M; which <= DG_STATE_EMA; which++)
        dg_learner_put(l, (LearnerState)which, zero, 0, l->num);
    MUST(dg_learner_resume(l, &t.session, folder, &iteration, &found));
    assert_true(found && iteration == 7);
    check_state(l);
    /* the average is a checkpoint's second set of weights */
    snprintf(path, sizeof path, "%s/iter_000007.h5", folder);
    MUST(dg_policy_load(t.policy, path, 1));
    for (int64_t i = 0; i < l->num; i++)
        assert_true(t.policy->values[i] == (float)(i % 1009 + 4000) / 7.0f);
    free(zero);
    dg_learner_destroy(l);
    tiny_close(&t);
    tiny_drop(folder);
}

/* --- sums of gradients ------------------------------------------------------ */

/* Three updates by sums that are there, or the host's in pieces. */
static void run_updates(Learner *l, int apart)
{
    const Engine *e = dg_engine_of(apart ? NULL : dg_backend_cuda());
    float *g = malloc(sizeof *g * (size_t)l->num);
    const Backend *on = apart ? NULL : dg_backend_cuda();
    void *buffer, *g_at = g;
    LearnerStep done;
    ExactSum sum;

    MUST(dg_kernel_memory_new(&buffer, on, dg_exact_bytes(l->num, 1)));
    MUST(e->exact_init(&sum, buffer, l->num, 1, DG_EXACT_SCALE_BITS, 1));
    if (on != NULL)
        MUST(dg_kernel_memory_new(&g_at, on, sizeof *g * (size_t)l->num));
    for (int n = 0; n < 3; n++) {
        for (int64_t i = 0; i < l->num; i++)
            g[i] = (float)((i * 37 + n * 101) % 1013 - 506) * 1e-4f;
        if (on != NULL)
            dg_kernel_upload(on, g_at, g, sizeof *g * (size_t)l->num);
        e->exact_clear(&sum);
        MUST(e->exact_add(&sum, g_at, NULL));
        MUST(dg_learner_update(l, &sum, &done));
        assert_true(done.grad_norm > 1.1); /* is clipped */
    }
    if (on != NULL)
        dg_kernel_memory_free(on, g_at);
    dg_kernel_memory_free(on, buffer);
    free(g);
}

/* [4, num]: weights, moments, EMA after the updates */
static float *state_after(const char *moments, const LearnerPlace *place)
{
    const char *sets[] = { moments, NULL };
    TinyRun t;
    Learner *l, *other;
    int64_t n;
    float *x;

    open_with(&t, &l, sets);
    n = l->num;
    MUST(dg_learner_create(&other, t.policy, n, &t.config.optim, 100, place));
    run_updates(other, place != NULL);
    x = malloc(4 * sizeof *x * (size_t)n);
    MUST(dg_policy_fetch(t.policy, n));
    memcpy(x, t.policy->values, sizeof *x * (size_t)n);
    for (int which = DG_STATE_M; which <= DG_STATE_EMA; which++)
        MUST(dg_learner_get(other, (LearnerState)which, x + (1 + which) * n, 0,
                            n));
    dg_learner_destroy(other);
    dg_learner_destroy(l);
    tiny_close(&t);
    return x;
}

/* Of the whole range at once, and in pieces with a shorter last one. */
static void test_sums_may_be_the_hosts(void **state)
{
    static const char *const kinds[] = { "optim.moments=float32",
                                         "optim.moments=int8" };

    (void)state;
    for (int k = 0; k < 2; k++) {
        float *whole = state_after(kinds[k], NULL);

        for (int64_t piece = 0; piece <= 3 * 4096; piece += 3 * 4096) {
            LearnerPlace place = { .sums_apart = 1, .piece = piece };
            float *parts = state_after(kinds[k], &place);
            TinyRun t;
            int64_t n;

            tiny_open(&t, 1, NULL);
            n = dg_policy_trained(t.policy)->count;
            assert_true(n > 2 * 3 * 4096 && n % (3 * 4096) != 0);
            assert_memory_equal(whole, parts, 4 * sizeof *whole * (size_t)n);
            tiny_close(&t);
            free(parts);
        }
        free(whole);
    }
}

/* --- the average ------------------------------------------------------------- */

/* [2, num]: weights and EMA after two averages, in each other's place */
static float *averaged(const LearnerPlace *place, int swaps)
{
    TinyRun t;
    Learner *l, *other;
    float *x;
    int64_t n;

    open_there(&t, &l);
    n = l->num;
    l->optim.ema_decay = 0.8;
    l->optim.ema_ramp = 1;
    MUST(dg_learner_create(&other, t.policy, n, &l->optim, 100, place));
    other->updates = 26; /* a decay of 27 / 36 = 0.75 */
    x = malloc(2 * sizeof *x * (size_t)n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(i % 1009) / 7.0f;
    dg_learner_put(other, DG_STATE_EMA, x, 0, n);
    MUST(dg_learner_average(other));
    MUST(dg_learner_average(other));
    for (int i = 0; i < swaps; i++)
        MUST(dg_learner_swap_ema(other));
    MUST(dg_policy_fetch(t.policy, n));
    memcpy(x, t.policy->values, sizeof *x * (size_t)n);
    MUST(dg_learner_get(other, DG_STATE_EMA, x + n, 0, n));
    for (int64_t i = 0; i < n; i += 997) {
        const double first = (double)(i % 1009) / 7.0;
        const double w = x[i + (swaps % 2) * n];
        const double want = w + (first - w) * 0.75 * 0.75;

        assert_true(fabs(x[i + (1 - swaps % 2) * n] - want) <=
                    1e-6 * (fabs(first) + 1));
    }
    dg_learner_destroy(other);
    dg_learner_destroy(l);
    tiny_close(&t);
    return x;
}

static void test_the_average_may_be_the_hosts(void **state)
{
    (void)state;
    for (int swaps = 0; swaps < 3; swaps++) {
        float *there = averaged(NULL, swaps);

        for (int64_t piece = 0; piece <= 3 * 4096; piece += 3 * 4096) {
            const LearnerPlace place = { .ema_apart = 1,
                                         .host_threads = 2,
                                         .piece = piece };
            float *here = averaged(&place, swaps);
            TinyRun t;

            tiny_open(&t, 1, NULL);
            assert_memory_equal(there, here,
                                2 * sizeof *here *
                                    (size_t)dg_policy_trained(t.policy)->count);
            tiny_close(&t);
            free(here);
        }
        free(there);
    }
}

/* --- weights -------------------------------------------------------------- */

/* bytes that are there, of whole pages within these */
static size_t resident(const void *p, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)p + page - 1) / page * page;
    const size_t num = ((uintptr_t)p + bytes - from) / page;
    unsigned char *seen = calloc(num, 1);
    size_t there = 0;

    assert_int_equal(mincore((void *)from, num * page, seen), 0);
    for (size_t i = 0; i < num; i++)
        there += seen[i] & 1;
    free(seen);
    return there * page;
}

static float weight_of(int64_t i, int round)
{
    return (float)((i * 7 + round) % 1013 - 506) / 512;
}

static void put_weights(const Policy *p, int64_t num, int round)
{
    float *x = malloc(sizeof *x * (size_t)num);

    for (int64_t i = 0; i < num; i++)
        x[i] = weight_of(i, round);
    dg_policy_put(p, x, 0, num);
    free(x);
}

/* all of them, in pieces that begin anywhere */
static void check_weights(const Policy *p, int64_t num, int round)
{
    enum { PIECE = 5003 };
    float x[PIECE];

    for (int64_t at = 0; at < num; at += PIECE) {
        const int64_t n = num - at < PIECE ? num - at : PIECE;

        MUST(dg_policy_get(p, x, at, n));
        for (int64_t i = 0; i < n; i++)
            assert_true(x[i] == weight_of(at + i, round));
    }
}

/* what the networks read, of values that bfloat16 holds exactly */
static void check_stored(const Policy *p, int64_t num)
{
    uint16_t *x = malloc(sizeof *x * (size_t)num);

    MUST(p->on->download(x, p->stored, sizeof *x * (size_t)num));
    for (int64_t i = 0; i < num; i++) {
        const float want = weight_of(i, 1);
        uint16_t bits;

        dg_bfloat_narrow(&bits, &want, 1);
        assert_int_equal(x[i], bits);
    }
    free(x);
}

static void check_dropped(const char *dtype)
{
    const char *sets[] = { dtype, NULL };
    char folder[256];
    int64_t iteration = 0, net, all;
    int found = 0;
    TinyRun t;
    Learner *l;
    Policy *p;

    tiny_folder(folder);
    open_with(&t, &l, sets);
    p = t.policy;
    net = p->net.count;
    all = p->num_values;
    assert_true(resident(p->values, sizeof(float) * (size_t)net) > 0);
    dg_policy_drop(p, 1);
    assert_true(p->dropped == (p->stored != NULL ? net : all));
    assert_int_equal(resident(p->values, sizeof(float) * (size_t)p->dropped),
                     0);
    put_weights(p, all, 1);
    check_weights(p, all, 1);
    MUST(dg_learner_save(l, &t.session, folder, 7));
    put_weights(p, all, 2);
    check_weights(p, all, 2);
    MUST(dg_learner_resume(l, &t.session, folder, &iteration, &found));
    assert_true(found && iteration == 7);
    check_weights(p, all, 1);
    if (p->stored != NULL)
        check_stored(p, all);
    /* nothing of it has come back */
    assert_int_equal(resident(p->values, sizeof(float) * (size_t)p->dropped),
                     0);
    dg_learner_destroy(l);
    tiny_close(&t);
    tiny_drop(folder);
}

static void test_weights_have_no_copy(void **state)
{
    (void)state;
    check_dropped("run.dtype=float32");
    check_dropped("run.dtype=bfloat16");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_host_has_no_copy),
    cmocka_unit_test(test_checkpoint_brings_it_back),
    cmocka_unit_test(test_sums_may_be_the_hosts),
    cmocka_unit_test(test_the_average_may_be_the_hosts),
    cmocka_unit_test(test_weights_have_no_copy),
};

CUDA_COMM_MAIN(tests, tiny_comm)
