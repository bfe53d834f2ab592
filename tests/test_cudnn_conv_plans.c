/*
 * The convolutions that cuda/cudnn_conv.cu describes, asked of the real cuDNN of
 * this machine for GPUs that are only described: that it has a plan for each of
 * Stable Diffusion's U-Net and its decoder, what its workspace is, and that no
 * kernel that it compiles adds floats in whatever order blocks come. Kernels that
 * are compiled with it are not seen. No GPU, no driver. Left out where there is no
 * cuDNN.
 */
#include "cudnn_bed.h"

#if DG_CUDNN
/* A side of the map as it is seen at 512 x 512, and channels; 3 x 3 taps. */
typedef struct Row {
    int64_t side, in, out, stride;
} Row;

static const Row unet[] = {
    { 64, 4, 320, 1 },     { 64, 320, 320, 1 },   { 64, 640, 320, 1 },
    { 64, 960, 320, 1 },   { 64, 640, 640, 1 },   { 64, 320, 4, 1 },
    { 32, 320, 640, 1 },   { 32, 640, 640, 1 },   { 32, 960, 640, 1 },
    { 32, 1280, 640, 1 },  { 32, 1920, 640, 1 },  { 32, 1280, 1280, 1 },
    { 16, 640, 1280, 1 },  { 16, 1280, 1280, 1 }, { 16, 1920, 1280, 1 },
    { 16, 2560, 1280, 1 }, { 8, 1280, 1280, 1 },  { 8, 2560, 1280, 1 },
    { 64, 320, 320, 2 },   { 32, 640, 640, 2 },   { 16, 1280, 1280, 2 },
};

/* forward only, as far as 512 channels' maps go; of FLUX.1 the second */
static const Row decoder[] = {
    { 64, 4, 512, 1 },    { 64, 16, 512, 1 },   { 64, 512, 512, 1 },
    { 128, 512, 512, 1 }, { 256, 512, 512, 1 }, { 256, 512, 256, 1 },
    { 256, 256, 256, 1 }, { 512, 256, 256, 1 }, { 512, 256, 128, 1 },
    { 512, 128, 128, 1 }, { 512, 128, 3, 1 },
};
enum {
    UNET = sizeof unet / sizeof *unet,
    DECODER = sizeof decoder / sizeof *decoder
};

static CudnnConv conv_of(const Row *r, int64_t times)
{
    const int64_t side = times * r->side;

    return (
        CudnnConv) { side,   side, r->in, side / r->stride, side / r->stride,
                     r->out, 3,    3,     r->stride,        1,
                     1 };
}

static struct CudnnPlan *planned(const CudnnConv *c, CudnnWay way, size_t most)
{
    struct CudnnPlan *p;
    char why[300];

    dg_cudnn_conv(&p, library, c, way, most, why, sizeof why);
    if (p == NULL)
        fail_msg("%d x %d x %d to %d, stride %d, way %d: %s", (int)c->h,
                 (int)c->w, (int)c->in, (int)c->out, (int)c->stride, (int)way,
                 why);
    return p;
}

/* Of the ways that the library has compiled kernels for all along. */
static void test_maps_have_plans(void **state)
{
    static const char *const devices[] = { a100, h100, b200 };
    static const CudnnWay ways[] = { DG_CUDNN_BIASED, DG_CUDNN_BARE,
                                     DG_CUDNN_DX };
    size_t most = 0;
    int num = 0;

    (void)state;
    for (int d = 0; d < 3 && describe(devices[d]); d++)
        for (int i = 0; i < UNET * 2 + DECODER * 2; i++) {
            const int trains = i < UNET * 2;
            const Row *r = trains ? &unet[i / 2] : &decoder[i / 2 - UNET];
            const CudnnConv c = conv_of(r, 1 + i % 2);

            for (int way = 0; way < (trains ? 3 : 1); way++) {
                struct CudnnPlan *p = planned(&c, ways[way], room);

                if (dg_cudnn_workspace(p) > most)
                    most = dg_cudnn_workspace(p);
                num++;
                dg_cudnn_plan_free(p);
            }
        }
    if (num > 0)
        print_message("cuDNN %s: %d plans, %.1f MB of workspace at most\n",
                      dg_cudnn_version(library), num, (double)most * 1e-6);
}

/* Gradients as float32: the library compiles a kernel, of which all are seen. A
 * second each, so that a test has a few of them; all have been asked once. */
static void test_gradients_as_float32_have_plans(void **state)
{
    static const char *const devices[] = { a100, h100, b200 };
    static const int some[] = { 0, 17, 18 };

    (void)state;
    for (int d = 0; d < 3 && describe(devices[d]); d++)
        for (int i = 0; i < 3; i++) {
            const CudnnConv c = conv_of(&unet[some[i]], 1);
            struct CudnnPlan *p = planned(&c, DG_CUDNN_DW_SUMS, room);

            check_code(p);
            dg_cudnn_plan_free(p);
            if (i != d) /* a third of them */
                continue;
            p = planned(&c, DG_CUDNN_DX_SUMS, room);
            check_code(p);
            dg_cudnn_plan_free(p);
        }
}

/* No engine that is taken splits a sum: its choices stand in the plan's text. */
static void test_no_sum_is_split(void **state)
{
    static const char *const devices[] = { a100, h100, b200 };

    (void)state;
    for (int d = 0; d < 3 && describe(devices[d]); d++)
        for (int i = 0; i < UNET; i++) {
            const CudnnConv c = conv_of(&unet[i], 1);
            struct CudnnPlan *p = planned(&c, DG_CUDNN_DX, room);
            char *text = dg_cudnn_text(p);
            cJSON *all = cJSON_Parse(text);
            const cJSON *knob, *engine = cJSON_GetObjectItem(all, "engine");

            assert_non_null(engine);
            cJSON_ArrayForEach(
                knob,
                cJSON_GetObjectItem(
                    engine,
                    "knobChoices")) if (strstr(knob->string, "SPLIT") != NULL &&
                                        strstr(knob->string, "BUF") == NULL)
                assert_true(knob->valuedouble <= 1);
            cJSON_Delete(all);
            free(text);
            dg_cudnn_plan_free(p);
        }
}

static void test_what_it_has_not_is_told(void **state)
{
    const Row odd = { 512, 128, 3, 1 };
    const CudnnConv c = conv_of(&odd, 1);
    struct CudnnPlan *p;
    char why[300];

    (void)state;
    if (!describe(h100))
        return;
    dg_cudnn_conv(&p, library, &c, DG_CUDNN_DW_SUMS, room, why, sizeof why);
    assert_null(p);
    assert_non_null(strstr(why, "it has no engine"));
    /* without its workspace, by an engine that wants none */
    p = planned(&c, DG_CUDNN_BIASED, 1 << 20);
    assert_true(dg_cudnn_workspace(p) <= 1 << 20);
    dg_cudnn_plan_free(p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_maps_have_plans),
    cmocka_unit_test(test_gradients_as_float32_have_plans),
    cmocka_unit_test(test_no_sum_is_split),
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
static void test_maps_have_plans(void **state)
{
    (void)state;
    print_message("left out: cuDNN's header was not found (CUDNN_HOME)\n");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maps_have_plans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
