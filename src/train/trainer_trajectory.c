/* Trajectory files: what the trainer puts into them. doc/formats.md */
#include "trainer.h"

#include "base/error.h"
#include "store/trajectory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ITEMS = 32 };

/* Columns of results, taken apart for the file, and copies of what the next
 * iteration makes anew. */
typedef struct Columns {
    int32_t *step, *clipped;
    float *ratio, *log_prob;
    double *loss;
    float *reward, *strict;
    uint8_t *missing;
    float *advantage, *total;
    int64_t *kept;
    int32_t *update;
    const char **prompts;
    int64_t *prompt_index;
    float *sigma;                                  /* [T + 1] */
    float *time, *mean_z, *mean_u, *mean_x0, *std; /* [T] */
    const char **reward_name;                      /* [K] */
    const char **reward_version;                   /* [K] */
    int versions; /* 1: there is one that is not empty */
    double *reward_weight;
} Columns;

typedef struct Items {
    H5Item item[MAX_ITEMS];
    int num;
} Items;

struct Trajectory {
    Columns columns;
    Items items;
    int64_t iteration;
    SdeWindow window;
};

int dg_trainer_remember(Trainer *t)
{
    const int64_t every = t->session->config->trajectory.every;
    const Shard *s = &t->learner->place.shard;
    const int64_t num = s->num;
    int err;

    if (every == 0 || (t->iteration + 1) % every != 0)
        return DG_OK;
    err = dg_agree(t->session->comm,
                   dg_learner_fetch(t->learner, t->session->comm));
    if (err)
        return err;
    err = dg_policy_get(t->policy, t->before, s->first, num);
    if (!err)
        err = dg_learner_get(t->learner, DG_STATE_M, t->before + num, 0, num);
    if (!err)
        err =
            dg_learner_get(t->learner, DG_STATE_V, t->before + 2 * num, 0, num);
    err = dg_agree(t->session->comm, err);
    if (err)
        return err;
    t->updates_before = t->learner->updates;
    return dg_learner_digest(t->learner, t->session, t->digest_before);
}

static void free_columns(Columns *c)
{
    free(c->step);
    free(c->clipped);
    free(c->ratio);
    free(c->log_prob);
    free(c->loss);
    free(c->reward);
    free(c->strict);
    free(c->missing);
    free(c->advantage);
    free(c->total);
    free(c->kept);
    free(c->update);
    free(c->prompts);
    free(c->prompt_index);
    free(c->sigma);
    free(c->time);
    free(c->mean_z);
    free(c->mean_u);
    free(c->mean_x0);
    free(c->std);
    free(c->reward_name);
    free(c->reward_version);
    free(c->reward_weight);
}

/* num elements, at least one byte; of data a copy. NULL: no memory. */
static void *column(const void *data, int64_t num, size_t size)
{
    const size_t bytes = size * (size_t)num;
    void *to = malloc(bytes + 1);

    if (to != NULL && data != NULL)
        memcpy(to, data, bytes);
    return to;
}

static int reserve_columns(Columns *c, const Rollout *r, const Update *u)
{
    const int64_t terms = u->num_kept * u->steps_per_item;

    c->step = column(NULL, terms, sizeof *c->step);
    c->clipped = column(NULL, terms, sizeof *c->clipped);
    c->ratio = column(NULL, terms, sizeof *c->ratio);
    c->log_prob = column(NULL, terms, sizeof *c->log_prob);
    c->loss = column(NULL, terms, sizeof *c->loss);
    c->reward = column(NULL, r->N * r->K, sizeof *c->reward);
    c->strict = column(NULL, r->N * r->K, sizeof *c->strict);
    c->missing = column(NULL, r->N * r->K, sizeof *c->missing);
    c->advantage = column(u->advantage, r->N * r->K, sizeof *c->advantage);
    c->total = column(u->total, r->N, sizeof *c->total);
    c->kept = column(u->kept, u->num_kept, sizeof *c->kept);
    c->update = column(u->belongs, u->num_kept, sizeof *c->update);
    c->prompts = column(NULL, r->P, sizeof *c->prompts);
    c->prompt_index = column(r->prompt, r->P, sizeof *c->prompt_index);
    c->sigma = column(NULL, r->T + 1, sizeof *c->sigma);
    c->time = column(r->time, r->T, sizeof *c->time);
    c->mean_z = column(NULL, r->T, sizeof *c->mean_z);
    c->mean_u = column(NULL, r->T, sizeof *c->mean_u);
    c->mean_x0 = column(NULL, r->T, sizeof *c->mean_x0);
    c->std = column(NULL, r->T, sizeof *c->std);
    c->reward_name = column(NULL, r->K, sizeof *c->reward_name);
    c->reward_version = column(NULL, r->K, sizeof *c->reward_version);
    c->reward_weight = column(NULL, r->K, sizeof *c->reward_weight);
    if (!c->step || !c->clipped || !c->ratio || !c->log_prob || !c->loss ||
        !c->reward || !c->strict || !c->missing || !c->advantage || !c->total ||
        !c->kept || !c->update || !c->prompts || !c->prompt_index ||
        !c->sigma || !c->time || !c->mean_z || !c->mean_u || !c->mean_x0 ||
        !c->std || !c->reward_name || !c->reward_version || !c->reward_weight)
        return dg_fail(DG_ENOMEM, "trajectory file");
    return DG_OK;
}

static int take_columns(Columns *c, const Trainer *t)
{
    const Rollout *r = t->rollout;
    const Update *u = t->update;
    const int64_t terms = u->num_kept * u->steps_per_item;
    const int err = reserve_columns(c, r, u);

    if (err)
        return err;
    for (int64_t i = 0; i < terms; i++) {
        c->step[i] = u->result[i].step;
        c->clipped[i] = u->result[i].clipped;
        c->ratio[i] = (float)u->result[i].ratio;
        c->log_prob[i] = u->result[i].log_prob;
        c->loss[i] = u->result[i].loss;
    }
    for (int64_t i = 0; i < r->N * r->K; i++) {
        c->reward[i] = r->scores[i].value;
        c->strict[i] = r->scores[i].strict;
        c->missing[i] = r->scores[i].missing != 0;
    }
    for (int i = 0; i < r->T; i++) {
        c->sigma[i] = r->steps[i].sigma;
        c->mean_z[i] = r->steps[i].mean_z;
        c->mean_u[i] = r->steps[i].mean_u;
        c->mean_x0[i] = r->steps[i].mean_x0;
        c->std[i] = r->steps[i].std;
    }
    for (int64_t k = 0; k < r->K; k++) {
        c->reward_name[k] = t->rewards[k].name;
        c->reward_version[k] = dg_reward_version(&t->rewards[k]);
        if (c->reward_version[k] == NULL) /* no program */
            c->reward_version[k] = "";
        c->versions |= c->reward_version[k][0] != '\0';
        c->reward_weight[k] = t->rewards[k].weight;
    }
    c->sigma[r->T] = r->steps[r->T - 1].sigma_next;
    /* a replay has the prompts' conditions alone */
    for (int64_t i = 0; i < r->P && t->prompts.num > 0; i++)
        c->prompts[i] = t->prompts.item[r->prompt[i]].text;
    return DG_OK;
}

static H5Item *put(Items *to, const char *name, H5Type type, const void *data,
                   const char *long_name, const char *axes)
{
    H5Item *i = &to->item[to->num++];

    *i = (H5Item) { .name = name,
                    .type = type,
                    .data = data,
                    .units = "1",
                    .long_name = long_name,
                    .axes = axes };
    return i;
}

static void dims(H5Item *i, int num, int64_t a, int64_t b, int64_t c)
{
    i->num_dims = num;
    i->dims[0] = a;
    i->dims[1] = b;
    i->dims[2] = c;
}

static void share(H5Item *i, int64_t first, int64_t num)
{
    i->shared = 1;
    i->first = first;
    i->num = num;
}

/* Flow-CPS has a log-density that is none, with constants dropped. */
static const char *density(const Config *c)
{
    return c->sampler.sde == DG_SDE_CPS && !c->sampler.cps_gaussian
               ? "-mean over elements of (latents[step + 1] - mean)^2, mean = "
                 "mean_z latents[step] + mean_u u; 0 where std is 0"
               : "-mean over elements of (latents[step + 1] - mean)^2 / (2 "
                 "std^2) - ln std - ln(2 pi) / 2, mean = mean_z latents[step] "
                 "+ mean_u u; 0 where std is 0";
}

static void put_steps(Items *to, const Trainer *t, const Columns *c)
{
    const Rollout *r = t->rollout;

    dims(put(to, "sigma", DG_H5_F32, c->sigma, "noise levels", "step"), 1,
         r->T + 1, 0, 0);
    dims(put(to, "time", DG_H5_F32, c->time, "times given to the network",
             "step"),
         1, r->T, 0, 0);
    dims(put(to, "mean_z", DG_H5_F32, c->mean_z,
             "factor of the latent in a step's mean", "step"),
         1, r->T, 0, 0);
    dims(put(to, "mean_u", DG_H5_F32, c->mean_u,
             "factor of the prediction in a step's mean", "step"),
         1, r->T, 0, 0);
    dims(put(to, "mean_x0", DG_H5_F32, c->mean_x0,
             "factor in it of the data that the step before predicted, 0 but "
             "in steps of second order",
             "step"),
         1, r->T, 0, 0);
    dims(put(to, "std", DG_H5_F32, c->std,
             "standard deviation of a step's noise, 0 without", "step"),
         1, r->T, 0, 0);
}

static const char *next_latent(const Config *c)
{
    return c->sampler.window_solver == DG_SOLVER_ODE
               ? "latents[step + 1] = mean_z latents[step] + mean_u u + std "
                 "noise, u what the network predicts, with guidance"
               : "latents[step + 1] = mean_z latents[step] + mean_u u + "
                 "mean_x0 x0 + std noise, u what the network predicts, with "
                 "guidance, x0 = latents[step - 1] - sigma[step - 1] u of the "
                 "step before";
}

static void put_samples(Items *to, const Trainer *t)
{
    const Rollout *r = t->rollout;
    H5Item *i = put(to, "latents", DG_H5_F32, r->latents,
                    "latents of every step, packed", "item, step, element");

    i->equation = next_latent(t->session->config);
    dims(i, 3, r->N, r->T + 1, r->D);
    share(i, r->first, r->num);
    i = put(to, "log_prob", DG_H5_F32, r->log_prob,
            "log-density of the step taken, mean over elements", "item, step");
    i->units = "nat";
    i->equation = density(t->session->config);
    dims(i, 2, r->N, r->T, 0);
    share(i, r->first, r->num);
    i = put(to, "decoded", DG_H5_F32, r->final, "latent that was decoded",
            "item, element");
    dims(i, 2, r->N, r->D, 0);
    share(i, r->first, r->num);
}

/* A prompt slot is written by the rank that owns its first item. */
static void put_conditions(Items *to, const Trainer *t)
{
    const Rollout *r = t->rollout;
    const int64_t width = t->policy->shape.condition;
    const int64_t from = (r->first + r->G - 1) / r->G;
    const int64_t end = (r->first + r->num + r->G - 1) / r->G;
    H5Item *i = put(to, "condition", DG_H5_F32,
                    r->conditions + (from - r->first_prompt) * width,
                    "encoded prompts: T5 states, then CLIP's pooled state",
                    "prompt, element");

    dims(i, 2, r->P, width, 0);
    share(i, from, r->num > 0 ? end - from : 0);
    if (i->num == 0)
        i->data = r->conditions;
    if (r->uncond != NULL)
        dims(put(to, "uncond", DG_H5_F32, r->uncond,
                 "the empty prompt encoded, for guidance", "element"),
             1, width, 0, 0);
}

static const char *advantage(const Config *c)
{
    if (c->grpo.adv_agg == DG_AGG_REWARD_SUM)
        return c->grpo.adv_std == DG_STD_GLOBAL
                   ? "(reward - mean over the prompt's whole items) / (1e-4 + "
                     "std over all whole items of the sum of reward_weight "
                     "reward, of the population); whole: no reward of weight "
                     "other than 0 is missing; 0 elsewhere, of one whole item "
                     "alone, and where the sums are alike"
                   : "(reward - mean) / (std + 1e-8), mean over the prompt's "
                     "whole items, sample std over them of the sum of "
                     "reward_weight reward; whole: no reward of weight other "
                     "than 0 is missing; 0 elsewhere, of one whole item alone, "
                     "and where the sums are alike";
    return c->grpo.adv_std == DG_STD_GLOBAL
               ? "(reward - mean over the prompt's valid items) / (1e-4 + std "
                 "over all valid items, of the population); 0 where missing, "
                 "of one valid item alone, and where the items are alike"
               : "(reward - mean) / (std + 1e-8), mean and sample std over the "
                 "prompt's valid items; 0 where missing, of one valid item "
                 "alone, and where the items are alike";
}

static void put_scores(Items *to, const Trainer *t, const Columns *c)
{
    const Rollout *r = t->rollout;
    H5Item *i;

    dims(put(to, "reward_name", DG_H5_TEXT, c->reward_name,
             "names of the rewards", "reward"),
         1, r->K, 0, 0);
    dims(put(to, "reward_weight", DG_H5_F64, c->reward_weight, "their weights",
             "reward"),
         1, r->K, 0, 0);
    if (c->versions)
        dims(put(to, "reward_version", DG_H5_TEXT, c->reward_version,
                 "what programs that score say they are", "reward"),
             1, r->K, 0, 0);
    dims(put(to, "prompt", DG_H5_TEXT, c->prompts, "prompts", "prompt"), 1,
         r->P, 0, 0);
    dims(put(to, "prompt_index", DG_H5_I64, c->prompt_index,
             "place in the prompts file", "prompt"),
         1, r->P, 0, 0);
    dims(put(to, "reward", DG_H5_F32, c->reward, "rewards, NaN where missing",
             "item, reward"),
         2, r->N, r->K, 0);
    dims(put(to, "strict", DG_H5_F32, c->strict,
             "strict 0/1 scores, NaN where there is none", "item, reward"),
         2, r->N, r->K, 0);
    dims(put(to, "missing", DG_H5_U8, c->missing, "1 where a score is missing",
             "item, reward"),
         2, r->N, r->K, 0);
    i = put(to, "advantage", DG_H5_F32, c->advantage, "advantages, not clamped",
            "item, reward");
    i->equation = advantage(t->session->config);
    dims(i, 2, r->N, r->K, 0);
}

static const char *ratio(const Config *c)
{
    return c->grpo.ratio == DG_RATIO_GUARD
               ? "exp(std (replayed_log_prob - log_prob + drift)), drift = "
                 "mean "
                 "over elements of (mean now - mean then)^2 / (2 std^2)"
               : "exp(replayed_log_prob - log_prob)";
}

static void put_results(Items *to, const Trainer *t, const Columns *c)
{
    const Update *u = t->update;
    const int64_t n = u->num_kept, s = u->steps_per_item;
    H5Item *i;

    i = put(to, "total_advantage", DG_H5_F32, c->total,
            "weighted sum of advantages, not clamped", "item");
    i->equation = "sum over rewards of reward_weight advantage";
    dims(i, 1, t->rollout->N, 0, 0);
    dims(put(to, "kept", DG_H5_I64, c->kept, "items trained on", "kept"), 1, n,
         0, 0);
    dims(put(to, "update", DG_H5_I32, c->update, "update of the iteration",
             "kept"),
         1, n, 0, 0);
    dims(put(to, "timestep", DG_H5_I32, c->step, "steps trained on",
             "kept, choice"),
         2, n, s, 0);
    i = put(to, "ratio", DG_H5_F32, c->ratio, "policy ratio at its update",
            "kept, choice");
    i->equation = ratio(t->session->config);
    dims(i, 2, n, s, 0);
    i = put(to, "replayed_log_prob", DG_H5_F32, c->log_prob,
            "log-density at its update", "kept, choice");
    i->units = "nat";
    dims(i, 2, n, s, 0);
    dims(put(to, "clipped", DG_H5_I32, c->clipped, "1 where the clip acted",
             "kept, choice"),
         2, n, s, 0);
    dims(put(to, "loss", DG_H5_F64, c->loss, "share of its update's loss",
             "kept, choice"),
         2, n, s, 0);
}

static int fetch_reference(void *user, void *to, int64_t first, int64_t num)
{
    return dg_policy_get(user, to, first, num);
}

/* One value of each parameter, of which a rank may have its range alone. */
static H5Item *put_range(Items *to, const Trainer *t, const char *name,
                         const float *data, const char *long_name)
{
    const Shard *s = &t->learner->place.shard;
    H5Item *i = put(to, name, DG_H5_F32, data, long_name, "parameter");

    dims(i, 1, s->total, 0, 0);
    if (dg_shard_split(s))
        share(i, s->first, s->num);
    return i;
}

static void put_state(Items *to, const Trainer *t)
{
    const int64_t first = t->learner->place.shard.first;
    const int64_t here = t->learner->place.shard.num;
    H5Item *reference;

    put_range(to, t, "state/weights", t->before,
              "trained weights before the iteration");
    put_range(to, t, "state/adam_m", t->before + here,
              "AdamW first moment before it");
    put_range(to, t, "state/adam_v", t->before + 2 * here,
              "AdamW second moment before it");
    /* below adapters it is the base itself */
    if (t->reference == NULL || t->policy->adapters.num_params > 0)
        return;
    reference =
        put_range(to, t, "state/reference", t->reference->net.values + first,
                  "frozen weights of the KL term");
    if (t->reference->dropped > 0) {
        reference->data = NULL;
        reference->fetch = fetch_reference;
        reference->user = t->reference;
    }
}

int dg_trainer_take_trajectory(Trajectory **out, const Trainer *t)
{
    Trajectory *k = calloc(1, sizeof *k);
    int err = k != NULL ? take_columns(&k->columns, t)
                        : dg_fail(DG_ENOMEM, "trajectory file");

    if (!err)
        err = dg_rollout_fetch(t->rollout);
    err = dg_agree(t->session->comm, err);
    if (err) {
        dg_trainer_free_trajectory(k);
        return err;
    }
    k->iteration = t->iteration;
    k->window = t->rollout->window;
    put_samples(&k->items, t);
    put_steps(&k->items, t, &k->columns);
    put_conditions(&k->items, t);
    put_scores(&k->items, t, &k->columns);
    put_results(&k->items, t, &k->columns);
    put_state(&k->items, t);
    *out = k;
    return DG_OK;
}

int dg_trainer_write_trajectory(const Trainer *t, const Trajectory *k,
                                const Session *s)
{
    const ParamSet *trained = dg_policy_trained(t->policy);
    const PolicyShape *shape = &t->policy->shape;
    const int num_notes = trained == &t->policy->adapters ? 9 : 8;
    char after[65];
    int err = dg_agree(s->comm, dg_learner_fetch(t->learner, s->comm));

    if (!err)
        err = dg_learner_digest(t->learner, s, after);
    if (!err) {
        const TrajectoryNote notes[] = {
            { "weights_before_sha256_pieces", t->digest_before, 0 },
            { "weights_after_sha256_pieces", after, 0 },
            { "optimizer_step", NULL, t->updates_before },
            { "window_start", NULL, k->window.start },
            { "window_size", NULL, k->window.size },
            { "num_generations", NULL, t->rollout->G },
            { "height", NULL, shape->height },
            { "width", NULL, shape->width },
            { "base_sha256_pieces", t->policy->base_pieces, 0 },
        };

        dg_session_digests_begin(s);
        err = dg_trajectory_write(s->comm, t->dir.trajectories, k->iteration,
                                  k->items.item, k->items.num, notes, num_notes,
                                  &s->info);
        dg_session_digests_end();
    }
    return err;
}

void dg_trainer_free_trajectory(Trajectory *k)
{
    if (k == NULL)
        return;
    free_columns(&k->columns);
    free(k);
}

/* A replay against the file ----------------------------------------------- */

static double number(const void *data, H5Type type, int64_t i)
{
    switch (type) {
    case DG_H5_F64:
        return ((const double *)data)[i];
    case DG_H5_I32:
        return ((const int32_t *)data)[i];
    case DG_H5_I64:
        return (double)((const int64_t *)data)[i];
    default:
        return (double)((const float *)data)[i];
    }
}

/* Bits, not values; but one NaN is as good as another. */
static int match(H5File *f, const H5Item *of)
{
    const size_t size = dg_h5_type_bytes(of->type);
    const char *now = of->data;
    int64_t num = 1;
    char *then;
    int err;

    for (int i = 0; i < of->num_dims; i++)
        num *= of->dims[i];
    then = malloc(size * (size_t)num + 1);
    if (then == NULL)
        return dg_fail(DG_ENOMEM, "%s", of->name);
    err = dg_h5_read(f, of->name, of->type, of->num_dims, of->dims, then);
    for (int64_t i = 0; i < num && !err; i++)
        if (memcmp(now + (size_t)i * size, then + (size_t)i * size, size) !=
                0 &&
            !(isnan(number(now, of->type, i)) &&
              isnan(number(then, of->type, i))))
            err = dg_fail(DG_EPROMISE,
                          "%s: %s[%lld] is %.17g in the file and %.17g in the "
                          "replay: must be equal bit for bit",
                          dg_h5_path(f), of->name, (long long)i,
                          number(then, of->type, i), number(now, of->type, i));
    free(then);
    return err;
}

/* Files of version 1 lack these, and older ones of version 2 the last. */
static int is_new(const H5Item *i)
{
    static const char *const names[] = { "mean_z", "mean_u", "std", "mean_x0" };

    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        if (strcmp(i->name, names[n]) == 0)
            return 1;
    return 0;
}

int dg_trainer_match_trajectory(const Trainer *t, H5File *f)
{
    Columns c = { 0 };
    Items items = { .num = 0 };
    int err = take_columns(&c, t);

    if (!err) {
        put_steps(&items, t, &c);
        put_results(&items, t, &c);
    }
    for (int i = 0; i < items.num && !err; i++)
        if (!is_new(&items.item[i]) || dg_h5_has(f, items.item[i].name))
            err = match(f, &items.item[i]);
    free_columns(&c);
    return err;
}
