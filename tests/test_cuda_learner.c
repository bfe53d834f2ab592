/* A learner's state on the GPU: the host has no copy of it, and checkpoints
 * hold it all the same. */
#include "tiny_run.h"

#include "cuda/cuda.h"
#include "cuda_test.h"

#include <malloc.h>

/* bytes of the host's that are taken */
static size_t taken(void)
{
    const struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* on the GPU, with a state that is not zero */
static void open_there(TinyRun *t, Learner **out)
{
    Policy *p;
    float *x;
    int64_t n;

    tiny_open(t, 1, NULL);
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_host_has_no_copy),
    cmocka_unit_test(test_checkpoint_brings_it_back),
};

CUDA_COMM_MAIN(tests, tiny_comm)
