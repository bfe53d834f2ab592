#include "config/config.h"

#include "base/error.h"
#include "config/option.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef long long Long;

static int is_shells(const char *text)
{
    if (text[0] == '~' && (text[1] == '/' || text[1] == '\0'))
        return 1;
    for (; (text = strchr(text, '$')) != NULL; text++)
        if (text[1] == '{' || text[1] == '_' || isalpha((unsigned char)text[1]))
            return 1;
    return 0;
}

static int check_name(const Option *o, const char *key, const void *base)
{
    const char *text = dg_option_value(o, base);

    if (o->type != OPT_STRING || (o->flags & OPT_SHELL) || !is_shells(text))
        return DG_OK;
    return dg_fail(DG_EINVAL,
                   "%s = \"%.200s\": ~ and $NAME stand for nothing here: must "
                   "be in full, or come from the shell, as in --set "
                   "run.dir=\"$HOME/run\"",
                   key, text);
}

int dg_config_check_names(const Config *c)
{
    int num, err = DG_OK;
    const Option *rows = dg_option_table(&num);

    for (int i = 0; i < num && !err; i++) {
        const Option *o = &rows[i];

        err = check_name(o, o->key, c);
        for (int j = 0; j < o->num_sub * (int)c->num_rewards && !err; j++) {
            const Option *sub = &o->sub[j % o->num_sub];
            const int at = j / o->num_sub;
            char key[80];

            snprintf(key, sizeof key, "%s[%d].%s", o->key, at, sub->key);
            err = check_name(sub, key, &c->rewards[at]);
        }
    }
    return err;
}

static int check_flux(const FluxSizes *f, const T5Sizes *t5,
                      const ClipSizes *clip)
{
    int64_t sum = 0;

    for (int i = 0; i < DG_CONFIG_AXES; i++) {
        sum += f->axes_dims[i];
        if (f->axes_dims[i] % 2)
            return dg_fail(DG_EINVAL, "flux.axes_dims: %lld: must be even",
                           (Long)f->axes_dims[i]);
    }
    if (sum != f->head_dim)
        return dg_fail(DG_EINVAL,
                       "flux.axes_dims: their sum is %lld: must be "
                       "flux.head_dim = %lld",
                       (Long)sum, (Long)f->head_dim);
    if (f->joint_attention_dim != t5->d_model)
        return dg_fail(DG_EINVAL,
                       "flux.joint_attention_dim = %lld: must be "
                       "t5.d_model = %lld",
                       (Long)f->joint_attention_dim, (Long)t5->d_model);
    if (f->pooled_dim != clip->hidden)
        return dg_fail(DG_EINVAL,
                       "flux.pooled_dim = %lld: must be clip.hidden = %lld",
                       (Long)f->pooled_dim, (Long)clip->hidden);
    return DG_OK;
}

static int check_unet(const UnetSizes *u, const ClipSizes *clip)
{
    if (u->num_levels == 0)
        return dg_fail(DG_EINVAL,
                       "policy.path and unet.block_out_channels are empty: "
                       "with policy.kind = sd one must give the network, a "
                       "folder or sizes");
    if (u->cross_attention_dim != clip->hidden)
        return dg_fail(DG_EINVAL,
                       "unet.cross_attention_dim = %lld: must be clip.hidden = "
                       "%lld",
                       (Long)u->cross_attention_dim, (Long)clip->hidden);
    return DG_OK;
}

/* Sizes count where the network is made of them, not a folder's. */
static int check_policy(const Config *c)
{
    const PolicyConfig *p = &c->policy;
    int err;

    if (p->path[0] != '\0')
        return DG_OK;
    err = p->kind == DG_POLICY_SD ? check_unet(&c->unet, &c->clip)
                                  : check_flux(&c->flux, &c->t5, &c->clip);
    if (!err && c->clip.hidden % c->clip.heads)
        err = dg_fail(DG_EINVAL,
                      "clip.hidden = %lld: must be a multiple of "
                      "clip.heads = %lld",
                      (Long)c->clip.hidden, (Long)c->clip.heads);
    return err;
}

static int check_decay(const SamplerConfig *s)
{
    const int linear = s->window_decay == DG_WINDOW_LINEAR;

    if (s->window_move != DG_WINDOW_SLIDE)
        return dg_fail(DG_EINVAL,
                       "sampler.window_decay = %s: needs "
                       "sampler.window_move = slide",
                       linear ? "linear" : "exp");
    if (s->window_every == 0)
        return dg_fail(DG_EINVAL,
                       "sampler.window_decay = %s: needs "
                       "sampler.window_every > 0",
                       linear ? "linear" : "exp");
    if (linear && s->window_every_least > s->window_every)
        return dg_fail(DG_EINVAL,
                       "sampler.window_every_least = %lld: must be at most "
                       "sampler.window_every = %lld",
                       (Long)s->window_every_least, (Long)s->window_every);
    return DG_OK;
}

static int check_window(const SamplerConfig *s)
{
    /* the last step is never trained: its transition ends at sigma 0 */
    const int64_t end = s->window_end > 0 ? s->window_end : s->steps - 1;
    const char *const what =
        s->window_end > 0 ? "sampler.window_end" : "sampler.steps - 1";
    const int drawn = s->window_move == DG_WINDOW_RANDOM;
    const int64_t most = drawn ? end - s->window_start : end;

    if (end > s->steps - 1)
        return dg_fail(DG_EINVAL,
                       "sampler.window_end = %lld: must be at most "
                       "sampler.steps - 1 = %lld",
                       (Long)end, (Long)s->steps - 1);
    if (s->window_start >= end)
        return dg_fail(DG_EINVAL,
                       "sampler.window_start = %lld: must be less than %s = "
                       "%lld",
                       (Long)s->window_start, what, (Long)end);
    if (s->window_size > most)
        return dg_fail(DG_EINVAL,
                       "sampler.window_size = %lld: must be at most %s%s = "
                       "%lld",
                       (Long)s->window_size, what,
                       drawn ? " - sampler.window_start" : "", (Long)most);
    if (drawn && s->window_every == 0)
        return dg_fail(DG_EINVAL, "sampler.window_move = random: needs "
                                  "sampler.window_every > 0");
    return s->window_decay != DG_WINDOW_EVEN ? check_decay(s) : DG_OK;
}

/* Levels of a DDIM schedule are the network's own, not to be spread. */
static int check_solver(const Config *c)
{
    const SamplerConfig *s = &c->sampler;

    if (s->window_solver == DG_SOLVER_ODE)
        return DG_OK;
    if (s->window_size == 0)
        return dg_fail(DG_EINVAL, "sampler.window_solver = dpmpp_2m: needs "
                                  "sampler.window_size > 0");
    if (c->policy.prediction == DG_PREDICT_EPSILON)
        return dg_fail(DG_EINVAL,
                       "sampler.window_solver = dpmpp_2m: must be ode with "
                       "policy.prediction = epsilon");
    return DG_OK;
}

static int check_sampler(const SamplerConfig *s)
{
    if (s->sde == DG_SDE_CPS && s->eta > 1)
        return dg_fail(DG_EINVAL,
                       "sampler.eta = %g: must be in [0, 1] with "
                       "sampler.sde = cps",
                       s->eta);
    return s->window_size > 0 ? check_window(s) : DG_OK;
}

/* A DDIM step of n leads 1000 / n times down: there must be one. */
static int check_epsilon(const Config *c)
{
    if (c->policy.prediction != DG_PREDICT_EPSILON)
        return DG_OK;
    if (c->sampler.steps > 999)
        return dg_fail(DG_EINVAL,
                       "sampler.steps = %lld: must be at most 999 with "
                       "policy.prediction = epsilon",
                       (Long)c->sampler.steps);
    if (c->evaluate.steps > 999)
        return dg_fail(DG_EINVAL,
                       "evaluate.steps = %lld: must be at most 999 with "
                       "policy.prediction = epsilon",
                       (Long)c->evaluate.steps);
    return DG_OK;
}

static int check_cfg(const Config *c)
{
    if (c->cfg.scale == 0 && c->cfg.grad == DG_CFG_DETACH_UNCOND)
        return dg_fail(DG_EINVAL,
                       "cfg.scale = 0: must not be 0 with cfg.grad = "
                       "detach_uncond, which would leave no gradient");
    return DG_OK;
}

static int check_guard(const GrpoConfig *g, const SamplerConfig *s)
{
    if (g->ratio != DG_RATIO_GUARD)
        return DG_OK;
    if (s->sde == DG_SDE_CPS && !s->cps_gaussian)
        return dg_fail(DG_EINVAL, "sampler.cps_gaussian = false: must be true "
                                  "with grpo.ratio = guard");
    return DG_OK;
}

static int check_grpo(const GrpoConfig *g, const SamplerConfig *s)
{
    const int64_t kept = g->keep_top + g->keep_bottom;
    const int64_t trained = g->best_of_n ? kept : g->num_generations;

    if (g->best_of_n && (kept < 1 || kept > g->num_generations))
        return dg_fail(DG_EINVAL,
                       "grpo.keep_top + grpo.keep_bottom = %lld: must be in "
                       "[1, grpo.num_generations = %lld]",
                       (Long)kept, (Long)g->num_generations);
    if (g->updates_per_iteration > trained * g->prompts_per_iteration)
        return dg_fail(DG_EINVAL,
                       "grpo.updates_per_iteration = %lld: must be at most "
                       "the %lld trained samples of an iteration",
                       (Long)g->updates_per_iteration,
                       (Long)(trained * g->prompts_per_iteration));
    if (g->update_split == DG_SPLIT_GROUPS &&
        g->prompts_per_iteration % g->updates_per_iteration)
        return dg_fail(DG_EINVAL,
                       "grpo.update_split = groups: grpo.prompts_per_iteration "
                       "= %lld must be a multiple of "
                       "grpo.updates_per_iteration = %lld",
                       (Long)g->prompts_per_iteration,
                       (Long)g->updates_per_iteration);
    if (g->timestep_mode == DG_TIMESTEP_WINDOW && s->window_size == 0)
        return dg_fail(DG_EINVAL, "grpo.timestep_mode = window: needs "
                                  "sampler.window_size > 0");
    return check_guard(g, s);
}

static int check_rewards(const Config *c)
{
    for (int64_t i = 0; i < c->num_rewards; i++) {
        if (c->rewards[i].name[0] == '\0')
            return dg_fail(DG_EINVAL, "rewards: element %lld has no name",
                           (Long)i + 1);
        for (int64_t j = 0; j < i; j++)
            if (strcmp(c->rewards[i].name, c->rewards[j].name) == 0)
                return dg_fail(DG_EINVAL, "rewards: '%s' is listed twice",
                               c->rewards[i].name);
    }
    return DG_OK;
}

void dg_config_settle(Config *c)
{
    if (c->policy.text_length == 0)
        c->policy.text_length =
            c->policy.kind == DG_POLICY_FLUX && c->policy.path[0] != '\0' ? 512
                                                                          : 32;
    if (c->sampler.decode == DG_DECODE_AUTO)
        c->sampler.decode = c->policy.prediction == DG_PREDICT_EPSILON
                                ? DG_DECODE_ZT
                                : DG_DECODE_X0;
}

static int check_memory(const Config *c)
{
    if (c->parallel.offload_optimizer && c->run.device == DG_DEVICE_CPU)
        return dg_fail(DG_EINVAL,
                       "parallel.offload_optimizer = true: must be false with "
                       "run.device = \"cpu\", whose memory is the host's");
    if (c->parallel.offload_ema && c->run.device == DG_DEVICE_CPU)
        return dg_fail(DG_EINVAL,
                       "parallel.offload_ema = true: must be false with "
                       "run.device = \"cpu\", whose memory is the host's");
    if (c->parallel.offload_sums && c->run.device == DG_DEVICE_CPU)
        return dg_fail(DG_EINVAL,
                       "parallel.offload_sums = true: must be false with "
                       "run.device = \"cpu\", whose memory is the host's");
    return DG_OK;
}

int dg_config_check(const Config *c)
{
    int err = check_policy(c);

    if (!err)
        err = check_sampler(&c->sampler);
    if (!err)
        err = check_solver(c);
    if (!err)
        err = check_epsilon(c);
    if (!err)
        err = check_cfg(c);
    if (!err)
        err = check_grpo(&c->grpo, &c->sampler);
    if (!err)
        err = check_rewards(c);
    if (!err)
        err = check_memory(c);
    if (!err && c->run.dir[0] == '\0')
        err = dg_fail(DG_EINVAL, "run.dir is empty: must name a folder");
    if (!err && c->prompts.file[0] == '\0' && c->prompts.world == DG_WORLD_NONE)
        err = dg_fail(DG_EINVAL, "prompts.file is empty: must name a file, or "
                                 "prompts.world a world");
    return err;
}

int dg_config_check_train(const Config *c)
{
    int err = dg_config_check(c);

    if (err)
        return err;
    if (c->num_rewards == 0)
        return dg_fail(DG_EINVAL, "rewards is empty: must name at least one, "
                                  "({ name = \"shapes\"; weight = 1.0; })");
    if (c->sampler.sde == DG_SDE_ODE)
        return dg_fail(DG_EINVAL,
                       "sampler.sde = ode: training needs a transition with "
                       "noise: one of dance | flow_sde | cps | ddim");
    if (c->sampler.eta == 0)
        return dg_fail(DG_EINVAL, "sampler.eta = 0: training needs noise, "
                                  "must be > 0");
    return DG_OK;
}
