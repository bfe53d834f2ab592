#ifndef DG_TESTS_TINY_RUN_H
#define DG_TESTS_TINY_RUN_H
/*
 * The parts of a training run of configs/tiny.cfg in one process, put
 * together as the trainer does, for tests that look inside.
 */
#include "base/error.h"
#include "base/philox.h"
#include "cpu/cpu.h"
#include "train/setup.h"
#include "train/step_plan.h"
#include "train/update.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct TinyRun {
    Config config;
    Session session;
    char *text; /* the configuration, printed */
    PromptList prompts;
    Reward rewards[DG_CONFIG_REWARDS];
    Policy *policy, *reference;
    Team *team;
    Learner *learner;
    Rollout *rollout;
    Update *update;
} TinyRun;

static Comm tiny_comm;

#define MUST(call)                                            \
    do {                                                      \
        if ((call) != DG_OK)                                  \
            fail_msg("%s: %s", #call, dg_last_error()->text); \
    } while (0)

static inline void tiny_team(TinyRun *t, int threads)
{
    const Config *c = &t->config;
    const int64_t batch = c->grpo.micro_batch;
    const Guidance guidance = { c->cfg.scale, c->cfg.grad, NULL };
    const StepPlanOpts plan_opts = { .batch = batch,
                                     .train_batch = batch,
                                     .train_net = 1,
                                     .guidance = &guidance,
                                     .rewards = t->rewards,
                                     .num_rewards = c->num_rewards };
    StepPlan plan;
    size_t scratch;
    TeamOpts o = {
        .backend = dg_backend_cpu(),
        .num_threads = threads,
        .scratch_bytes =
            dg_rollout_scratch(t->policy, t->rewards, c->num_rewards),
        .num_grads = dg_policy_trained(t->policy)->count,
        .exact = 1,
        .max_items = 64,
    };

    MUST(dg_update_scratch(&scratch, t->policy, c));
    if (o.scratch_bytes < scratch)
        o.scratch_bytes = scratch;
    MUST(dg_step_plan(&plan, t->policy, dg_backend_cpu(), &plan_opts));
    o.step_bytes = 2 * plan.step_bytes; /* a reference may stand beside */
    MUST(dg_team_create(&t->team, &o));
    for (int i = 0; i < t->team->num; i++)
        dg_context_train(&t->team->workers[i].ctx,
                         dg_policy_trained(t->policy)->id,
                         t->team->workers[i].grads, 1);
}

/* Fresh weights, with the layers moved that begin at zero. */
static inline void tiny_draw(Policy *p, uint64_t seed)
{
    const RngKey key = { .seed = seed, .purpose = DG_RNG_INIT_LATENTS };
    float *noise = malloc(sizeof *noise * (size_t)p->net.count);

    assert_non_null(noise);
    dg_policy_draw(p, seed);
    dg_rng_normal(noise, 0, p->net.count, &key);
    for (int64_t i = 0; i < p->net.count; i++)
        p->net.values[i] += 0.05f * noise[i];
    free(noise);
}

/** sets: assignments "key=value", ended by NULL, or NULL */
static inline void tiny_open(TinyRun *t, int threads, const char *const *sets)
{
    memset(t, 0, sizeof *t);
    dg_config_defaults(&t->config);
    MUST(dg_config_load(&t->config, "configs/tiny.cfg"));
    for (; sets != NULL && *sets != NULL; sets++)
        MUST(dg_config_set(&t->config, *sets));
    dg_config_settle(&t->config);
    MUST(dg_config_print(&t->text, &t->config));
    t->session = (Session) {
        .comm = &tiny_comm,
        .config = &t->config,
        .backend = dg_backend_cpu(),
        .info = { .program = "test",
                  .git_commit = "",
                  .command = "",
                  .config = t->text },
        .num_threads = threads,
    };
    MUST(dg_rewards_init(t->rewards, &t->config));
    MUST(dg_rewards_open(t->rewards, &t->config, t->config.num_rewards,
                         &tiny_comm));
    MUST(dg_setup_prompts(&t->session, t->config.prompts.file, &t->prompts));
    MUST(dg_policy_create(&t->policy, &t->config));
    tiny_draw(t->policy, 3);
    tiny_team(t, threads);
    MUST(dg_learner_create(&t->learner, t->policy,
                           dg_policy_trained(t->policy)->count,
                           &t->config.optim, 100, NULL));
    MUST(
        dg_rollout_create(&t->rollout, &t->session, t->policy, t->prompts.num));
    MUST(dg_rollout_reserve_features(t->rollout, t->rewards));
    MUST(dg_update_create(&t->update, &t->session, t->rollout));
}

static inline void tiny_close(TinyRun *t)
{
    dg_rewards_close(t->rewards, t->config.num_rewards);
    dg_update_destroy(t->update);
    dg_rollout_destroy(t->rollout);
    dg_learner_destroy(t->learner);
    dg_team_destroy(t->team);
    dg_policy_destroy(t->reference);
    dg_policy_destroy(t->policy);
    dg_prompts_free(&t->prompts);
    free(t->text);
}

/** Rollout and scores of an iteration. */
static inline void tiny_experience(TinyRun *t, int64_t iteration)
{
    Rollout *r = t->rollout;

    MUST(dg_rollout_begin(r, &t->session, t->prompts.num, iteration));
    MUST(dg_rollout_encode(r, t->team, t->policy, &t->prompts));
    MUST(dg_rollout_sample(r, &t->session, t->team, t->policy));
    MUST(dg_rollout_score(
        &(Scoring) { r, t->policy, &t->prompts, t->rewards, NULL, 0 },
        t->team));
}

static inline int tiny_update(TinyRun *t, int dry, UpdateStats *stats)
{
    const UpdateJob job = {
        .session = &t->session,
        .update = t->update,
        .rollout = t->rollout,
        .team = t->team,
        .learner = t->learner,
        .policy = t->policy,
        .reference = t->reference,
        .dry = dry,
    };

    const int err = dg_update_run(&job, stats);
    const ExactSum own = dg_team_own(t->team);

    if (dry) /* the gradient, where an update leaves it */
        t->learner->engine->exact_read(&own, t->learner->grads, 1.0);
    return err;
}

/** A folder for the test's files; to remove with tiny_drop(). */
static inline void tiny_folder(char path[256])
{
    const char *base = getenv("TMPDIR");

    snprintf(path, 256, "%s/dg_test_XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(path));
}

static inline void tiny_drop(const char *path)
{
    char command[300];

    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

/** Starts MPI with one rank and runs the tests. */
#define TINY_MAIN(tests)                                     \
    int main(int argc, char **argv)                          \
    {                                                        \
        int failed;                                          \
                                                             \
        if (dg_comm_init(&tiny_comm, &argc, &argv) != DG_OK) \
            return 1;                                        \
        failed = cmocka_run_group_tests(tests, NULL, NULL);  \
        dg_comm_fini(&tiny_comm);                            \
        return failed;                                       \
    }

#endif
