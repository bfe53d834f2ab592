/* What goes between ranks in an iteration, reckoned. */
#include "plan_outline.h"
#include "pool_internal.h"

/* Rounds of an update, in which each worker of a rank has an item. */
static uint64_t rounds(const Outline *o, int part)
{
    const int64_t workers = o->team.num_threads;
    const int64_t most = dg_update_most_items(
        &o->update, o->config, o->rollout->P, o->team.shard.size, part);

    return (uint64_t)((most + workers - 1) / workers);
}

static uint64_t sum_bytes(const Outline *o)
{
    const uint64_t once = dg_exact_bytes(o->team.num_grads, o->team.exact);
    uint64_t num = 0;

    if (!dg_shard_rounds(&o->team.shard))
        return (uint64_t)o->update.num_updates * once;
    for (int i = 0; i < o->update.num_updates; i++)
        num += rounds(o, i % o->update.num_parts);
    return num * once;
}

/* Passes through the network in their order, and which groups are here. */
typedef struct Walk {
    int rooms;
    int32_t last[2]; /* asked for, the last first */
    uint64_t values;
} Walk;

/* What of a pass's first groups is here already: with one room the last group, with
 * two the last but one as well, if it is asked for next. */
static uint64_t saved(const Walk *w, const LentPass *p)
{
    const int again = p->first[0] == w->last[0];
    uint64_t num = again ? p->num[0] : 0;

    if (w->rooms == 1)
        return num;
    if (!again && p->first[0] == w->last[1])
        num += p->num[0];
    if (p->first[1] != 0 && p->first[1] == w->last[again])
        num += p->num[1];
    return num;
}

static void once(Walk *w, const LentPass *p)
{
    w->values += p->values[w->rooms - 1] - saved(w, p);
    if (p->last[1] != 0 || p->last[0] != w->last[0])
        w->last[1] = p->last[1] != 0 ? p->last[1] : w->last[0];
    w->last[0] = p->last[0];
}

static void walk(Walk *w, const LentPass *p, uint64_t times)
{
    uint64_t before;

    if (times == 0 || p->first[0] == 0)
        return;
    once(w, p);
    if (times == 1)
        return;
    before = w->values; /* from here on all are alike */
    once(w, p);
    w->values += (times - 2) * (w->values - before);
}

static void walk_rollout(Walk *w, const Outline *o, const StepPlan *plan)
{
    const Rollout *r = o->rollout;
    const int64_t batch = o->config->grpo.micro_batch;
    const int64_t shared = dg_rollout_shared(o->config, &r->window);
    const int64_t first = (r->num_prompts + batch - 1) / batch;
    const int64_t own = (r->num + batch - 1) / batch;

    if (o->policy->trains_text || (o->lends_text && !o->cached))
        walk(w, &plan->encode_lent, (uint64_t)r->num_prompts);
    walk(w, &plan->predict_lent,
         (uint64_t)(first * shared + own * (r->T - shared)));
}

/* Values that are in no block: what lies between two may be padding. */
static uint64_t rest_of(const ParamSet *set)
{
    uint64_t num = 0;

    for (int i = 0; i <= set->num_groups; i++)
        num += (uint64_t)dg_pool_gap(set, i).num;
    return num;
}

/* Blocks as they are asked for, and after an update what is in none. */
static uint64_t lent_values(const Outline *o, int together)
{
    const StepPlan *plan = together ? &o->ways.joint : &o->ways.apart;
    const int trains = o->policy->adapters.num_params == 0;
    const int64_t batch = plan->train_batch;
    const uint64_t passes =
        together ? 1 : (uint64_t)((o->steps + batch - 1) / batch);
    Walk w = { .rooms = o->lent_rooms };

    if (!trains) /* of the iteration before */
        w.last[0] = plan->update_lent.last[0],
        w.last[1] = plan->update_lent.last[1];

    walk_rollout(&w, o, plan);
    for (int i = 0; i < o->update.num_updates; i++) {
        walk(&w, &plan->update_lent,
             rounds(o, i % o->update.num_parts) * passes);
        if (!trains)
            continue;
        w.values += rest_of(&o->policy->net);
        w.last[0] = w.last[1] = 0;
    }
    return w.values;
}

Traffic dg_outline_traffic(const Outline *o, int together)
{
    const Shard *s = &o->team.shard;
    const uint64_t stored = (uint64_t)dg_dtype_bytes(o->policy->dtype);
    Traffic t = { 0, 0 };

    if (s->size == 1)
        return t;
    t.sums = sum_bytes(o);
    if (dg_shard_pools(s))
        t.weights = stored * lent_values(o, together);
    /* by way of the hosts they are float32 */
    if (dg_shard_split(s) &&
        !(dg_shard_pools(s) && o->policy->adapters.num_params == 0))
        t.weights += (o->team.links ? stored : sizeof(float)) *
                     (uint64_t)o->update.num_updates * (uint64_t)s->total;
    return t;
}
