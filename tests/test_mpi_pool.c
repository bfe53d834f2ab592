/* Weights that no rank has whole: predictions and gradients against a rank
 * that has them all, with unequal work, failures and updates. */
#include "mpi_test.h"

#include "../src/train/trainer.h"
#include "base/error.h"
#include "base/philox.h"
#include "cpu/cpu.h"
#include "optim/grad_norm.h"
#include "tensor/tape.h"
#include "train/pool.h"
#include "train/run_plan.h"
#include "train/setup.h"

#include <math.h>

enum { ITEMS = 6, PASSES = 2, ROOM = 1 << 24 };

typedef struct Lab {
    Config config;
    Session session;
    Policy *whole, *held;
    Team *plain, *team; /* of the first, of the second */
    WeightPool *pool;
    int recompute;
    int bad_rank;    /* whose item 1 fails, or whose gradient is infinite */
    int64_t first;   /* item of a run's first */
    float *u[ITEMS]; /* predictions of the run */
} Lab;

static Policy *new_policy(const Config *c)
{
    const RngKey key = { .seed = 4, .purpose = DG_RNG_TEST };
    Policy *p;
    float *noise;

    EXPECT(dg_policy_create(&p, c) == DG_OK);
    noise = malloc(sizeof *noise * (size_t)p->num_values);
    dg_policy_draw(p, 3);
    /* layers that begin at zero too */
    dg_rng_normal(noise, 0, p->num_values, &key);
    for (int64_t i = 0; i < p->num_values; i++)
        p->values[i] += 0.05f * noise[i];
    free(noise);
    return p;
}

static Team *new_team(const Lab *l, const Policy *p, ShardLevel level)
{
    TeamOpts o = { .backend = dg_backend_cpu(),
                   .num_threads = 1,
                   .step_bytes = ROOM,
                   .num_grads = p->net.count,
                   .exact = 1,
                   .max_items = 64,
                   .piece = 3000 };
    Team *t;

    dg_shard_init(&o.shard, &comm, level, p->net.count, DG_GRAD_NORM_CHUNK);
    if (level == DG_SHARD_PARAMETERS)
        o.num_room = dg_pool_room(p);
    EXPECT(dg_team_create(&t, &o) == DG_OK);
    dg_context_train(&t->workers[0].ctx, p->net.id, t->workers[0].grads, 1);
    t->workers[0].ctx.recompute = l->recompute;
    return t;
}

static void open_lab(Lab *l, const char *config, int recompute)
{
    memset(l, 0, sizeof *l);
    l->recompute = recompute;
    l->bad_rank = -1;
    dg_config_defaults(&l->config);
    EXPECT(dg_config_load(&l->config, config) == DG_OK);
    EXPECT(dg_config_set(&l->config, "flux.num_single_layers=3") == DG_OK);
    dg_config_settle(&l->config);
    l->session = (Session) { .comm = &comm,
                             .config = &l->config,
                             .backend = dg_backend_cpu(),
                             .num_threads = 1 };
    l->whole = new_policy(&l->config);
    l->held = new_policy(&l->config);
    l->plain = new_team(l, l->whole, DG_SHARD_NONE);
    l->team = new_team(l, l->held, DG_SHARD_PARAMETERS);
    EXPECT(dg_pool_hold(&l->session, l->held) == DG_OK);
    EXPECT(dg_pool_create(&l->pool, &l->session, l->team, l->held, NULL) ==
           DG_OK);
    for (int i = 0; i < ITEMS; i++)
        l->u[i] =
            calloc((size_t)l->whole->shape.elements * PASSES, sizeof(float));
}

static void close_lab(Lab *l)
{
    for (int i = 0; i < ITEMS; i++)
        free(l->u[i]);
    dg_pool_destroy(l->pool);
    dg_team_destroy(l->team);
    dg_team_destroy(l->plain);
    dg_policy_destroy(l->held);
    dg_policy_destroy(l->whole);
}

static float *drawn(int64_t num, uint32_t item, uint32_t step)
{
    const RngKey key = {
        .seed = 7, .purpose = DG_RNG_TEST, .sample = item, .step = step
    };
    float *x = malloc(sizeof *x * (size_t)num);

    dg_rng_normal(x, 0, num, &key);
    return x;
}

/* A prediction of an item, recorded where the context records. */
static Tensor *predict(const Policy *p, Context *ctx, int64_t item, int pass)
{
    float *z = drawn(p->shape.elements, (uint32_t)item, (uint32_t)pass);
    float *condition = drawn(p->shape.condition, (uint32_t)item, 99);
    const float time = 0.3f + 0.2f * (float)pass;
    const float *zs = z, *conditions = condition;
    const PolicyBatch b = {
        .num = 1, .z = &zs, .time = &time, .condition = &conditions
    };
    Tensor *u = dg_policy_predict(p, ctx, &b);

    free(z);
    free(condition);
    return u;
}

static int predict_one(Worker *w, int64_t i, void *user)
{
    const Lab *l = user;
    const Policy *p = w->team == l->team ? l->held : l->whole;
    Tensor *u;

    dg_context_reset(&w->ctx);
    u = predict(p, &w->ctx, l->first + i, 0);
    if (u == NULL)
        return dg_context_error(&w->ctx);
    memcpy(l->u[i], u->data, sizeof(float) * (size_t)p->shape.elements);
    return comm.rank == l->bad_rank && i == 1
               ? dg_fail(DG_EINVAL, "an item of rank %d", comm.rank)
               : DG_OK;
}

/* Both ways, of rank's own number of items: bits are equal. */
static void compare_predictions(Lab *l, int64_t num)
{
    const size_t bytes = sizeof(float) * (size_t)l->whole->shape.elements;
    float *want[ITEMS];

    l->first = 10 * comm.rank;
    EXPECT(dg_team_run(l->plain, num, predict_one, l) == DG_OK);
    for (int i = 0; i < num; i++) {
        want[i] = malloc(bytes);
        memcpy(want[i], l->u[i], bytes);
        memset(l->u[i], 0, bytes);
    }
    EXPECT(dg_team_run(l->team, num, predict_one, l) == DG_OK);
    for (int i = 0; i < num; i++) {
        EXPECT(memcmp(want[i], l->u[i], bytes) == 0);
        free(want[i]);
    }
}

static void test_weights_are_lent_to_unequal_ranks(void **state)
{
    static const char *const configs[] = { "configs/tiny.cfg",
                                           "configs/tiny_unet.cfg" };
    Lab l;

    (void)state;
    for (int k = 0; k < 2; k++) {
        open_lab(&l, configs[k], 0);
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
    open_lab(&l, "configs/tiny.cfg", 0);
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

/* All passes of an item: back one by one, or together. */
static int learn_one(Worker *w, int64_t i, void *user)
{
    const Lab *l = user;
    const int together = w->team == l->team;
    const Policy *p = together ? l->held : l->whole;
    const int64_t item = l->first + i;
    /* of neighbours one goes back where the other still goes forward */
    const int num = 1 + (int)(comm.rank + i) % PASSES;
    TapePass pass[PASSES];
    int err;

    dg_context_reset(&w->ctx);
    if (together)
        dg_pool_begin(l->pool);
    else
        w->ctx.backend->fill(w->grads, 0, p->net.count);
    for (int k = 0; k < num; k++) {
        float *seed = drawn(p->shape.elements, (uint32_t)item, 50 + k);
        Tensor *u, *grad;

        dg_tape_begin(&w->ctx);
        u = predict(p, &w->ctx, item, k);
        grad = u != NULL ? dg_tensor_like(&w->ctx, u) : NULL;
        if (grad == NULL)
            return dg_context_error(&w->ctx);
        memcpy(grad->data, seed, sizeof *seed * (size_t)p->shape.elements);
        free(seed);
        if (comm.rank == l->bad_rank && i == 1)
            dg_tensor_f32(grad)[5] = INFINITY;
        pass[k] = dg_tape_hold(&w->ctx, u, grad);
        if (!together && dg_tape_backward_all(&w->ctx, &pass[k], 1) != DG_OK)
            return dg_context_error(&w->ctx);
    }
    err = together ? dg_tape_backward_all(&w->ctx, pass, num) : DG_OK;
    return err ? err : dg_team_add(w, NULL);
}

static void compare_sums(Lab *l, int64_t num)
{
    ExactSum all, own;

    l->first = 10 * comm.rank;
    EXPECT(dg_team_sum(l->plain, &comm, num, learn_one, l) == DG_OK);
    EXPECT(dg_team_sum(l->team, &comm, num, learn_one, l) == DG_OK);
    all = dg_team_own(l->plain);
    own = dg_team_own(l->team);
    EXPECT(own.items == all.items && own.num == l->team->shard.num);
    EXPECT(memcmp(own.fixed, all.fixed + l->team->shard.first,
                  sizeof *own.fixed * (size_t)own.num) == 0);
    for (int64_t i = 0, any = 0; i <= own.num; i++) {
        any |= i < own.num && own.fixed[i] != 0;
        EXPECT(i < own.num || any || own.num == 0 || own.items == 0);
    }
}

static void test_gradients_reach_their_owners(void **state)
{
    static const char *const configs[] = { "configs/tiny.cfg",
                                           "configs/tiny_unet.cfg" };
    Lab l;

    (void)state;
    for (int k = 0; k < 4; k++) {
        open_lab(&l, configs[k / 2], k % 2);
        compare_sums(&l, 2);
        compare_sums(&l, comm.rank); /* the first has none */
        compare_sums(&l, comm.rank == 0 ? 3 : 0);
        close_lab(&l);
    }
    VERDICT();
}

static void test_weights_follow_their_owners(void **state)
{
    Lab l;
    Shard s;

    (void)state;
    open_lab(&l, "configs/tiny.cfg", 0);
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
    open_lab(&l, "configs/tiny.cfg", 1);
    l.bad_rank = comm.size - 1;
    EXPECT(dg_team_sum(l.team, &comm, 2, learn_one, &l) == DG_ENUMERIC);
    EXPECT(strstr(dg_last_error()->text, "gradient of transformer.") != NULL);
    l.bad_rank = -1;
    compare_sums(&l, 1);
    close_lab(&l);
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

/* By the names: a double block is the largest group, and what is not in a
 * block the rest. */
static void test_sizes_are_those_of_blocks(void **state)
{
    Lab l;
    int64_t rest, block;
    uint64_t values;
    Shard s;

    (void)state;
    open_lab(&l, "configs/tiny.cfg", 0);
    block = named(&l.whole->net, "transformer.transformer_blocks.0.");
    rest = named(&l.whole->net, "transformer.") - block -
           named(&l.whole->net, "transformer.single_transformer_blocks.");
    EXPECT(block > 0 && rest > 0 && dg_params_rest(&l.whole->net) == rest);
    EXPECT(dg_params_largest(&l.whole->net) == block);
    EXPECT(dg_pool_room(l.whole) == rest + block);
    dg_shard_init(&s, &comm, DG_SHARD_PARAMETERS, l.whole->net.count,
                  DG_GRAD_NORM_CHUNK);
    values = (uint64_t)(s.num + rest + block + l.whole->text.count);
    EXPECT(dg_pool_weight_bytes(l.whole, NULL, &s, 0, 1) == 4 * values);
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
    int64_t floats;

    (void)state;
    open_lab(&l, "configs/tiny.cfg", 0);
    EXPECT(dg_config_set(&l.config, "parallel.shard=parameters") == DG_OK);
    EXPECT(dg_config_set(&l.config, "grpo.kl_beta=0.1") == DG_OK);
    EXPECT(dg_config_set(&l.config, "prompts.cache=x") == DG_OK);
    EXPECT(dg_run_plan_gpus(&plans, &l.session, comm.size) == DG_OK);
    for (int i = 0; i < plans.num; i++)
        if (plans.plan[i].level == DG_SHARD_PARAMETERS &&
            !plans.plan[i].offload)
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
    floats += (l.config.report.prompts + comm.size - 1) / comm.size *
                  t.policy->shape.condition +
              2 * l.config.grpo.micro_batch * t.policy->shape.elements;
    EXPECT((g != NULL) == (comm.size > 1)); /* one rank has all */
    if (g != NULL && comm.rank == 0)
        EXPECT(g->gpu ==
               sizeof(float) * (uint64_t)floats +
                   sizeof(double) * ((uint64_t)(s->num + 4095) / 4096 + 1) +
                   t.team->bytes + t.rollout->bytes);
    dg_trainer_close(&t);
    close_lab(&l);
    VERDICT();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_are_lent_to_unequal_ranks),
        cmocka_unit_test(test_a_failure_is_everybodys),
        cmocka_unit_test(test_gradients_reach_their_owners),
        cmocka_unit_test(test_weights_follow_their_owners),
        cmocka_unit_test(test_a_gradient_too_large_is_named),
        cmocka_unit_test(test_sizes_are_those_of_blocks),
        cmocka_unit_test(test_plan_is_what_is_reserved),
    };

    if (mpi_test_start(&argc, &argv) != 0)
        return 1;
    const int failed =
        cmocka_run_group_tests_name("mpi_pool", tests, NULL, NULL);
    dg_comm_fini(&comm);
    return failed != 0;
}
