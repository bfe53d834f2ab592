/* Weights that no rank has whole: predictions and gradients against a rank
 * that has them all, with unequal work, failures and updates. */
#include "pool_lab.h"

#include "../src/train/trainer.h"
#include "cpu/cpu.h"
#include "train/run_plan.h"
#include "train/setup.h"

static void test_weights_are_lent_to_unequal_ranks(void **state)
{
    static const char *const configs[] = { "configs/tiny.cfg",
                                           "configs/tiny_unet.cfg" };
    Lab l;

    (void)state;
    for (int k = 0; k < 2; k++) {
        open_lab(&l, dg_backend_cpu(), configs[k], 0, NULL);
        compare_predictions(&l, comm.rank); /* the first has none */
        compare_predictions(&l, comm.size - 1 - comm.rank);
        compare_predictions(&l, 2);
        close_lab(&l);
    }
    VERDICT();
}

/* One that ends early is waited for by nobody, and its message is all's. */
static void test_a_failure_is_everybodys(void **state)
{
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cpu(), "configs/tiny.cfg", 0, NULL);
    l.bad_rank = comm.size - 1;
    EXPECT(dg_team_run(l.team, 2 + comm.rank % 2, predict_one, &l) ==
           DG_EINVAL);
    EXPECT(dg_last_error()->rank == l.bad_rank || comm.size == 1);
    EXPECT(strstr(dg_last_error()->text, "an item of rank") != NULL);
    l.bad_rank = -1;
    compare_predictions(&l, 2);
    close_lab(&l);
    VERDICT();
}

static void test_gradients_reach_their_owners(void **state)
{
    static const char *const configs[] = { "configs/tiny.cfg",
                                           "configs/tiny_unet.cfg" };
    Lab l;

    (void)state;
    for (int k = 0; k < 4; k++) {
        open_lab(&l, dg_backend_cpu(), configs[k / 2], k % 2, NULL);
        compare_sums(&l, 2);
        compare_sums(&l, comm.rank); /* the first has none */
        compare_sums(&l, comm.rank == 0 ? 3 : 0);
        close_lab(&l);
    }
    VERDICT();
}

static const char *const configs[] = { "configs/tiny.cfg",
                                       "configs/tiny_unet.cfg" };

/* Of weights that all ranks have, with and without other ranks, text encoders'
 * too: a block's gradient is there for a while alone. */
static void test_gradients_alone_reach_their_owners(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        Lab l = { .backend = dg_backend_cpu(),
                  .level = DG_SHARD_GRADIENTS,
                  .recompute = k % 2,
                  .text = k % 2 };

        open_lab_of(&l, configs[k / 2], NULL);
        EXPECT(!dg_pool_lends(l.pool) && dg_pool_trains(l.pool));
        compare_sums(&l, 2);
        /* what is replayed is not lent */
        EXPECT(l.team->workers[0].ctx.lender == NULL);
        compare_predictions(&l, comm.rank); /* nobody is met */
        compare_sums(&l, comm.rank);        /* the first has none */
        compare_sums(&l, comm.rank == 0 ? 3 : 0);
        close_lab(&l);
    }
    VERDICT();
}

/* By several workers of a rank, each with room for a block of its own: items of
 * unequal lengths, more and fewer than workers, none, and failures. */
static void test_gradients_alone_leave_several_workers(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        Lab l = { .backend = dg_backend_cpu(),
                  .level = DG_SHARD_GRADIENTS,
                  .threads = 2 + k / 2,
                  .recompute = k % 2,
                  .text = k % 2 };

        open_lab_of(&l, configs[k / 2], NULL);
        compare_sums(&l, 5);
        compare_sums(&l, comm.rank); /* the first has none */
        compare_sums(&l, comm.rank == 0 ? 4 : 1);
        compare_sums(&l, comm.rank == 0 ? 0 : 3);
        l.idles = 1; /* one gives its rest while others give blocks */
        compare_sums(&l, 5);
        for (int i = 0; i < l.team->num; i++) /* what is replayed is not lent */
            EXPECT(l.team->workers[i].ctx.lender == NULL);
        close_lab(&l);
    }
    VERDICT();
}

static void test_failures_of_several_workers_are_all_ranks(void **state)
{
    Lab l = { .backend = dg_backend_cpu(),
              .level = DG_SHARD_GRADIENTS,
              .threads = 3 };

    (void)state;
    check_failures(&l, "configs/tiny.cfg");
    VERDICT();
}

/* Elements of parameters whose names begin so, each filled up to 16. */
static int64_t named(const ParamSet *s, const char *start)
{
    int64_t num = 0;

    for (int i = 0; i < s->num_params; i++)
        if (strncmp(s->params[i]->name, start, strlen(start)) == 0)
            num += (dg_tensor_count(&s->params[i]->value) + 15) / 16 * 16;
    return num;
}

/* One block's, and what is in none: neither a whole gradient nor, on one rank,
 * a place for sums on their way. */
static void test_gradients_alone_have_a_block_of_room(void **state)
{
    Lab l = { .backend = dg_backend_cpu(), .level = DG_SHARD_GRADIENTS };
    const ParamSet *net;
    int64_t room, num;

    (void)state;
    open_lab_of(&l, "configs/tiny.cfg", NULL);
    net = &l.held->net;
    room = named(net, "transformer.transformer_blocks.0.");
    room += named(net, "transformer.") - room -
            named(net, "transformer.single_transformer_blocks.");
    num = l.team->shard.num + (comm.size > 1 ? 3000 : 0);
    EXPECT(room < net->count);
    EXPECT(l.team->bytes ==
           ROOM + sizeof(float) * (size_t)room + sizeof(int64_t) * (size_t)num);
    EXPECT((l.team->bucket_buffer != NULL) == (comm.size > 1));
    close_lab(&l);
    VERDICT();
}

static void test_gradients_alone_fail_for_all(void **state)
{
    Lab l = { .backend = dg_backend_cpu(), .level = DG_SHARD_GRADIENTS };

    (void)state;
    check_failures(&l, "configs/tiny.cfg");
    VERDICT();
}

static void test_weights_follow_their_owners(void **state)
{
    Lab l;
    Shard s;

    (void)state;
    open_lab(&l, dg_backend_cpu(), "configs/tiny.cfg", 0, NULL);
    dg_shard_init(&s, &comm, DG_SHARD_PARAMETERS, l.held->net.count,
                  DG_GRAD_NORM_CHUNK);
    compare_sums(&l, 1); /* which ends with the block that is next */
    for (int64_t i = 0; i < l.whole->net.count; i++)
        l.whole->net.values[i] *= 0.75f;
    for (int64_t i = s.first; i < s.first + s.num; i++)
        l.held->net.values[i] *= 0.75f;
    EXPECT(dg_pool_refresh(l.pool) == DG_OK);
    compare_predictions(&l, 1);
    close_lab(&l);
    VERDICT();
}

static void test_a_gradient_too_large_is_named(void **state)
{
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cpu(), "configs/tiny.cfg", 1, NULL);
    l.bad_rank = comm.size - 1;
    EXPECT(dg_team_sum(l.team, &comm, 2, learn_one, &l) == DG_ENUMERIC);
    EXPECT(strstr(dg_last_error()->text, "gradient of transformer.") != NULL);
    l.bad_rank = -1;
    compare_sums(&l, 1);
    close_lab(&l);
    VERDICT();
}

/* Of network and text encoders, which are one range after the other. */
static void test_text_encoders_are_trained_in_ranges(void **state)
{
    static const char *const configs[] = { "configs/tiny.cfg",
                                           "configs/tiny_unet.cfg" };
    Lab l;
    Shard s;

    (void)state;
    for (int k = 0; k < 4; k++) {
        open_lab_with_text(&l, dg_backend_cpu(), configs[k / 2], k % 2);
        compare_predictions(&l, comm.rank); /* the first has none */
        compare_sums(&l, 2);
        compare_sums(&l, comm.rank == 0 ? 3 : 0);
        dg_shard_init(&s, &comm, DG_SHARD_PARAMETERS, l.held->num_values,
                      DG_GRAD_NORM_CHUNK);
        for (int64_t i = 0; i < s.total; i++)
            l.whole->values[i] *= 0.75f;
        for (int64_t i = s.first; i < s.first + s.num; i++)
            l.held->values[i] *= 0.75f;
        EXPECT(dg_pool_refresh(l.pool) == DG_OK);
        compare_predictions(&l, 1);
        close_lab(&l);
    }
    VERDICT();
}

/* By the names: a double block is the largest group, and what is not in a
 * block the rest. */
static void test_sizes_are_those_of_blocks(void **state)
{
    Lab l;
    int64_t rest, block;
    uint64_t values;
    Shard s;

    (void)state;
    open_lab(&l, dg_backend_cpu(), "configs/tiny.cfg", 0, NULL);
    block = named(&l.whole->net, "transformer.transformer_blocks.0.");
    rest = named(&l.whole->net, "transformer.") - block -
           named(&l.whole->net, "transformer.single_transformer_blocks.");
    EXPECT(block > 0 && rest > 0 && dg_params_rest(&l.whole->net) == rest);
    EXPECT(dg_params_largest(&l.whole->net) == block);
    EXPECT(dg_pool_room(l.whole, 1) == rest + block);
    EXPECT(dg_pool_room(l.whole, 2) == rest + 2 * block);
    dg_shard_init(&s, &comm, DG_SHARD_PARAMETERS, l.whole->net.count,
                  DG_GRAD_NORM_CHUNK);
    values = (uint64_t)(s.num + rest + block + l.whole->text.count);
    EXPECT(dg_pool_weight_bytes(l.whole, NULL, &s, 0, 1, 1) == 4 * values);
    EXPECT(dg_pool_weight_bytes(l.whole, NULL, &s, 0, 1, 2) ==
           4 * (values + (uint64_t)block));
    close_lab(&l);
    VERDICT();
}

/* Of a text encoder whose blocks are larger than the network's; and below
 * adapters a reference is the same weights. */
static void test_sizes_of_text_and_of_adapters(void **state)
{
    Lab l = { .backend = dg_backend_cpu(),
              .level = DG_SHARD_PARAMETERS,
              .text = 1 };
    uint64_t values;
    Shard s;

    (void)state;
    open_lab_of(&l, "configs/tiny.cfg", "t5.d_ff=4096");
    EXPECT(dg_params_largest(&l.whole->text) >
           dg_params_largest(&l.whole->net));
    dg_shard_init(&s, &comm, DG_SHARD_PARAMETERS, l.whole->num_values,
                  DG_GRAD_NORM_CHUNK);
    values = (uint64_t)(s.num + dg_params_rest(&l.whole->net) +
                        dg_params_rest(&l.whole->text) +
                        dg_params_largest(&l.whole->text));
    EXPECT(dg_pool_weight_bytes(l.whole, NULL, &s, 0, 1, 1) == 4 * values);
    close_lab(&l);
    open_lab(&l, dg_backend_cpu(), "configs/tiny.cfg", 0, "lora.rank=2");
    dg_shard_init(&s, &comm, DG_SHARD_PARAMETERS, l.whole->net.count,
                  DG_GRAD_NORM_CHUNK);
    EXPECT(dg_pool_weight_bytes(l.whole, l.held, &s, 0, 1, 1) ==
           dg_pool_weight_bytes(l.whole, NULL, &s, 0, 1, 1));
    close_lab(&l);
    VERDICT();
}

/* What the plan says of a GPU is what the trainer reserves of kernel memory,
 * counted here from its parts. */
static void test_plan_is_what_is_reserved(void **state)
{
    GpuPlans plans = { .num = 0 };
    Trainer t = { 0 };
    Lab l;
    const Shard *s;
    const GpuPlan *g = NULL;
    int64_t floats, pictures;

    (void)state;
    open_lab(&l, dg_backend_cpu(), "configs/tiny.cfg", 0, NULL);
    EXPECT(dg_config_set(&l.config, "parallel.shard=parameters") == DG_OK);
    EXPECT(dg_config_set(&l.config, "parallel.ahead=false") == DG_OK);
    EXPECT(dg_config_set(&l.config, "grpo.kl_beta=0.1") == DG_OK);
    EXPECT(dg_config_set(&l.config, "prompts.cache=x") == DG_OK);
    l.session.gpu_kernels = l.session.backend; /* nothing is copied here */
    EXPECT(dg_run_plan_gpus(&plans, &l.session, comm.size) == DG_OK);
    for (int i = 0; i < plans.num; i++)
        if (plans.plan[i].level == DG_SHARD_PARAMETERS &&
            !plans.plan[i].offload && !plans.plan[i].offload_sums)
            g = &plans.plan[i];
    t.session = &l.session;
    EXPECT(dg_rewards_init(t.rewards, &l.config) == DG_OK);
    EXPECT(dg_setup_prompts(&l.session, l.config.prompts.file, &t.prompts) ==
           DG_OK);
    EXPECT(dg_policy_create(&t.policy, &l.config) == DG_OK);
    dg_policy_leave_text(t.policy);
    EXPECT(dg_pool_hold(&l.session, t.policy) == DG_OK);
    EXPECT(dg_trainer_reserve(&t) == DG_OK);
    s = &t.learner->place.shard;
    /* two networks' ranges and rests, one room; gradient, m, v, EMA */
    floats = 2 * (s->num + dg_params_rest(&t.policy->net)) +
             dg_params_largest(&t.policy->net) + 4 * s->num;
    /* the report's pictures: conditions, latents in work and at their end */
    pictures = (l.config.report.prompts + comm.size - 1) / comm.size;
    floats += pictures * t.policy->shape.condition;
    if (pictures > l.config.grpo.micro_batch)
        pictures = l.config.grpo.micro_batch;
    floats += 2 * pictures * t.policy->shape.elements;
    EXPECT((g != NULL) == (comm.size > 1)); /* one rank has all */
    if (g != NULL && comm.rank == 0)
        EXPECT(g->gpu ==
               sizeof(float) * (uint64_t)floats +
                   sizeof(double) * ((uint64_t)(s->num + 4095) / 4096 + 1) +
                   t.team->bytes + t.rollout->bytes - t.rollout->host_bytes);
    dg_trainer_close(&t);
    close_lab(&l);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_weights_are_lent_to_unequal_ranks),
    cmocka_unit_test(test_a_failure_is_everybodys),
    cmocka_unit_test(test_gradients_reach_their_owners),
    cmocka_unit_test(test_gradients_alone_reach_their_owners),
    cmocka_unit_test(test_gradients_alone_have_a_block_of_room),
    cmocka_unit_test(test_gradients_alone_fail_for_all),
    cmocka_unit_test(test_gradients_alone_leave_several_workers),
    cmocka_unit_test(test_failures_of_several_workers_are_all_ranks),
    cmocka_unit_test(test_weights_follow_their_owners),
    cmocka_unit_test(test_a_gradient_too_large_is_named),
    cmocka_unit_test(test_text_encoders_are_trained_in_ranges),
    cmocka_unit_test(test_sizes_are_those_of_blocks),
    cmocka_unit_test(test_sizes_of_text_and_of_adapters),
    cmocka_unit_test(test_plan_is_what_is_reserved),
};

MPI_MAIN(mpi_pool, tests)
