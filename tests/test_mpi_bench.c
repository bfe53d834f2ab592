/* The bench's counts agree with the ops' own and with the plan. Its times are
 * never tested. */
#include "base/error.h"
#include "config/config.h"
#include "cpu/cpu.h"
#include "cpu/sgemm_rate.h"
#include "mpi_test.h"
#include "policy/policy.h"
#include "tensor/tape.h"
#include "train/bench.h"
#include "train/step_plan.h"

#include <math.h>

#include <cjson/cJSON.h>

static Config config;
static Session session;

static int load(void)
{
    dg_config_defaults(&config);
    session = (Session) { .comm = &comm,
                          .config = &config,
                          .backend = dg_backend_cpu(),
                          .num_threads = 1 };
    if (dg_config_load(&config, "configs/tiny.cfg") != DG_OK)
        return DG_EINVAL;
    dg_config_settle(&config);
    return DG_OK;
}

static int is_count(double a, double b)
{
    return a > 0 && fabs(a - b) < 0.5;
}

/* Sizes of the products, the ops' counter and the plan tell the same. */
static void test_bench_flops_agree(void **state)
{
    const BenchOpts o = { dg_cpu_sgemm_bare, 2, 1 };
    StepPlan plan;
    BenchNetwork n;
    Policy *p;

    (void)state;
    EXPECT(load() == DG_OK);
    EXPECT(dg_bench_network(&n, &session, &o) == DG_OK);
    EXPECT(is_count(n.forward.flops, n.forward.product_flops));
    EXPECT(is_count(n.both.flops, n.both.product_flops));
    EXPECT(dg_policy_create(&p, &config) == DG_OK);
    EXPECT(
        dg_step_plan(&plan, p, dg_backend_cpu(),
                     &(StepPlanOpts) { .batch = config.grpo.micro_batch,
                                       .train_batch = config.grpo.micro_batch,
                                       .train_net = 1 }) == DG_OK);
    EXPECT(is_count(n.forward.flops, (double)plan.predict_flops));
    EXPECT(is_count(n.both.flops, (double)plan.update_flops));
    EXPECT(n.peak_bytes == n.plan_bytes);
    dg_policy_destroy(p);
    VERDICT();
}

/* A metered pass gives the bits of a plain one. */
static void test_bench_meter_changes_nothing(void **state)
{
    enum { SIZE = 1 << 16 };
    float z[SIZE], condition[SIZE], plain[SIZE];
    const float sigma = 0.5f, *zs = z, *conditions = condition;
    const PolicyBatch batch = {
        .num = 1, .z = &zs, .time = &sigma, .condition = &conditions
    };
    Meter meter;
    Policy *p;

    (void)state;
    EXPECT(load() == DG_OK);
    EXPECT(dg_policy_create(&p, &config) == DG_OK);
    dg_policy_draw(p, 3);
    EXPECT(p->shape.elements <= SIZE && p->shape.condition <= SIZE);
    for (int i = 0; i < SIZE; i++) {
        z[i] = (float)(i % 31) / 16 - 1;
        condition[i] = (float)(i % 17) / 8 - 1;
    }
    dg_meter_init(&meter, dg_backend_cpu());
    for (int metered = 0; metered < 2; metered++) {
        const size_t bytes = sizeof(float) * (size_t)p->shape.elements;
        Context ctx;
        Tensor *u;

        EXPECT(dg_context_init(&ctx, metered ? &meter.table : dg_backend_cpu(),
                               (size_t)1 << 24) == DG_OK);
        u = dg_policy_predict(p, &ctx, &batch);
        EXPECT(u != NULL);
        if (!metered)
            memcpy(plain, u->data, bytes);
        EXPECT(memcmp(plain, u->data, bytes) == 0);
        EXPECT(!metered || dg_meter_flops(&meter) == ctx.flops);
        EXPECT(!metered || dg_meter_product_flops(&meter) == ctx.flops);
        dg_context_fini(&ctx);
    }
    EXPECT(meter.calls[DG_METER_LINEAR] > 0 && meter.dropped == 0);
    dg_policy_destroy(p);
    VERDICT();
}

static int has_numbers(const char *json)
{
    cJSON *all = cJSON_Parse(json);
    const cJSON *net = cJSON_GetObjectItem(all, "network");
    const cJSON *both = cJSON_GetObjectItem(net, "forward_backward");
    const cJSON *it = cJSON_GetObjectItem(all, "iteration");
    const int good = cJSON_IsNumber(cJSON_GetObjectItem(both, "ratio")) &&
                     cJSON_IsNumber(cJSON_GetObjectItem(it, "total_s"));

    cJSON_Delete(all);
    return good;
}

/* All of it: an iteration uses exactly the memory that was planned, and the
 * figures can be read. */
static void test_bench_iteration_uses_the_plan(void **state)
{
    const BenchOpts o = { dg_cpu_sgemm_bare, 1, 0 };
    Bench b;

    (void)state;
    EXPECT(load() == DG_OK);
    EXPECT(dg_bench_run(&b, &session, &o) == DG_OK);
    if (comm.rank == 0) {
        const BenchIteration *it = &b.iteration;
        char *text = NULL;

        EXPECT(it->peak_bytes == it->plan_bytes && it->plan_bytes > 0);
        EXPECT(it->items == 12 && it->steps == 5 && it->terms == 24);
        EXPECT(b.ranks.ranks == comm.size);
        EXPECT(dg_bench_text(&text, &b) == DG_OK && strlen(text) > 100);
        free(text);
        EXPECT(dg_bench_json(&text, &b) == DG_OK && has_numbers(text));
        free(text);
    }
    VERDICT();
}

static void test_bench_quantiles(void **state)
{
    double v[] = { 4, 1, 3, 2 };
    double one[] = { 7 };

    (void)state;
    EXPECT(dg_bench_quantile(v, 4, 0.5) == 2.5);
    EXPECT(dg_bench_quantile(v, 4, 0) == 1 && dg_bench_quantile(v, 4, 1) == 4);
    EXPECT(dg_bench_quantile(one, 1, 0.25) == 7);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bench_flops_agree),
    cmocka_unit_test(test_bench_meter_changes_nothing),
    cmocka_unit_test(test_bench_iteration_uses_the_plan),
    cmocka_unit_test(test_bench_quantiles),
};

MPI_MAIN(mpi_bench, tests)
