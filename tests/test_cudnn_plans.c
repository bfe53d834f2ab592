/*
 * The attention that cuda/cudnn_attention.cu describes, asked of the real cuDNN of
 * this machine for a GPU that is only described: that the library takes the
 * descriptors, has an engine for each of the sizes that the policies have, what
 * its workspace is, and that no kernel that it compiles for backward adds
 * floats in whatever order blocks come. No GPU, no driver. Left out where there
 * is no cuDNN.
 */
#include "cudnn_bed.h"

#if DG_CUDNN
static const CudnnShape shapes[] = {
    { 6, 24, 128, 4608, 4608 }, /* FLUX.1 at 1024 x 1024 */
    { 4, 8, 40, 4096, 4096 },   /* Stable Diffusion 1.x at 512 x 512, */
    { 8, 8, 80, 1024, 77 },     /* and its words, */
    { 8, 8, 160, 64, 64 },      /* where its map is smallest */
    { 4, 4, 16, 68, 68 },       /* the demo's */
};
static const CudnnShape whole = { 24, 24, 128, 4608, 4608 };

static void test_library_takes_the_descriptors(void **state)
{
    (void)state;
    for (size_t i = 0; describe(h100) && i < sizeof shapes / sizeof *shapes;
         i++) {
        CudnnShape all = shapes[i];
        struct CudnnPlan *forward, *backward;
        char why[300];

        all.heads = all.all_heads;
        dg_cudnn_forward(&forward, library, &all, 1 << 20, why, sizeof why);
        if (forward == NULL)
            fail_msg("forward, d %d: %s", (int)all.d, why);
        dg_cudnn_backward(&backward, library, &shapes[i], room, why,
                          sizeof why);
        if (backward == NULL)
            fail_msg("backward, d %d: %s", (int)all.d, why);
        print_message(
            "cuDNN %s, %d x %d, %d queries, %d keys: engine %d, %d "
            "bytes; backward engine %d, %.1f MB for %d heads\n",
            dg_cudnn_version(library), (int)all.heads, (int)all.d, (int)all.sq,
            (int)all.sk, (int)dg_cudnn_engine(forward),
            (int)dg_cudnn_workspace(forward), (int)dg_cudnn_engine(backward),
            (double)dg_cudnn_workspace(backward) * 1e-6, (int)shapes[i].heads);
        check_code(backward);
        dg_cudnn_plan_free(forward);
        dg_cudnn_plan_free(backward);
    }
}

/* dS of more heads than there is room for */
static void test_workspace_is_a_limit(void **state)
{
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(h100))
        return;
    dg_cudnn_backward(&p, library, &whole, room, why, sizeof why);
    assert_null(p);
    assert_non_null(strstr(why, "its workspace of"));
}

/* The eldest that CUDA_ARCH names. */
static void test_older_devices_have_it(void **state)
{
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(a100))
        return;
    dg_cudnn_forward(&p, library, &whole, 1 << 20, why, sizeof why);
    if (p == NULL)
        fail_msg("%s", why);
    dg_cudnn_plan_free(p);
    dg_cudnn_backward(&p, library, &shapes[0], room, why, sizeof why);
    if (p == NULL)
        fail_msg("%s", why);
    check_code(p);
    dg_cudnn_plan_free(p);
}

/* A Blackwell has backward in two kernels, for all heads at once. */
static void test_two_kernels_want_no_workspace(void **state)
{
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(b200))
        return;
    dg_cudnn_backward(&p, library, &whole, room, why, sizeof why);
    if (p == NULL)
        fail_msg("%s", why);
    assert_int_equal(dg_cudnn_workspace(p), 0);
    assert_int_equal(count_plan(p).kernels, 2);
    check_code(p);
    dg_cudnn_plan_free(p);
}

static void test_what_it_has_not_is_told(void **state)
{
    const CudnnShape odd = { 2, 2, 12, 64, 64 };
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(h100))
        return;
    dg_cudnn_forward(&p, library, &odd, room, why, sizeof why);
    assert_null(p);
    print_message("heads of 12: %s\n", why);
    assert_true(strlen(why) > 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_library_takes_the_descriptors),
    cmocka_unit_test(test_workspace_is_a_limit),
    cmocka_unit_test(test_older_devices_have_it),
    cmocka_unit_test(test_two_kernels_want_no_workspace),
    cmocka_unit_test(test_what_it_has_not_is_told),
};

int main(int argc, char **argv)
{
    (void)argc;
    open_library(argv[0]);

    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    dg_cudnn_close(library);
    return failed;
}
#else
static void test_library_takes_the_descriptors(void **state)
{
    (void)state;
    print_message("left out: cuDNN's header was not found (CUDNN_HOME)\n");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library_takes_the_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
