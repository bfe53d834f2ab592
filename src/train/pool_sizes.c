/* Who has which range of the weights that are lent, and what of it all takes
 * room. */
#include "pool_internal.h"

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void dg_pool_shard(Shard *out, int64_t *at, const Policy *p,
                   const ParamSet *set, const Shard *like)
{
    const int both = p->trains_text && (set == &p->net || set == &p->text);

    *at = both && set == &p->text ? p->net.count : 0;
    dg_learner_shard(out, DG_SHARD_PARAMETERS, like->rank, like->size,
                     both ? p->net.count + p->text.count : set->count);
    out->comm = like->comm;
}

/* This rank's of a set. */
static ShardRange own_range(const Policy *p, const ParamSet *set,
                            const Shard *like)
{
    ShardRange own;
    int64_t at;
    Shard s;

    dg_pool_shard(&s, &at, p, set, like);
    dg_shard_overlap(&s, s.rank, &(ShardRange) { at, set->count }, &own.first,
                     &own.num);
    own.first = own.num > 0 ? own.first - at : 0;
    return own;
}

static int64_t own_and_rest(const Policy *p, const ParamSet *set,
                            const Shard *like)
{
    return own_range(p, set, like).num + dg_params_rest(set);
}

uint64_t dg_pool_weight_bytes(const Policy *p, const Policy *reference,
                              const Shard *like, int apart, int text, int rooms)
{
    const int adapts = p->adapters.num_params > 0;
    const int lends_text = p->trains_text || (apart && text);
    int64_t room = dg_params_largest(&p->net);
    int64_t num =
        p->num_values - dg_policy_num_base(p) + own_and_rest(p, &p->net, like);

    if (lends_text) {
        num += own_and_rest(p, &p->text, like);
        room = most(room, dg_params_largest(&p->text));
    } else if (!apart) {
        num += p->text.count;
    }
    if (reference != NULL && !adapts)
        num += own_and_rest(reference, &reference->net, like);
    return (uint64_t)(dg_dtype_bytes(p->dtype) * (num + rooms * room));
}

int dg_pool_rooms(const Config *c, int apart)
{
    return apart && c->parallel.ahead ? POOL_ROOMS : 1;
}

int dg_pool_grad_rooms(const Config *c, const Shard *s, int apart, int offload)
{
    const int beside =
        dg_shard_pools(s) ? c->parallel.ahead : c->parallel.overlap;

    /* They leave beside the kernels for another GPU, or for the host's sums. */
    return apart && beside && (offload || s->size > 1) ? POOL_ROOMS : 1;
}

int dg_pool_descends(const TeamOpts *o, const Policy *p, int rooms)
{
    return o->offload && o->links && o->shard.size > 1 && rooms > 1 &&
           p->adapters.num_params == 0;
}

int64_t dg_pool_rest(const Policy *p)
{
    return dg_params_rest(&p->net) +
           (p->trains_text ? dg_params_rest(&p->text) : 0);
}

int64_t dg_pool_block(const Policy *p)
{
    return most(dg_params_largest(&p->net),
                p->trains_text ? dg_params_largest(&p->text) : 0);
}

int64_t dg_pool_room(const Policy *p, int rooms)
{
    return p->adapters.num_params > 0
               ? p->adapters.count
               : dg_pool_rest(p) + rooms * dg_pool_block(p);
}

int dg_pool_hold(const Session *s, Policy *p)
{
    const Shard all = { .rank = s->comm->rank, .size = s->comm->size };
    const int encodes = !p->text_dropped && !p->text_left;
    const ShardRange net = own_range(p, &p->net, &all),
                     text = own_range(p, &p->text, &all);

    return dg_policy_hold(p, s->backend, &net, encodes ? &text : NULL);
}
