#include "train/rollout.h"

#include "base/error.h"
#include "base/memory.h"
#include "train/cache.h"
#include "train/witness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* the host's alone */
static void *reserve(Rollout *r, int64_t count, size_t size)
{
    const size_t bytes = (size_t)(count > 0 ? count : 1) * size;
    void *p = r->outline ? NULL : dg_memory_new(bytes);

    if (p != NULL || r->outline) {
        r->bytes += bytes;
        r->host_bytes += bytes;
    }
    return p;
}

/* floats of the host and of kernels */
static float *reserve_mirror(Rollout *r, const Policy *p, int which,
                             int64_t count)
{
    const size_t bytes = sizeof(float) * (size_t)(count > 0 ? count : 1);

    if (!r->outline &&
        dg_mirror_new(&r->in[which], p->on, bytes, "trajectories"))
        return NULL;
    r->in[which].bytes = bytes;
    r->bytes += bytes;
    return r->in[which].host;
}

static int reserve_all(Rollout *r, const Policy *p, int guided)
{
    const int most = r->most_steps;

    r->prompt = reserve(r, r->P, sizeof *r->prompt);
    r->order = reserve(r, r->most, sizeof *r->order);
    r->steps = reserve(r, most, sizeof *r->steps);
    r->time = reserve(r, most, sizeof *r->time);
    r->conditions = reserve_mirror(r, p, DG_ROLLOUT_CONDITIONS,
                                   r->num_prompts * p->shape.condition);
    if (guided)
        r->uncond = reserve_mirror(r, p, DG_ROLLOUT_UNCOND, p->shape.condition);
    r->latents =
        reserve_mirror(r, p, DG_ROLLOUT_LATENTS, r->num * (most + 1) * r->D);
    r->log_prob = reserve_mirror(r, p, DG_ROLLOUT_LOG_PROB, r->num * most);
    r->final = reserve_mirror(r, p, DG_ROLLOUT_FINAL, r->num * r->D);
    r->scores = reserve(r, r->N * r->K, sizeof *r->scores);
    r->pictures = reserve(r, r->P, sizeof *r->pictures);
    r->why = reserve(r, r->K, sizeof *r->why);
    if (r->outline)
        return DG_OK;
    if (r->prompt == NULL || r->order == NULL || r->steps == NULL ||
        r->time == NULL || r->conditions == NULL || r->latents == NULL ||
        (guided && r->uncond == NULL) || r->log_prob == NULL ||
        r->final == NULL || r->scores == NULL || r->pictures == NULL ||
        r->why == NULL)
        return dg_fail(DG_ENOMEM,
                       "trajectories of %lld samples (grpo."
                       "prompts_per_iteration x grpo.num_generations / ranks)",
                       (long long)r->num);
    return DG_OK;
}

/* Where a window ends last of all, the most steps are left as they are. */
static int most_steps(const SamplerConfig *c)
{
    const int T = (int)c->steps;
    const int64_t before = c->window_end > 0 ? c->window_end : T - 1;
    const int64_t end = c->window_start + c->window_size;
    const int last = (int)(c->window_every > 0 || end > before ? before : end);

    return c->window_solver == DG_SOLVER_ODE
               ? T
               : last + dg_window_behind(last, T, c->window_compress);
}

static void set_sizes(Rollout *r, const Config *c, const Policy *p,
                      RankPlace at, int64_t most)
{
    r->G = c->grpo.num_generations;
    r->P = c->grpo.prompts_per_iteration;
    r->N = r->G * r->P;
    r->T = r->most_steps = most_steps(&c->sampler);
    r->D = p->shape.elements;
    r->K = c->num_rewards;
    r->most = most;
    dg_share_range(r->N, at.rank, at.size, &r->first, &r->num);
    r->first_prompt = r->first / r->G;
    if (r->num > 0)
        r->num_prompts = (r->first + r->num - 1) / r->G - r->first_prompt + 1;
}

static int make_schedules(Rollout *r, const Config *c, const Policy *p)
{
    const int T = (int)c->sampler.steps;
    int err = dg_policy_schedule(p, &r->schedule, T, c->sampler.shift);

    if (!err && c->sampler.window_solver != DG_SOLVER_ODE)
        err = dg_policy_schedule(p, &r->fewer, T, c->sampler.shift);
    return err;
}

int dg_rollout_create(Rollout **out, const Session *s, const Policy *p,
                      int64_t most)
{
    const Config *c = s->config;
    Rollout *r = calloc(1, sizeof *r);
    int err;

    if (r == NULL)
        return dg_fail(DG_ENOMEM, "rollout");
    set_sizes(r, c, p, (RankPlace) { s->comm->rank, s->comm->size }, most);
    r->time_kind = p->shape.time;
    err = make_schedules(r, c, p);
    if (!err)
        err = reserve_all(r, p, dg_guided_wanted(c));
    if (!err)
        err = dg_witness_reserve(r, c, p, s->comm->size);
    if (err) {
        dg_rollout_destroy(r);
        return err;
    }
    *out = r;
    return DG_OK;
}

int dg_rollout_of_steps(Rollout **out, const Config *c, const Policy *p)
{
    Rollout *r = calloc(1, sizeof *r);
    int err;

    if (r == NULL)
        return dg_fail(DG_ENOMEM, "rollout");
    set_sizes(r, c, p, (RankPlace) { 0, 1 }, 0);
    r->time_kind = p->shape.time;
    r->steps = reserve(r, r->most_steps, sizeof *r->steps);
    r->time = reserve(r, r->most_steps, sizeof *r->time);
    err = r->steps != NULL && r->time != NULL
              ? make_schedules(r, c, p)
              : dg_fail(DG_ENOMEM, "%d steps", r->most_steps);
    if (err)
        dg_rollout_destroy(r);
    else
        *out = r;
    return err;
}

static WindowOpts window_opts(const Config *config)
{
    const SamplerConfig *c = &config->sampler;

    return (WindowOpts) { .start = (int)c->window_start,
                          .size = (int)c->window_size,
                          .every = (int)c->window_every,
                          .end = (int)c->window_end,
                          .move = c->window_move,
                          .seed = (uint64_t)config->run.seed,
                          .stride = (int)c->window_stride,
                          .no_wrap = !c->window_wrap,
                          .decay = c->window_decay,
                          .least = (int)c->window_every_least,
                          .from = (int)c->window_decay_from,
                          .rate = c->window_decay_rate };
}

int64_t dg_rollout_next_window(const Config *c, int64_t iteration)
{
    const WindowOpts window = window_opts(c);

    return dg_window_next(&window, (int)c->sampler.steps, iteration);
}

int dg_rollout_place(Rollout *r, const Config *config, int64_t iteration)
{
    const SamplerConfig *c = &config->sampler;
    const WindowOpts window = window_opts(config);
    const int err = dg_window_at(&r->window, &window, (int)c->steps, iteration);
    const int end = r->window.start + r->window.size;

    if (!err)
        r->T = c->window_solver == DG_SOLVER_ODE
                   ? (int)c->steps
                   : end + dg_window_behind(end, (int)c->steps,
                                            c->window_compress);
    return err;
}

int dg_rollout_outline(Rollout **out, const Config *c, const Policy *p,
                       RankPlace at, int64_t most)
{
    Rollout *r = calloc(1, sizeof *r);
    int err;

    if (r == NULL)
        return dg_fail(DG_ENOMEM, "rollout");
    r->outline = 1;
    set_sizes(r, c, p, at, most);
    *out = r;
    err = dg_rollout_place(r, c, 0);
    if (!err)
        err = reserve_all(r, p, dg_guided_wanted(c));
    return err ? err : dg_witness_reserve(r, c, p, at.size);
}

void dg_rollout_destroy(Rollout *r)
{
    if (r == NULL)
        return;
    dg_schedule_fini(&r->schedule);
    dg_schedule_fini(&r->fewer);
    free(r->prompt);
    free(r->order);
    free(r->steps);
    free(r->time);
    for (int i = 0; i < DG_ROLLOUT_MIRRORS; i++)
        dg_mirror_free(&r->in[i]);
    for (int i = 0; i < DG_ROLLOUT_MIRRORS; i++)
        free(r->aside[i]);
    dg_mirror_free(&r->witness);
    free(r->scores);
    free(r->pictures);
    free(r->why);
    free(r->features);
    free(r);
}

int dg_rollout_reserve_aside(Rollout *r)
{
    for (int i = 0; i < DG_ROLLOUT_MIRRORS; i++) {
        if (i == DG_ROLLOUT_UNCOND)
            continue;
        r->aside_bytes += r->in[i].bytes;
        if (r->outline)
            continue;
        r->aside[i] = dg_memory_new(r->in[i].bytes);
        if (r->aside[i] == NULL)
            return dg_fail(DG_ENOMEM,
                           "parallel.write_beside: %zu bytes for trajectories "
                           "that wait to be written",
                           r->aside_bytes);
    }
    return DG_OK;
}

void dg_rollout_set_aside(Rollout *r)
{
    for (int i = 0; i < DG_ROLLOUT_MIRRORS; i++)
        if (r->aside[i] != NULL)
            dg_mirror_swap(&r->in[i], &r->aside[i]);
    r->conditions = r->in[DG_ROLLOUT_CONDITIONS].host;
    r->latents = r->in[DG_ROLLOUT_LATENTS].host;
    r->log_prob = r->in[DG_ROLLOUT_LOG_PROB].host;
    r->final = r->in[DG_ROLLOUT_FINAL].host;
}

int dg_rollout_fetch(const Rollout *r)
{
    int err = DG_OK;

    for (int i = 0; i < DG_ROLLOUT_MIRRORS && !err; i++)
        if (!r->fetched || (i != DG_ROLLOUT_LATENTS && i != DG_ROLLOUT_FINAL))
            err = dg_mirror_down(&r->in[i]);
    return err;
}

void dg_rollout_send(const Rollout *r)
{
    for (int i = 0; i < DG_ROLLOUT_MIRRORS; i++)
        dg_mirror_up(&r->in[i]);
}

static float *in_of(const Rollout *r, int which)
{
    return r->in[which].at;
}

/* Prompt k of the endless sequence: a permutation of the list per epoch. */
static void choose_prompts(Rollout *r, const Session *s, int64_t num_prompts)
{
    int64_t epoch = -1;

    if (num_prompts > r->most)
        dg_panic("%lld prompts, room for %lld", (long long)num_prompts,
                 (long long)r->most);
    for (int64_t i = 0; i < r->P; i++) {
        const int64_t k = r->iteration * r->P + i;
        const RngKey key = {
            .seed = (uint64_t)s->config->run.seed,
            .purpose = DG_RNG_PROMPT_ORDER,
            .iteration = (uint32_t)(k / num_prompts),
        };

        if (k / num_prompts != epoch && s->config->prompts.shuffle)
            dg_rng_permutation(r->order, (int32_t)num_prompts, &key);
        epoch = k / num_prompts;
        r->prompt[i] = s->config->prompts.shuffle ? r->order[k % num_prompts]
                                                  : k % num_prompts;
    }
}

int dg_rollout_steps(Rollout *r, const Config *config, int64_t iteration)
{
    const SamplerConfig *c = &config->sampler;
    const SdeOpts sde = { c->sde,
                          c->cps_gaussian || c->sde != DG_SDE_CPS
                              ? DG_LOG_PROB_GAUSSIAN
                              : DG_LOG_PROB_SQUARED,
                          c->eta };
    const Schedule *levels = &r->schedule;
    int err = dg_rollout_place(r, config, iteration), end;

    if (err)
        return err;
    end = r->window.start + r->window.size;
    if (c->window_solver != DG_SOLVER_ODE) {
        levels = &r->fewer;
        dg_schedule_shorten(&r->fewer, &r->schedule, end, r->T - end);
    }
    err = dg_window_steps(r->steps, &sde, levels, &r->window);
    if (!err && c->window_solver != DG_SOLVER_ODE)
        err = dg_window_solve(r->steps, levels, &r->window);
    for (int i = 0; i < r->T && !err; i++)
        r->time[i] = dg_schedule_time(levels, i, r->time_kind);
    return err;
}

int dg_rollout_shared(const Config *c, const SdeWindow *w)
{
    return c->sampler.init_noise == DG_NOISE_PER_PROMPT ? w->start + 1 : 0;
}

int dg_rollout_begin(Rollout *r, const Session *s, int64_t num_prompts,
                     int64_t iteration)
{
    r->iteration = iteration;
    r->fetched = 0;
    r->note[0] = '\0';
    r->note_item = r->N;
    for (int64_t k = 0; k < r->K; k++)
        r->why[k] = (RolloutWhy) { .item = r->N };
    r->spoilt = (RolloutWhy) { .item = r->N };
    memset(r->pictures, 0, sizeof *r->pictures * (size_t)r->P);
    choose_prompts(r, s, num_prompts);
    return dg_rollout_steps(r, s->config, iteration);
}

/* --- encoding ---------------------------------------------------------- */

typedef struct EncodeJob {
    Rollout *r;
    const Policy *policy;
    const PromptList *prompts;
} EncodeJob;

static int encode_one(Worker *w, int64_t i, void *user)
{
    const EncodeJob *j = user;
    const Rollout *r = j->r;

    if (i == r->num_prompts)
        return dg_sampling_encode(w, j->policy, "",
                                  in_of(r, DG_ROLLOUT_UNCOND));
    return dg_sampling_encode(
        w, j->policy, j->prompts->item[r->prompt[r->first_prompt + i]].text,
        in_of(r, DG_ROLLOUT_CONDITIONS) + i * j->policy->shape.condition);
}

static int read_conditions(Rollout *r, const Policy *p,
                           const PromptList *prompts)
{
    int err = DG_OK;

    for (int64_t i = 0; i < r->num_prompts && !err; i++)
        err = dg_cache_read(r->cache,
                            prompts->item[r->prompt[r->first_prompt + i]].text,
                            r->conditions + i * p->shape.condition);
    if (!err && r->uncond != NULL && !r->uncond_known)
        err = dg_cache_read(r->cache, "", r->uncond);
    dg_mirror_up(&r->in[DG_ROLLOUT_CONDITIONS]);
    dg_mirror_up(&r->in[DG_ROLLOUT_UNCOND]);
    return err;
}

int dg_rollout_encode(Rollout *r, Team *team, const Policy *p,
                      const PromptList *prompts)
{
    EncodeJob j = { r, p, prompts };
    const int uncond = r->uncond != NULL && !r->uncond_known;
    const int err =
        r->cache != NULL
            ? read_conditions(r, p, prompts)
            : dg_team_run(team, r->num_prompts + uncond, encode_one, &j);

    if (!err)
        r->uncond_known = r->uncond != NULL;
    return err;
}

Guidance dg_rollout_guidance(const Rollout *r, const Config *c)
{
    return (Guidance) { c->cfg.scale, c->cfg.grad,
                        in_of(r, DG_ROLLOUT_UNCOND) };
}

const float *dg_rollout_condition(const Rollout *r, const Policy *p,
                                  int64_t item)
{
    return in_of(r, DG_ROLLOUT_CONDITIONS) +
           (item / r->G - r->first_prompt) * p->shape.condition;
}

int dg_rollout_reserve_features(Rollout *r, const Reward *rewards)
{
    r->num_features = dg_rewards_num_features(rewards, r->K);
    if (r->num_features == 0)
        return DG_OK;
    r->features =
        reserve(r, r->num_prompts * r->num_features, sizeof *r->features);
    return r->features != NULL || r->outline
               ? DG_OK
               : dg_fail(DG_ENOMEM, "features of %lld prompts",
                         (long long)r->num_prompts);
}
