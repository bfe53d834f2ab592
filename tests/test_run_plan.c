/* Plans of runs: the public sizes, and what a run then really reserves. */
#include "plan_case.h"

#include "../src/train/trainer.h"

static uint64_t flops_of(const char *key, const char *a, const char *b)
{
    const char *const sets[] = { a, b, NULL };
    Planned p;

    plan_of(&p, "configs/sizes_flux_dev.cfg", 1, sets);
    return dg_run_plan_value(&p.plan.flops, key);
}

/* Operations and parameters of the public networks as published; counted
 * without a byte of their weights. */
static void test_public_sizes_are_planned(void **state)
{
    Planned p;

    (void)state;
    plan_of(&p, "configs/sizes_flux_dev.cfg", 16, NULL);
    assert_true(dg_run_plan_value(&p.plan.parameters, "network") ==
                11901408320);
    assert_true(dg_run_plan_value(&p.plan.parameters, "text") ==
                4762310656 + 123060480);
    assert_true(dg_run_plan_value(&p.plan.memory, "moments") ==
                8 * (uint64_t)11901408320);
    assert_int_equal(p.plan.items, 12);
    about(flops_of("rollout", "pretrain.image_size=720", NULL), 37.3e12);
    about(flops_of("rollout", "pretrain.image_size=1024", NULL), 74.4e12);
    about(flops_of("rollout", "pretrain.image_size=512", NULL), 21.5e12);
    /* the encoders apart: by their number of layers */
    about(flops_of("encode", NULL, NULL) -
              flops_of("encode", "t5.num_layers=12", NULL),
          4.84e12 / 2);
    about(flops_of("encode", NULL, NULL) -
              flops_of("encode", "clip.layers=1", NULL),
          13.3e9 * 11 / 12);
    /* a step is three forward passes, four with recomputation */
    about(flops_of("update", NULL, NULL), 3 * 37.3e12 * 1.02);
    about(flops_of("update_recomputed", NULL, NULL), 4 * 37.3e12 * 1.015);
}

/* rank 128 on to_q, to_k, to_v of 57 blocks and to_out.0 of 19 */
static void test_adapters_need_little(void **state)
{
    static const char *const sets[] = { "lora.rank=128", "grpo.kl_beta=0.1",
                                        "prompts.cache=x", NULL };
    const uint64_t adapters = (3 * 57 + 19) * 2 * 128 * 3072;
    Planned p;

    (void)state;
    plan_of(&p, "configs/sizes_flux_dev.cfg", 16, sets);
    assert_true(dg_run_plan_value(&p.plan.parameters, "adapters") == adapters);
    assert_true(dg_run_plan_value(&p.plan.parameters, "trained") == adapters);
    assert_true(dg_run_plan_value(&p.plan.memory, "worker_sums") ==
                2 * 8 * adapters);
    for (int i = 0; i < p.plan.memory.num; i++) {
        /* neither a second network nor text encoders */
        assert_string_not_equal(p.plan.memory.line[i].key, "reference");
        assert_string_not_equal(p.plan.memory.line[i].key, "text");
    }
}

#define HELD_OUT "evaluate.file=configs/prompts/shapes_heldout.jsonl"

static const char clip_reward[] =
    "rewards=({name=\"brightness\";},{name=\"hpsv2\";"
    "path=\"tests/golden/clip_tiny\";"
    "tokenizer=\"tests/golden/sd_tiny/tokenizer\";})";

/* What held-out prompts take on the first rank, all of a run. */
static uint64_t held_out_bytes(const Trainer *t, const Config *c, int threads,
                               int ranks)
{
    const PolicyShape *s = &t->policy->shape;
    const EvaluateConfig *e = &c->evaluate;
    const int64_t items = (e->num_prompts * e->seeds + ranks - 1) / ranks;
    const int64_t prompts = (items + e->seeds - 1) / e->seeds;
    const int64_t batch =
        items < c->grpo.micro_batch ? items : c->grpo.micro_batch;

    if (e->every == 0)
        return 0;
    return sizeof(float) *
           (uint64_t)((prompts + (c->cfg.scale != 1)) * s->condition +
                      2 * threads * batch * s->elements);
}

/* The plan's total against what the trainer of the same configuration took. */
static void compare_with_run(const char *const *sets)
{
    Planned p;
    Trainer t = { 0 };
    uint64_t taken;
    int64_t n;

    plan_of(&p, "configs/tiny.cfg", 1, sets);
    t.session = &p.session;
    MUST(dg_rewards_init(t.rewards, &p.config));
    MUST(dg_rewards_open(t.rewards, &p.config, p.config.num_rewards,
                         &tiny_comm));
    MUST(dg_setup_prompts(&p.session, p.config.prompts.file, &t.prompts));
    MUST(dg_policy_create(&t.policy, &p.config));
    MUST(dg_trainer_reserve(&t));
    MUST(dg_trainer_read_heldout(&t));
    MUST(dg_trainer_check_heldout(&t, t.policy));
    MUST(dg_trainer_open_heldout(&t));
    n = t.learner->num;
    taken = sizeof(float) * (uint64_t)t.policy->num_values;
    if (t.reference != NULL && t.reference->owns_values)
        taken += sizeof(float) * (uint64_t)t.reference->num_values;
    taken += sizeof(float) * (uint64_t)n * (t.learner->ema != NULL ? 4 : 3);
    taken += sizeof(double) * ((uint64_t)(n + 4095) / 4096 + 1); /* the norm */
    taken += t.before != NULL ? 3 * sizeof(float) * (uint64_t)n : 0;
    taken += sizeof(float) *
             (uint64_t)dg_rewards_num_values(t.rewards, p.config.num_rewards);
    taken += t.team->bytes + t.rollout->bytes + t.rollout->aside_bytes +
             t.update->bytes + held_out_bytes(&t, &p.config, 2, 1);
    assert_true(dg_run_plan_value(&p.plan.memory, "worker_steps") ==
                2 * t.plan_bytes);
    if (dg_run_plan_value(&p.plan.memory, "total") != taken)
        fail_msg("planned %llu bytes, taken %llu",
                 (unsigned long long)dg_run_plan_value(&p.plan.memory, "total"),
                 (unsigned long long)taken);
    dg_trainer_close(&t);
}

static void test_plan_is_what_a_run_reserves(void **state)
{
    static const char *const plain[] = { NULL };
    static const char *const lora[] = { "lora.rank=4", "grpo.kl_beta=0.1",
                                        NULL };
    static const char *const many[] = { "grpo.kl_beta=0.1",
                                        "parallel.recompute=true",
                                        "parallel.exact_sum=false",
                                        "trajectory.every=0",
                                        "optim.ema_decay=0",
                                        "grpo.best_of_n=true",
                                        "grpo.keep_top=1",
                                        "grpo.keep_bottom=1",
                                        NULL };
    static const char *const guided[] = { "lora.rank=4", "grpo.kl_beta=0.1",
                                          "cfg.scale=3", NULL };
    static const char *const detached[] = { "cfg.scale=3",
                                            "cfg.grad=detach_uncond", NULL };
    static const char *const judged[] = { clip_reward, NULL };
    static const char *const looking[] = { "evaluate.every=5", HELD_OUT,
                                           "cfg.scale=3", NULL };

    (void)state;
    compare_with_run(plain);
    compare_with_run(lora);
    compare_with_run(many);
    compare_with_run(guided);
    compare_with_run(detached);
    compare_with_run(judged);
    compare_with_run(looking);
}

/* What the report's pictures take on the first rank: its prompts' conditions,
 * and latents in work and at their end. */
static uint64_t picture_bytes(const Trainer *t, const Config *c, int ranks)
{
    const PolicyShape *s = &t->policy->shape;
    const int64_t prompts = (c->report.prompts + ranks - 1) / ranks;
    const int64_t batch =
        prompts < c->grpo.micro_batch ? prompts : c->grpo.micro_batch;

    return sizeof(float) *
           (uint64_t)(prompts * s->condition + 2 * batch * s->elements);
}

/* A level's bytes as planned for GPUs of 'ranks' against what the first rank
 * of a run takes, all of it being the host's here. */
static void compare_level(const char *level, int ranks, const char *more)
{
    char shard[64];
    /* gradients leave one by one here, which on GPUs is a choice */
    const char *sets[] = { shard, "trajectory.every=0",
                           "parallel.overlap=false", more, NULL };
    const GpuPlan *g = NULL;
    Trainer t = { 0 };
    Comm many = tiny_comm;
    uint64_t floats, taken, mine;
    GpuPlans gpus = { .num = 0 };
    Planned p;

    snprintf(shard, sizeof shard, "parallel.shard=%s", level);
    plan_of(&p, "configs/tiny.cfg", ranks, sets);
    p.session.num_threads = 1;
    p.session.gpu_kernels = p.session.backend;
    MUST(dg_run_plan_gpus(&gpus, &p.session, ranks));
    for (int i = 0; i < gpus.num; i++)
        if (gpus.plan[i].level == p.config.parallel.shard &&
            !gpus.plan[i].offload && !gpus.plan[i].offload_sums)
            g = &gpus.plan[i];
    assert_non_null(g);
    many.size = ranks;
    p.session.comm = &many;
    t.session = &p.session;
    MUST(dg_rewards_init(t.rewards, &p.config));
    MUST(dg_setup_prompts(&p.session, p.config.prompts.file, &t.prompts));
    MUST(dg_policy_create(&t.policy, &p.config));
    MUST(dg_trainer_reserve(&t));
    mine = (uint64_t)t.learner->place.shard.num;
    floats = (uint64_t)t.policy->num_values + (uint64_t)t.team->num_grads +
             mine * (t.learner->ema != NULL ? 2 : 1);
    taken = sizeof(float) * floats + t.rollout->bytes - t.rollout->host_bytes +
            t.plan_bytes;
    taken += t.learner->m != NULL ? 2 * sizeof(float) * mine
                                  : 2 * (mine + (mine + 255) / 256 * 4);
    taken += t.team->bytes - t.plan_bytes -
             sizeof(float) * (uint64_t)t.team->num_grads;
    taken += sizeof(double) *
             ((uint64_t)(t.learner->place.shard.num + 4095) / 4096 + 1);
    taken += picture_bytes(&t, &p.config, ranks) +
             held_out_bytes(&t, &p.config, 1, ranks);
    if (g->gpu != taken)
        fail_msg("%s: planned %llu bytes, taken %llu", level,
                 (unsigned long long)g->gpu, (unsigned long long)taken);
    dg_trainer_close(&t);
}

static void test_levels_are_what_a_run_reserves(void **state)
{
    (void)state;
    compare_level("none", 1, NULL);
    compare_level("none", 3, NULL);
    compare_level("optimizer", 3, NULL);
    compare_level("gradients", 3, NULL);
    compare_level("gradients", 3, "parallel.passes=apart");
    compare_level("gradients", 1, "parallel.passes=together");
    compare_level("gradients", 2, "parallel.passes=together");
    compare_level("gradients", 5, "parallel.exact_sum=false");
    compare_level("optimizer", 2, "optim.ema_decay=0");
    compare_level("optimizer", 3, "optim.moments=int8");
    compare_level("optimizer", 3, "evaluate.every=1");
}

/* A rank of three, without the other two. */
static void test_fullest_rank_is_planned(void **state)
{
    Planned p;
    Comm three = tiny_comm;
    Policy *policy;
    PromptList prompts;
    Rollout *r;

    (void)state;
    plan_of(&p, "configs/tiny.cfg", 5, NULL);
    MUST(dg_setup_prompts(&p.session, p.config.prompts.file, &prompts));
    three.size = 5;
    p.session.comm = &three;
    MUST(dg_policy_create(&policy, &p.config));
    MUST(dg_rollout_create(&r, &p.session, policy, prompts.num));
    assert_int_equal(p.plan.items, r->num);
    assert_true(dg_run_plan_value(&p.plan.memory, "trajectories") == r->bytes);
    dg_rollout_destroy(r);
    dg_policy_destroy(policy);
    dg_prompts_free(&prompts);
}

/* Operations of a real rollout; the first of a guided run encodes the empty
 * prompt besides. */
static uint64_t compare_rollout(const char *const *sets, uint64_t extra,
                                int judged)
{
    Planned p;
    TinyRun t;
    uint64_t rollout, reward = 0;

    plan_of(&p, "configs/tiny.cfg", 1, sets);
    if (judged)
        reward = dg_run_plan_value(&p.plan.flops, "iteration_reward");
    assert_true(!judged || reward > 0);
    assert_true(dg_run_plan_value(&p.plan.flops, "iteration") ==
                dg_run_plan_value(&p.plan.flops, "iteration_encode") +
                    dg_run_plan_value(&p.plan.flops, "iteration_rollout") +
                    dg_run_plan_value(&p.plan.flops, "iteration_update") +
                    reward);
    tiny_open(&t, 1, sets);
    tiny_experience(&t, 0);
    rollout = dg_run_plan_value(&p.plan.flops, "iteration_rollout");
    assert_true(dg_team_take_flops(t.team) ==
                dg_run_plan_value(&p.plan.flops, "iteration_encode") + rollout +
                    reward +
                    extra * dg_run_plan_value(&p.plan.flops, "encode"));
    tiny_close(&t);
    return rollout;
}

static void test_rollout_does_what_is_planned(void **state)
{
    static const char *const plain[] = { "lora.rank=4", NULL };
    static const char *const guided[] = { "lora.rank=4", "cfg.scale=3", NULL };
    static const char *const judged[] = { clip_reward, NULL };
    static const char *const late[] = { "sampler.window_size=1",
                                        "sampler.window_start=2",
                                        "grpo.timestep_mode=window", NULL };
    static const char *const flash[] = { "lora.rank=4",
                                         "sampler.steps=9",
                                         "sampler.window_size=1",
                                         "sampler.window_start=2",
                                         "sampler.window_solver=dpmpp_2m",
                                         "grpo.timestep_mode=window",
                                         NULL };
    static const char *const apart[] = { "sampler.init_noise=per_sample",
                                         "sampler.window_start=2",
                                         "sampler.window_size=1",
                                         "grpo.timestep_mode=window", NULL };

    (void)state;
    compare_rollout(NULL, 0, 0);
    assert_true(compare_rollout(guided, 1, 0) ==
                2 * compare_rollout(plain, 0, 0));
    compare_rollout(judged, 0, 1);
    compare_rollout(late, 0, 0);
    /* 3 steps for 3 prompts and 2 for 12 samples; else 1 and 4 */
    assert_true(51 * compare_rollout(flash, 0, 0) ==
                33 * compare_rollout(plain, 0, 0));
    compare_rollout(apart, 0, 0);
}

static uint64_t work_of(const char *key, int ranks, const char *const *sets)
{
    Planned p;

    plan_of(&p, "configs/tiny.cfg", ranks, sets);
    return dg_run_plan_value(&p.plan.flops, key);
}

/* 3 prompts of 4 samples: one straddles 2 ranks, each of them two of 4 ranks or
 * 5, which encode it both. Best of n trains 3 of 4. */
static void test_work_is_that_of_all_ranks(void **state)
{
    static const char *const best[] = { "grpo.best_of_n=true",
                                        "grpo.keep_top=1", "grpo.keep_bottom=2",
                                        NULL };
    static const char *const twice[] = { "grpo.epochs=2", NULL };
    static const int encoded[] = { 0, 3, 4, 3, 6, 6 };
    /* of 2 updates, every second sample: the most that a rank has of one, and of
     * the other */
    static const int longest[] = { 0, 6 + 6, 3 + 3, 2 + 2, 2 + 2, 2 + 2 };

    (void)state;
    for (int ranks = 1; ranks <= 5; ranks++) {
        const uint64_t update = work_of("iteration_update", ranks, NULL);
        const uint64_t before = work_of("iteration", ranks, NULL) - update;
        const int fullest = (12 + ranks - 1) / ranks;

        assert_int_equal(work_of("iteration_encode", ranks, NULL),
                         (uint64_t)encoded[ranks] *
                             work_of("encode", ranks, NULL));
        about((double)work_of("iteration_rank", ranks, NULL),
              (double)before * fullest / 12 +
                  (double)update * longest[ranks] / 12);
    }
    assert_int_equal(4 * work_of("iteration_update", 1, best),
                     3 * work_of("iteration_update", 1, NULL));
    assert_int_equal(work_of("iteration_update", 1, twice),
                     2 * work_of("iteration_update", 1, NULL));
}

/* A window of 5 steps' first 4 trains 2, 2, 2 and 1 of them; before it and of its
 * first, 3 prompts have one prediction each. At 0, 1, 2, 3 it stays for 4, 3, 2
 * and 1 iterations by linear decay, and 13 iterations go on with 3 at 0. */
static void test_work_is_a_mean_where_a_window_moves(void **state)
{
    static const char *const moving[] = {
        "sampler.window_size=2",  "grpo.timestep_mode=window",
        "sampler.window_every=4", "sampler.window_decay=linear",
        "run.iterations=13",      NULL
    };
    static const char *const still[] = { "sampler.window_size=2",
                                         "grpo.timestep_mode=window", NULL };
    static const int stays[] = { 4 + 3, 3, 2, 1 };
    uint64_t sum = 0, shared = 0, trained = 0;
    Planned p;

    (void)state;
    for (uint64_t k = 0; k < 4; k++) {
        const uint64_t at = (uint64_t)stays[k];

        sum += at;
        shared += at * (3 * (k + 1) + 12 * (5 - (k + 1)));
        trained += at * 12 * (k < 3 ? 2 : 1);
    }
    assert_int_equal(sum, 13);
    const double mean =
        (double)work_of("iteration_encode", 1, moving) +
        ((double)shared * (double)work_of("rollout", 1, moving) +
         (double)trained * (double)work_of("update", 1, moving)) /
            13;
    assert_true(fabs((double)work_of("iteration_mean", 1, moving) - mean) < 1);
    assert_int_equal(work_of("iteration", 1, moving),
                     work_of("iteration", 1, still));
    assert_true(work_of("iteration_mean", 1, moving) <
                work_of("iteration", 1, moving));
    plan_of(&p, "configs/tiny.cfg", 1,
            still); /* every one the same: not told */
    for (int i = 0; i < p.plan.flops.num; i++)
        assert_string_not_equal(p.plan.flops.line[i].key, "iteration_mean");
}

static uint64_t bytes_of(const char *key, int ranks, const char *const *sets)
{
    Planned p;

    plan_of(&p, "configs/tiny.cfg", ranks, sets);
    return dg_run_plan_value(&p.plan.memory, key);
}

/* What of the networks a rank has: its range of masters and, where weights are
 * in ranges, of a reference too, for which there is no further room. */
static void test_ranges_are_planned(void **state)
{
    static const char *const half[] = { "run.dtype=bfloat16",
                                        "parallel.shard=optimizer", NULL };
    static const char *const pools[] = { "parallel.shard=parameters",
                                         "grpo.kl_beta=0.1", NULL };
    static const char *const cached[] = { "prompts.cache=x", NULL };
    Planned p;

    (void)state;
    plan_of(&p, "configs/tiny.cfg", 4, NULL);
    assert_true(bytes_of("masters", 4, half) <
                bytes_of("masters", 1, half) / 3);
    assert_true(bytes_of("reference", 4, pools) <
                bytes_of("network", 4, pools));
    assert_true(bytes_of("reference", 4, pools) <
                bytes_of("reference", 1, pools));
    /* which are trained, or kept for who does not read them */
    assert_int_equal(bytes_of("text", 4, cached),
                     4 * dg_run_plan_value(&p.plan.parameters, "text"));
}

static void test_what_only_plans_is_refused_elsewhere(void **state)
{
    static const char *const bad[][2] = {
        { "policy.codec=vae", "policy.codec = \"vae\"" },
        { "t5.vocab_size=32128", "t5.vocab_size = 32128" },
        { "clip.vocab_size=99", "clip.vocab_size = 99" },
    };
    Planned p;
    Policy *policy;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dg_config_defaults(&p.config);
        MUST(dg_config_set(&p.config, bad[i][0]));
        assert_int_equal(dg_policy_create(&policy, &p.config), DG_EINVAL);
        assert_non_null(strstr(dg_last_error()->text, bad[i][1]));
        assert_non_null(strstr(dg_last_error()->text, "plan"));
    }
}

/* Bytes of a worker's step, of ranks that have so many of 12 samples at most. */
static uint64_t step_of(int ranks, const char *batch, const char *pictures)
{
    /* a step that is trained takes less than a rollout's batch */
    const char *const sets[] = { "grpo.timestep_fraction=0.25", batch, pictures,
                                 NULL };
    Planned p;

    plan_of(&p, "configs/tiny.cfg", ranks, sets);
    return dg_run_plan_value(&p.plan.memory, "worker_steps");
}

static void test_few_samples_take_little(void **state)
{
    static const char none[] = "report.prompts=1", many[] = "report.prompts=60";
    const uint64_t of_12 = step_of(1, "grpo.micro_batch=12", none);

    (void)state;
    assert_true(step_of(1, "grpo.micro_batch=64", none) == of_12);
    for (int ranks = 2; ranks <= 5; ranks++) {
        char batch[32];

        snprintf(batch, sizeof batch, "grpo.micro_batch=%d",
                 (12 + ranks - 1) / ranks); /* uneven shares: the largest */
        assert_true(step_of(ranks, "grpo.micro_batch=12", none) < of_12);
        assert_true(step_of(ranks, "grpo.micro_batch=12", none) ==
                    step_of(1, batch, none));
    }
    /* the report's pictures are painted by the same workers */
    assert_true(step_of(6, "grpo.micro_batch=64", many) ==
                step_of(1, "grpo.micro_batch=10", many));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_public_sizes_are_planned),
    cmocka_unit_test(test_adapters_need_little),
    cmocka_unit_test(test_plan_is_what_a_run_reserves),
    cmocka_unit_test(test_levels_are_what_a_run_reserves),
    cmocka_unit_test(test_fullest_rank_is_planned),
    cmocka_unit_test(test_few_samples_take_little),
    cmocka_unit_test(test_rollout_does_what_is_planned),
    cmocka_unit_test(test_work_is_that_of_all_ranks),
    cmocka_unit_test(test_work_is_a_mean_where_a_window_moves),
    cmocka_unit_test(test_ranges_are_planned),
    cmocka_unit_test(test_what_only_plans_is_refused_elsewhere),
};

TINY_MAIN(tests)
