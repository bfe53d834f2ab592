#ifndef DG_TESTS_PLAN_CASE_H
#define DG_TESTS_PLAN_CASE_H
/* A plan of a configuration's run. */
#include "tiny_run.h"

#include "train/run_plan.h"

#include <math.h>

typedef struct Planned {
    Config config;
    Session session;
    RunPlan plan;
} Planned;

static void plan_of(Planned *p, const char *file, int ranks,
                    const char *const *sets)
{
    dg_config_defaults(&p->config);
    MUST(dg_config_load(&p->config, file));
    for (; sets != NULL && *sets != NULL; sets++)
        MUST(dg_config_set(&p->config, *sets));
    dg_config_settle(&p->config);
    MUST(dg_config_check(&p->config));
    p->session = (Session) { .comm = &tiny_comm,
                             .config = &p->config,
                             .backend = dg_backend_cpu(),
                             .num_threads = 2 };
    MUST(dg_run_plan(&p->plan, &p->session, ranks));
}

static void about(double value, double wanted)
{
    if (!(fabs(value / wanted - 1) < 0.01))
        fail_msg("%g: wanted %g", value, wanted);
}

#endif
