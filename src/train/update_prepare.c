#include "train/update.h"

#include "base/error.h"
#include "grpo/best_of_n.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *reserve(Update *u, int64_t count, size_t size)
{
    void *p = u->outline ? NULL : calloc((size_t)(count > 0 ? count : 1), size);

    if (p != NULL || u->outline)
        u->bytes += (size_t)count * size;
    return p;
}

static TimestepOpts timestep_opts(const Config *c)
{
    return (TimestepOpts) {
        .mode = c->grpo.timestep_mode,
        .count = c->grpo.timestep_count,
        .scope = c->grpo.timestep_scope,
        .fraction = c->grpo.timestep_fraction,
        .seed = (uint64_t)c->run.seed,
    };
}

int64_t dg_update_number(const Config *c)
{
    return c->grpo.updates_per_iteration * c->grpo.epochs;
}

static int set_sizes(Update *u, const Config *c, const Rollout *r)
{
    const GrpoConfig *g = &c->grpo;
    const int64_t per_group =
        g->best_of_n ? g->keep_top + g->keep_bottom : r->G;

    u->num_parts = (int)g->updates_per_iteration;
    u->epochs = (int)g->epochs;
    u->num_updates = (int)dg_update_number(c);
    u->num_kept = r->P * per_group;
    if (u->num_parts > u->num_kept)
        return dg_fail(DG_EINVAL,
                       "grpo.updates_per_iteration = %lld: must be at most "
                       "the %lld samples trained in an iteration",
                       (long long)g->updates_per_iteration,
                       (long long)u->num_kept);
    return DG_OK;
}

static int reserve_all(Update *u, const Rollout *r)
{
    u->kept = reserve(u, u->num_kept, sizeof *u->kept);
    u->belongs = reserve(u, u->num_kept, sizeof *u->belongs);
    u->set_aside = reserve(u, u->num_kept, sizeof *u->set_aside);
    u->advantage = reserve(u, r->N * r->K, sizeof *u->advantage);
    u->total = reserve(u, r->N, sizeof *u->total);
    u->stats = reserve(u, r->K, sizeof *u->stats);
    u->reward = reserve(u, r->N * r->K, sizeof *u->reward);
    u->missing = reserve(u, r->N * r->K, sizeof *u->missing);
    u->steps = reserve(u, r->num * r->most_steps, sizeof *u->steps);
    u->local = reserve(u, u->num_kept, sizeof *u->local);
    u->weight = reserve(u, r->most_steps, sizeof *u->weight);
    /* windows change size at their end: room for every step */
    u->result = reserve(u, u->num_kept * r->most_steps, sizeof *u->result);
    if (u->outline)
        return DG_OK;
    if (u->kept == NULL || u->belongs == NULL || u->set_aside == NULL ||
        u->advantage == NULL || u->total == NULL || u->stats == NULL ||
        u->reward == NULL || u->missing == NULL || u->steps == NULL ||
        u->result == NULL || u->local == NULL || u->weight == NULL)
        return dg_fail(DG_ENOMEM, "update of %lld samples", (long long)r->N);
    return DG_OK;
}

int dg_update_create(Update **out, const Session *s, const Rollout *r)
{
    Update *u = calloc(1, sizeof *u);
    int err;

    if (u == NULL)
        return dg_fail(DG_ENOMEM, "update");
    err = set_sizes(u, s->config, r);
    if (!err)
        err = reserve_all(u, r);
    if (err) {
        dg_update_destroy(u);
        return err;
    }
    *out = u;
    return DG_OK;
}

void dg_update_destroy(Update *u)
{
    if (u == NULL)
        return;
    free(u->kept);
    free(u->belongs);
    free(u->set_aside);
    free(u->advantage);
    free(u->total);
    free(u->stats);
    free(u->reward);
    free(u->missing);
    free(u->steps);
    free(u->result);
    free(u->local);
    free(u->weight);
    free(u);
}

int dg_update_outline(Update *out, const Config *c, const Rollout *r)
{
    int err;

    memset(out, 0, sizeof *out);
    out->outline = 1;
    err = set_sizes(out, c, r);
    return err ? err : reserve_all(out, r);
}

int dg_update_most_steps(int *out, const Config *c)
{
    const TimestepOpts o = timestep_opts(c);
    const int T = (int)c->sampler.steps;
    const SdeWindow window = { 0, c->sampler.window_size > 0
                                      ? (int)c->sampler.window_size
                                      : T };

    return dg_timesteps_count(out, &o, T, &window);
}

int dg_update_steps(int *out, const Config *c, const Rollout *r)
{
    const TimestepOpts o = timestep_opts(c);

    return dg_timesteps_count(out, &o, r->T, &r->window);
}

int dg_update_scratch(size_t *out, const Policy *p, const Config *c)
{
    const Guidance g = { c->cfg.scale, c->cfg.grad, &(float) { 0 } };
    int steps;
    const int err = dg_update_most_steps(&steps, c);

    if (!err)
        *out = sizeof(float) * (size_t)p->shape.elements *
               (size_t)(dg_update_guard_rows(c) +
                        (dg_guided_twice(&g) ? steps : 0));
    return err;
}

/* Any step of the window but the last of all may be trained. */
static int check_noise(const Config *c, const Rollout *r)
{
    const int end = r->window.start + r->window.size;

    for (int i = r->window.start; i < end && i < r->T - 1; i++)
        if (!r->steps[i].stochastic)
            return dg_fail(DG_EINVAL,
                           "sampler.eta = %g: step %d has no noise by it: must "
                           "be larger",
                           c->sampler.eta, i);
    return DG_OK;
}

int dg_update_check_steps(const Config *c, Rollout *r)
{
    const int64_t every = c->sampler.window_every;
    int64_t it = 0;
    int err = DG_OK;

    /* a pass from window_start and one from step 0 see all the places that a
     * sliding window has; a drawn one is as long everywhere */
    for (int64_t k = 0; k < 2 * c->sampler.steps && !err; k++) {
        char reason[256];
        int num;

        err = dg_rollout_steps(r, c, it);
        if (!err)
            err = check_noise(c, r);
        if (!err)
            err = dg_update_steps(&num, c, r);
        if (err && k > 0) {
            snprintf(reason, sizeof reason, "%.250s", dg_last_error()->text);
            return dg_fail(err,
                           "%s, in iteration %lld, sampler.window_every being "
                           "%lld",
                           reason, (long long)it + 1, (long long)every);
        }
        it = dg_rollout_next_window(c, it);
        if (it >= c->run.iterations)
            break;
    }
    return err;
}

static int advantages(Update *u, const Session *s, const Rollout *r)
{
    const Config *c = s->config;
    double weights[DG_CONFIG_REWARDS];
    const AdvantageOpts o = {
        .num_generations = (int)r->G,
        .num_rewards = (int)r->K,
        .std = c->grpo.adv_std,
        .agg = c->grpo.adv_agg,
        .weights = weights,
    };

    for (int k = 0; k < DG_CONFIG_REWARDS; k++) {
        weights[k] = k < r->K ? c->rewards[k].weight : 0;
        u->needed[k] = o.agg == DG_AGG_REWARD_SUM && weights[k] != 0;
    }
    for (int64_t i = 0; i < r->N * r->K; i++) {
        u->reward[i] = r->scores[i].missing ? 0 : r->scores[i].value;
        u->missing[i] = r->scores[i].missing != 0;
    }
    return dg_advantage_compute(u->advantage, u->total, u->stats, u->reward,
                                u->missing, r->P, &o);
}

int dg_update_unscored(const Update *u, const Rollout *r, int64_t item)
{
    int64_t missing = 0, needed = 0;

    for (int64_t k = 0; k < r->K; k++) {
        missing += u->missing[item * r->K + k];
        needed += u->missing[item * r->K + k] && u->needed[k];
    }
    return missing == r->K || needed > 0;
}

static int select_kept(Update *u, const Session *s, const Rollout *r)
{
    const GrpoConfig *g = &s->config->grpo;
    const int32_t top = g->best_of_n ? (int32_t)g->keep_top : (int32_t)r->G;
    const int32_t bottom = g->best_of_n ? (int32_t)g->keep_bottom : 0;
    const int64_t per_group = top + bottom;
    int32_t kept[per_group];
    uint8_t unscored[r->G];
    int err = DG_OK;

    for (int64_t p = 0; p < r->P && !err; p++) {
        for (int64_t i = 0; i < r->G; i++)
            unscored[i] = (uint8_t)dg_update_unscored(u, r, p * r->G + i);
        err = dg_best_of_n_select(kept, u->total + p * r->G, unscored,
                                  (int32_t)r->G, top, bottom);
        for (int64_t i = 0; i < per_group && !err; i++)
            u->kept[p * per_group + i] = p * r->G + kept[i];
    }
    return err;
}

/* Whole groups to one update, or to every update its share of each group.
 * Either way any block of items holds its share of each update, so ranks are
 * equally busy. */
static int part_of(const Update *u, const Config *c, int64_t P, int64_t k)
{
    const int64_t per_group = u->num_kept / P;
    const int whole = c->grpo.update_split == DG_SPLIT_AUTO
                          ? P % u->num_parts == 0
                          : c->grpo.update_split == DG_SPLIT_GROUPS;

    return (int)((whole ? k / per_group : k) % u->num_parts);
}

int64_t dg_update_most_items(const Update *u, const Config *c, int64_t P,
                             int ranks, int part)
{
    int64_t most = 0;

    for (int r = 0; r < ranks; r++) {
        int64_t first, num, count = 0;

        dg_share_range(u->num_kept, r, ranks, &first, &num);
        for (int64_t k = first; k < first + num; k++)
            count += part_of(u, c, P, k) == part;
        most = count > most ? count : most;
    }
    return most;
}

int64_t dg_update_longest(const Update *u, const Config *c, int64_t P,
                          int ranks)
{
    int64_t sum = 0;

    for (int i = 0; i < u->num_parts; i++)
        sum += dg_update_most_items(u, c, P, ranks, i);
    return sum;
}

int dg_update_uneven(char *text, size_t size, const Update *u, const Config *c,
                     int64_t P, int ranks)
{
    const int64_t now = dg_update_longest(u, c, P, ranks);
    Config other = *c;
    int64_t then;

    other.grpo.update_split = DG_SPLIT_SAMPLES;
    then = dg_update_longest(u, &other, P, ranks);
    text[0] = '\0';
    if (then >= now)
        return 0;
    snprintf(text, size,
             "ranks wait for each other in updates: an update takes whole "
             "groups, of which not all %d ranks have as many. A pass takes as "
             "long as %lld samples, where each has %lld or fewer; with "
             "grpo.update_split = \"samples\", which makes other updates, as "
             "long as %lld",
             ranks, (long long)now,
             (long long)((u->num_kept + ranks - 1) / ranks), (long long)then);
    return 1;
}

static void assign_updates(Update *u, const Config *c, const Rollout *r)
{
    for (int64_t k = 0; k < u->num_kept; k++)
        u->belongs[k] = part_of(u, c, r->P, k);
}

static int choose_steps(Update *u, const Session *s, const Rollout *r)
{
    const TimestepOpts o = timestep_opts(s->config);
    int err = dg_update_steps(&u->steps_per_item, s->config, r);

    dg_timesteps_weigh(u->weight, s->config->grpo.timestep_weight, r->steps,
                       r->T, &r->window);
    for (int64_t i = 0; i < u->num_local && !err; i++) {
        const int64_t item = u->kept[u->first_kept + i];

        err = dg_timesteps_select(u->steps + i * r->T, &o, r->T, &r->window,
                                  (TimestepPlace) { (uint32_t)r->iteration,
                                                    (uint32_t)(item / r->G),
                                                    (uint32_t)(item % r->G) });
    }
    return err;
}

int dg_update_prepare(Update *u, const Session *s, const Rollout *r)
{
    int err = advantages(u, s, r);

    if (!err)
        err = select_kept(u, s, r);
    if (err)
        return err;
    assign_updates(u, s->config, r);
    u->first_kept = 0;
    while (u->first_kept < u->num_kept && u->kept[u->first_kept] < r->first)
        u->first_kept++;
    u->num_local = 0;
    while (u->first_kept + u->num_local < u->num_kept &&
           u->kept[u->first_kept + u->num_local] < r->first + r->num)
        u->num_local++;
    return choose_steps(u, s, r);
}

int dg_update_spread(Update *u, const Session *s, Rollout *r)
{
    for (int64_t i = 0; i < r->N * r->K; i++)
        r->scores[i] = (RewardScore) { .value = (float)(i / r->K % r->G) };
    return dg_update_prepare(u, s, r);
}
