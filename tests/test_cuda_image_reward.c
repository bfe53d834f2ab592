/* ImageReward on the GPU: transformers' scores, as on the CPU, and in the
 * memory that was planned. */
#include "image_reward_bed.h"

#include "cuda/cuda.h"
#include "cuda_test.h"

static void test_scores_as_transformers(void **state)
{
    (void)state;
    ir_check_scores(dg_backend_cuda());
}

/* Prompts of several lengths after each other, as pictures' graphs are
 * replayed: each has its own score, every time. Scores of up to some units are
 * five products of values that differ by roundings from the CPU's. */
static void test_scores_are_the_cpus(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    float want[IR_PROMPTS], got[IR_PROMPTS];
    IrBed host, device;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    ir_open(&host, dg_backend_cpu(), IR_KEYS);
    ir_open(&device, dg_backend_cuda(), IR_KEYS);
    for (int p = 0; p < IR_PROMPTS; p++) {
        want[p] = ir_score(&host, rgb, 0, p).value;
        got[p] = ir_score(&device, rgb, 0, p).value;
    }
    clip_near("score", got, want, IR_PROMPTS, 1e-5);
    for (int again = 0; again < 3; again++)
        for (int p = 0; p < IR_PROMPTS; p++)
            assert_true(ir_score(&device, rgb, 0, p).value == got[p]);
    assert_int_equal(device.ctx.arena.peak, device.plan.bytes);
    rgb[0] = 1 - rgb[0];
    assert_true(ir_score(&device, rgb, 0, 0).value != got[0]);
    free(rgb);
    ir_close(&host);
    ir_close(&device);
}

/* Launches of graphs; the emulation counts them. */
long cuda_emulation_graphs(void) __attribute__((weak));

/* The way through the vision transformer is one graph for all pictures and
 * prompts: no bit and no count differs from its being run. The last test: its
 * stream stays the thread's. */
static void test_replayed_scores_have_the_same_bits(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), run[IR_PROMPTS];
    uint64_t flops[IR_PROMPTS];
    CudaStream *stream;
    long before = 0;
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    ir_open(&b, dg_backend_cuda(), IR_KEYS);
    for (int p = 0; p < IR_PROMPTS; p++) {
        b.ctx.flops = 7;
        run[p] = ir_score(&b, rgb, 0, p).value;
        flops[p] = b.ctx.flops;
    }
    assert_int_equal(flops[IR_LONG], 7 + b.plan.score_flops);
    ir_close(&b);
    MUST(dg_cuda_stream_create(&stream, 0));
    dg_cuda_use(stream);
    MUST(dg_cuda_replays(stream));
    ir_open(&b, dg_backend_cuda(), IR_KEYS);
    if (cuda_emulation_graphs != NULL)
        before = cuda_emulation_graphs();
    for (int i = 0; i < 3 * IR_PROMPTS; i++) {
        const int p = i % IR_PROMPTS;

        b.ctx.flops = 7;
        assert_true(ir_score(&b, rgb, 0, p).value == run[p]);
        assert_int_equal(b.ctx.flops, flops[p]);
    }
    if (cuda_emulation_graphs != NULL)
        assert_int_equal(cuda_emulation_graphs() - before, 3 * IR_PROMPTS - 1);
    ir_close(&b);
    dg_cuda_stream_destroy(stream);
    free(rgb);
}

static void test_bad_picture_is_missing(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    IrBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    rgb[100] = NAN;
    ir_open(&b, dg_backend_cuda(), IR_KEYS);
    assert_int_equal(ir_score(&b, rgb, 0, 0).missing, 1);
    assert_non_null(strstr(dg_last_error()->text, "pixel 33"));
    rgb[100] = 0.5f;
    assert_int_equal(ir_score(&b, rgb, 0, 0).missing, 0);
    free(rgb);
    ir_close(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_scores_as_transformers),
    cmocka_unit_test(test_scores_are_the_cpus),
    cmocka_unit_test(test_bad_picture_is_missing),
    cmocka_unit_test(test_replayed_scores_have_the_same_bits),
};

CUDA_COMM_MAIN(tests, tiny_comm)
