#include "trainer.h"

#include "base/error.h"
#include "base/log.h"
#include "base/sha256.h"
#include "train/setup.h"
#include "train/step_plan.h"

#include <stdlib.h>

static int open_prompts(Trainer *t)
{
    const Config *c = t->session->config;
    int err;

    if (c->prompts.file[0] == '\0')
        return dg_fail(DG_EINVAL, "prompts.file = \"\": must name a prompts "
                                  "file (.jsonl or .txt)");
    err = dg_setup_prompts(t->session, c->prompts.file, &t->prompts);
    if (!err && c->prompts.eval_file[0] != '\0')
        err = dg_setup_prompts(t->session, c->prompts.eval_file, &t->heldout);
    return err;
}

/* Bytes of a worker's arena. An update predicts micro_batch timesteps of a
 * sample at once, or all that are chosen where they are fewer. */
static int plan_step(Trainer *t)
{
    const Config *c = t->session->config;
    const Guidance guidance = { c->cfg.scale, c->cfg.grad, NULL };
    StepPlanOpts o = { .batch = c->grpo.micro_batch,
                       .train_batch = c->grpo.micro_batch,
                       .train_net = 1,
                       .recompute = c->parallel.recompute,
                       .guidance = &guidance,
                       .reference = t->reference };
    StepPlan plan = { 0 };
    int steps, err = dg_update_most_steps(&steps, c);

    if (!err && steps < o.train_batch)
        o.train_batch = steps;
    if (!err)
        err = dg_step_plan(&plan, t->policy, t->session->backend, &o);
    if (!err)
        t->plan_bytes = plan.step_bytes;
    return err;
}

static int open_team(Trainer *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const size_t rollout =
        dg_rollout_scratch(t->policy, t->rewards, c->num_rewards);
    TeamOpts o = {
        .backend = s->backend,
        .num_threads = s->num_threads,
        .num_grads = t->policy->net.count,
        .exact = c->parallel.exact_sum,
        .max_items = c->grpo.prompts_per_iteration * c->grpo.num_generations,
    };
    int err = plan_step(t);

    if (!err)
        err = dg_update_scratch(&o.scratch_bytes, t->policy, c);
    if (err)
        return err;
    if (o.scratch_bytes < rollout)
        o.scratch_bytes = rollout;
    o.step_bytes = t->plan_bytes;
    err = dg_team_create(&t->team, &o);
    if (err)
        return err;
    for (int i = 0; i < t->team->num; i++) {
        Worker *w = &t->team->workers[i];

        dg_context_train(&w->ctx, DG_PARAMS_NET, w->grads, 1);
        w->ctx.recompute = c->parallel.recompute;
    }
    return DG_OK;
}

int dg_trainer_check(const Config *c)
{
    if (c->num_rewards == 0)
        return dg_fail(DG_EINVAL, "rewards: at least one is needed, like "
                                  "({ name = \"shapes\"; weight = 1.0; })");
    if (c->sampler.sde == DG_SDE_ODE || c->sampler.eta == 0)
        return dg_fail(DG_EINVAL,
                       "sampler.sde = ode or sampler.eta = 0: training needs "
                       "a stochastic sampler (dance, flow_sde, cps, ddim)");
    if ((c->sampler.sde == DG_SDE_DDIM) !=
        (c->policy.prediction == DG_PREDICT_EPSILON))
        return dg_fail(DG_EINVAL,
                       "sampler.sde = \"%s\": must be %s, since the policy "
                       "predicts %s (policy.prediction)",
                       dg_sde_kind_name(c->sampler.sde),
                       c->policy.prediction == DG_PREDICT_EPSILON
                           ? "ddim"
                           : "dance, flow_sde or cps",
                       c->policy.prediction == DG_PREDICT_EPSILON ? "epsilon"
                                                                  : "velocity");
    if (c->grpo.micro_batch > DG_SAMPLING_BATCH)
        return dg_fail(DG_EINVAL, "grpo.micro_batch = %lld: at most %d",
                       (long long)c->grpo.micro_batch, DG_SAMPLING_BATCH);
    return DG_OK;
}

static void describe(const Trainer *t)
{
    const Session *s = t->session;
    const Rollout *r = t->rollout;

    dg_info("%lld parameters trained; %lld prompts x %lld samples over %d "
            "ranks x %d threads; %.1f MB reserved on rank 0",
            (long long)t->policy->net.count, (long long)r->P, (long long)r->G,
            s->comm->size, s->num_threads,
            1e-6 * (double)(t->team->bytes + r->bytes + t->update->bytes));
    if (s->comm->size > r->N)
        dg_warn("%d ranks for %lld work items: %lld ranks are idle",
                s->comm->size, (long long)r->N,
                (long long)(s->comm->size - r->N));
    if (r->uncond != NULL && s->config->grpo.updates_per_iteration > 1)
        dg_warn("grpo.updates_per_iteration = %lld with cfg.scale = %g: guided "
                "training is stable with one update per iteration",
                (long long)s->config->grpo.updates_per_iteration,
                s->config->cfg.scale);
}

static int reserve_before(Trainer *t)
{
    const int64_t num = 3 * t->policy->net.count;

    if (t->session->config->trajectory.every == 0)
        return DG_OK;
    t->before = calloc((size_t)num, sizeof *t->before);
    return t->before != NULL
               ? DG_OK
               : dg_fail(DG_ENOMEM, "trajectory.every: a copy of %lld values",
                         (long long)num);
}

int dg_trainer_reserve(Trainer *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    int err = DG_OK;

    if (c->grpo.kl_beta > 0)
        err = dg_policy_reference(&t->reference, t->policy, c);
    if (!err)
        err = open_team(t);
    if (!err)
        err = dg_learner_create(
            &t->learner, t->policy, t->policy->net.count, &c->optim,
            c->run.iterations * c->grpo.updates_per_iteration);
    if (!err)
        err = dg_rollout_create(&t->rollout, s, t->policy,
                                t->prompts.num > c->grpo.prompts_per_iteration
                                    ? t->prompts.num
                                    : c->grpo.prompts_per_iteration);
    if (!err)
        err = dg_update_create(&t->update, s, t->rollout);
    if (!err)
        err = reserve_before(t);
    return dg_agree(s->comm, err);
}

int dg_trainer_build(Trainer *t, const Session *s)
{
    const Config *c = s->config;
    int err;

    t->session = s;
    err = dg_trainer_check(c);
    if (!err)
        err = dg_rewards_init(t->rewards, c);
    if (!err)
        err = open_prompts(t);
    if (!err)
        err = dg_setup_policy(s, 0, &t->policy);
    if (!err)
        err = dg_setup_check_words(s, t->policy, &t->prompts, c->prompts.file);
    if (!err)
        err = dg_setup_check_words(s, t->policy, &t->heldout,
                                   c->prompts.eval_file);
    if (err)
        return err;
    if (c->policy.weights[0] == '\0' && c->policy.path[0] == '\0')
        dg_policy_draw(t->policy, (uint64_t)c->run.seed);
    err = dg_trainer_reserve(t);
    if (!err)
        describe(t);
    return err;
}

void dg_trainer_close(Trainer *t)
{
    dg_metrics_close(t->metrics);
    dg_update_destroy(t->update);
    dg_rollout_destroy(t->rollout);
    dg_learner_destroy(t->learner);
    dg_team_destroy(t->team);
    dg_policy_destroy(t->reference);
    dg_policy_destroy(t->policy);
    free(t->before);
    dg_prompts_free(&t->prompts);
    dg_prompts_free(&t->heldout);
}

void dg_trainer_digest(char hex[65], const float *values, int64_t num)
{
    if (dg_sha256_bytes(hex, values, sizeof *values * (size_t)num) != DG_OK)
        hex[0] = '\0';
}
