/* Plans of FLUX.1 on GPUs, with the bytes as published. */
#include "cuda/cudnn_room.h"
#include "plan_case.h"

/* FLUX.1-dev by hand: 4 bytes of 11 901 408 320 network values and 4 885 371
 * 136 of text, 4, 8 and 8 of the trained for a sample's gradient, a sum and
 * the moments. */
static void test_flux_on_gpus_is_planned(void **state)
{
    static const char *const sets[] = { "parallel.recompute=true", NULL };
    const uint64_t net = 11901408320;
    const GpuPlan *g, *least;
    Planned p;

    (void)state;
    plan_of(&p, "configs/sizes_flux_dev.cfg", 1, sets);
    p.plan.gpus.num = 0;
    for (int ranks = 1; ranks <= 32; ranks = ranks == 1 ? 8 : 2 * ranks)
        MUST(dg_run_plan_gpus(&p.plan.gpus, &p.session, ranks));
    assert_int_equal(p.plan.gpus.num, 6 + 3 * 12);
    about(p.plan.gpus.plan[0].sums, 8.0 * (double)net);
    about(p.plan.gpus.plan[0].moments, 8.0 * (double)net);
    /* on one of 141 GB by offloading alone; the state is then the host's:
     * sums, moments, gradient, weights */
    g = dg_gpu_plan_fits(&p.plan.gpus, 1, 141000000000, &least);
    assert_non_null(g);
    assert_true(g->offload && g->sums + g->moments == 0);
    about(g->weights, 4.0 * ((double)net + 4885371136.0));
    about(g->gradient, 4.0 * (double)net);
    about(g->host, (8 + 8 + 4 + 4) * (double)net + 4 * 4885371136.0);
    /* and at level gradients a sample's gradient is two double blocks of 36 D^2,
     * one on its way, and what is in no block; on eight as well */
    g = &p.plan.gpus.plan[5];
    assert_true(g->offload && g->level == DG_SHARD_GRADIENTS);
    about(g->gradient, 4.0 * (2 * 36.0 * 3072 * 3072 + 64.1e6));
    g = &p.plan.gpus.plan[6 + DG_SHARD_GRADIENTS];
    assert_true(g->ranks == 8 && g->level == DG_SHARD_GRADIENTS);
    about(g->gradient,
          4.0 * ((double)net / 8 + 2 * 36.0 * 3072 * 3072 + 64.1e6));
    /* on 16 without, sums by sixteenths */
    g = dg_gpu_plan_fits(&p.plan.gpus, 16, 141000000000, &least);
    assert_non_null(g);
    assert_true(!g->offload && g->level == DG_SHARD_GRADIENTS);
    about(g->moments, 8.0 * (double)net / 16);
    /* neither weights nor moments: sums on their way, trajectories */
    assert_true(g->host > 8.0 * DG_TEAM_PIECE && (double)g->host < 5e8);
    about(g->sums - 8.0 * DG_TEAM_PIECE, 8.0 * (double)net / 16);
    /* weights and activations alone are more than 80 GB: a rank's range of
     * them, with two double blocks and what is in no block, fits */
    assert_null(dg_gpu_plan_fits(&p.plan.gpus, 1, 80000000000, &least));
    assert_true(least->offload);
    g = dg_gpu_plan_fits(&p.plan.gpus, 16, 80000000000, &least);
    assert_non_null(g);
    assert_true(!g->offload && g->level == DG_SHARD_PARAMETERS);
    /* embedders and projections in no block; tables of T5 and CLIP, and the
     * first T5 layer's attention; the decoder is whole */
    about(g->gradient,
          4.0 * ((double)net / 16 + 2 * 36.0 * 3072 * 3072 + 64.1e6));
    about((double)g->weights -
              4.0 * (double)dg_run_plan_value(&p.plan.parameters, "codec"),
          4.0 * (((double)net + 4885371136.0) / 16 + 2 * 36.0 * 3072 * 3072 +
                 64.1e6 + 131.6e6 + 67.1e6 + 38.0e6));
}

/* The same with moments in 8 bits and a scale of 4 bytes for 256, weights of 2
 * bytes, conditions from a file, sums alone on the host: of which it has those
 * of all, and text encoders that the GPU has not. */
static void test_flux_in_8_bits_is_planned(void **state)
{
    static const char *const sets[] = {
        "parallel.recompute=true", "run.device=cuda", "run.dtype=bfloat16",
        "optim.moments=int8",      "prompts.cache=x", NULL
    };
    const double net = 11901408320, text = 4885371136;
    const GpuPlan *g, *least;
    Planned p;

    (void)state;
    plan_of(&p, "configs/sizes_flux_dev.cfg", 1, sets);
    p.plan.gpus.num = 0;
    MUST(dg_run_plan_gpus(&p.plan.gpus, &p.session, 1));
    g = &p.plan.gpus
             .plan[2]; /* level none: a sample's, a piece of an update's */
    assert_true(g->offload_sums && g->level == DG_SHARD_NONE);
    about(g->gradient, 4 * net + 4.0 * DG_LEARNER_PIECE);
    /* at level gradients on a GPU of 141 GB and a machine of 128 GiB */
    g = dg_gpu_plan_fits(&p.plan.gpus, 1, 141000000000, &least);
    assert_non_null(g);
    assert_true(g->offload_sums && !g->offload && g->sums == 0);
    assert_int_equal(g->level, DG_SHARD_GRADIENTS);
    about(g->moments, 2 * (1 + 4 / 256.0) * net);
    about(g->masters, 4 * net);
    about(g->gradient,
          4.0 * (2 * 36.0 * 3072 * 3072 + 64.1e6 + DG_LEARNER_PIECE));
    about((double)g->host, 8 * net + 4 * text + (double)g->rest);
    assert_true(g->host < (uint64_t)128 << 30);
}

/* On so many GPUs at that level. */
static GpuPlan planned(const char *config, const char *const *sets, int ranks,
                       ShardLevel level, int offload)
{
    Planned p;

    plan_of(&p, config, 1, sets);
    p.plan.gpus.num = 0;
    MUST(dg_run_plan_gpus(&p.plan.gpus, &p.session, ranks));
    for (int i = 0; i < p.plan.gpus.num; i++) {
        const GpuPlan *g = &p.plan.gpus.plan[i];

        assert_true(g->host_start >= g->host && g->host >= g->together);
        assert_true(dg_gpu_plan_node(g, 1) == g->host);
        assert_true(dg_gpu_plan_node_start(g, 1) == g->host_start);
        assert_true(dg_gpu_plan_node_start(g, 8) >= dg_gpu_plan_node(g, 8));
        if (g->level == level && g->offload == offload && !g->offload_sums)
            return *g;
    }
    fail();
    return (GpuPlan) { 0 };
}

static uint64_t start_of(const char *config, const char *const *sets, int ranks,
                         ShardLevel level)
{
    return planned(config, sets, ranks, level, 0).host_start;
}

/* Before anything is on a GPU its host has all of it as float32, however little
 * stays; KL's reference is made of the policy's copy, but where files want its
 * own while that is there, of which with ranges there is a rank's alone, and text
 * encoders whole. */
static void test_start_has_all_networks(void **state)
{
    static const char *const plain[] = { "run.device=cuda",
                                         "run.dtype=bfloat16", NULL };
    static const char *const kl[] = { "run.device=cuda", "run.dtype=bfloat16",
                                      "grpo.kl_beta=0.1", "trajectory.every=0",
                                      NULL };
    static const char *const kept[] = { "run.device=cuda", "run.dtype=bfloat16",
                                        "grpo.kl_beta=0.1",
                                        "trajectory.every=1", NULL };
    static const char *const lora[] = { "run.device=cuda", "lora.rank=16",
                                        "grpo.kl_beta=0.1", NULL };
    const char *const flux = "configs/sizes_flux_dev.cfg";
    const double net = 11901408320, text = 4885371136, codec = 49545475;

    (void)state;
    about((double)start_of(flux, plain, 8, DG_SHARD_GRADIENTS),
          4 * (net + text + codec));
    about((double)start_of(flux, kl, 8, DG_SHARD_GRADIENTS),
          4 * (net + text + codec));
    about((double)start_of(flux, kept, 8, DG_SHARD_GRADIENTS),
          8 * (net + text));
    about((double)start_of(flux, kept, 8, DG_SHARD_PARAMETERS),
          4 * (net / 8 + text + net + text));
    about((double)start_of(flux, lora, 8, DG_SHARD_NONE),
          4 * (net + text + codec));
}

/* Eight ranks of a node load networks once, and keep once what none changes: text
 * encoders that GPUs have rounded, and of a reference all but ranges. What AdamW
 * moves on the host is each rank's. */
static void test_a_node_has_networks_once(void **state)
{
    static const char *const plain[] = { "run.device=cuda",
                                         "run.dtype=bfloat16", NULL };
    static const char *const kept[] = { "run.device=cuda", "run.dtype=bfloat16",
                                        "grpo.kl_beta=0.1",
                                        "trajectory.every=1", NULL };
    static const char *const lora[] = { "run.device=cuda", "lora.rank=16",
                                        NULL };
    const char *const flux = "configs/sizes_flux_dev.cfg";
    const double net = 11901408320, text = 4885371136, codec = 49545475;
    GpuPlan g;

    (void)state;
    g = planned(flux, plain, 8, DG_SHARD_GRADIENTS, 0);
    about((double)g.together, 4 * text);
    about((double)dg_gpu_plan_node(&g, 8),
          4 * text + 8 * ((double)g.host - 4 * text));
    about((double)dg_gpu_plan_node_start(&g, 8),
          4 * (net + text) + 8 * (double)g.beside_start);
    assert_true(g.beside_start >= 4 * (uint64_t)codec);
    assert_true(g.beside_start < 2000000000);
    g = planned(flux, kept, 8, DG_SHARD_GRADIENTS, 0);
    about((double)g.together, 4 * (text + net));
    about((double)g.together_start, 8 * (net + text));
    g = planned(flux, kept, 8, DG_SHARD_PARAMETERS, 0);
    about((double)g.together, 4 * text);
    assert_true(g.host - g.together > 4 * (uint64_t)net / 8);
    g = planned(flux, plain, 8, DG_SHARD_GRADIENTS, 1);
    assert_true(g.beside_start > 4 * (uint64_t)net);
    g = planned(flux, lora, 8, DG_SHARD_NONE, 0);
    assert_true(g.together == 0);
    about((double)g.together_start, 4 * (net + text));
    assert_true(g.beside_start < 2000000000);
}

/* Attention and convolutions by cuDNN, or both: a stream has one room for them. */
static void test_cudnn_has_one_room(void **state)
{
    static const char *const own[] = { "run.device=cuda", "run.dtype=bfloat16",
                                       NULL, NULL, NULL };
    const char *sets[3][5];

    (void)state;
    for (int i = 0; i < 3; i++)
        memcpy(sets[i], own, sizeof own);
    sets[0][2] = sets[2][2] = "run.attention=cudnn";
    sets[1][2] = sets[2][3] = "run.convolution=cudnn";

    const GpuPlan without =
        planned("configs/tiny_unet.cfg", own, 1, DG_SHARD_NONE, 0);
    for (int i = 0; i < 3; i++) {
        const GpuPlan with =
            planned("configs/tiny_unet.cfg", sets[i], 1, DG_SHARD_NONE, 0);

        assert_true(with.gpu == without.gpu + DG_CUDNN_ROOM);
        assert_true(with.rest == without.rest + DG_CUDNN_ROOM);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_flux_on_gpus_is_planned),
    cmocka_unit_test(test_flux_in_8_bits_is_planned),
    cmocka_unit_test(test_start_has_all_networks),
    cmocka_unit_test(test_a_node_has_networks_once),
    cmocka_unit_test(test_cudnn_has_one_room),
};

TINY_MAIN(tests)
