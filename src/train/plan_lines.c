#include "plan_lines.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

void dg_plan_put(PlanTable *t, const char *key, const char *text,
                 uint64_t value)
{
    if (t->num == DG_PLAN_LINES)
        dg_panic("plan: more than %d lines", DG_PLAN_LINES);
    t->line[t->num++] = (PlanLine) { key, text, value };
}

void dg_plan_put_some(PlanTable *t, const char *key, const char *text,
                      uint64_t value)
{
    if (value > 0)
        dg_plan_put(t, key, text, value);
}

void dg_plan_total(PlanTable *t)
{
    uint64_t sum = 0;

    for (int i = 0; i < t->num; i++)
        sum += t->line[i].value;
    dg_plan_put(t, "total", "total", sum);
}

static uint64_t values(const ParamSet *set)
{
    return set != NULL ? (uint64_t)dg_params_num_values(set) : 0;
}

void dg_plan_parameters(PlanTable *t, const Policy *p, int64_t trained,
                        int64_t rewards)
{
    dg_plan_put(t, "network", "network", values(&p->net));
    dg_plan_put(t, "text", "text encoders", values(&p->text));
    dg_plan_put_some(t, "codec", "decoder", values(p->codec));
    dg_plan_put_some(t, "adapters", "adapters", values(&p->adapters));
    dg_plan_put_some(t, "trained", "trained", (uint64_t)trained);
    dg_plan_put_some(t, "rewards", "rewards' networks", (uint64_t)rewards);
}

void dg_plan_learner(PlanTable *t, const LearnerPlace *place,
                     const OptimConfig *optim)
{
    LearnerBytes b;

    dg_learner_bytes(&b, place, optim);
    dg_plan_put(t, "gradient", "gradient",
                b.gradient + b.norm + b.chunks + b.stage);
    dg_plan_put(t, "moments", "AdamW's moments", b.moments);
    dg_plan_put_some(t, "ema", "averaged weights (EMA)", b.ema);
}

void dg_plan_team(PlanTable *t, const TeamOpts *team)
{
    const uint64_t n = (uint64_t)team->num_threads;

    dg_plan_put_some(
        t, "worker_gradients", "workers: gradient",
        n * sizeof(float) *
            (uint64_t)(team->num_room > 0 ? team->num_room : team->num_grads));
    dg_plan_put_some(t, "worker_sums",
                     team->exact ? "workers: exact sum" : "workers: float sum",
                     dg_team_sum_bytes(team));
    dg_plan_put(t, "worker_steps", "workers: activations",
                n * team->step_bytes);
    dg_plan_put(t, "worker_scratch", "workers: pictures, scratch",
                n * team->scratch_bytes);
}

void dg_plan_rewards(RunPlan *out, const Config *c, const Reward *r,
                     int64_t num)
{
    out->num_rewards = (int)num;
    for (int64_t k = 0; k < num; k++) {
        PlanReward *to = &out->rewards[k];
        const RewardConfig *o = &c->rewards[k];

        snprintf(to->name, sizeof to->name, "%s", o->name);
        to->own = o->plugin[0] != '\0' || o->command[0] != '\0';
        to->network = (int)r[k].network;
    }
}
