/* What a run is refused for before its weights are read, which may take minutes: a
 * word that is misspelt is told at once. */
#include "trainer.h"

#include "base/error.h"
#include "train/cache.h"
#include "train/sampling.h"
#include "train/setup.h"

#include <stdio.h>

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
    if (c->lora.rank > 0 && c->policy.weights[0] == '\0' &&
        c->policy.path[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "lora.rank = %lld: adapters need trained weights below "
                       "them: policy.weights must name some, or policy.path a "
                       "folder",
                       (long long)c->lora.rank);
    return DG_OK;
}

static int open_prompts(Trainer *t)
{
    const Config *c = t->session->config;
    int err;

    if (t->prompts.num > 0) /* given */
        return DG_OK;
    if (c->prompts.file[0] == '\0')
        return dg_fail(DG_EINVAL, "prompts.file = \"\": must name a prompts "
                                  "file (.jsonl or .txt)");
    err = dg_setup_prompts(t->session, c->prompts.file, &t->prompts);
    if (!err && c->prompts.eval_file[0] != '\0')
        err = dg_setup_prompts(t->session, c->prompts.eval_file, &t->heldout);
    return err ? err : dg_trainer_read_heldout(t);
}

/* All windows that will come have steps to train, and updates samples. */
static int check_steps(const Config *c, const Policy *sizes)
{
    Rollout *r = NULL;
    Update unused;
    int err = dg_rollout_of_steps(&r, c, sizes);

    if (!err)
        err = dg_update_outline(&unused, c, r);
    if (!err)
        err = dg_update_check_steps(c, r);
    dg_rollout_destroy(r);
    return err;
}

static int open_cache(Trainer *t, const Policy *sizes)
{
    const Session *s = t->session;
    const PromptsConfig *c = &s->config->prompts;
    int err = dg_cache_open(&t->cache, s, sizes);

    if (!err)
        err = dg_cache_check(t->cache, s, sizes, &t->prompts, c->file);
    if (!err)
        err = dg_cache_check(t->cache, s, sizes, &t->heldout, c->eval_file);
    return err ? err
               : dg_cache_check(t->cache, s, sizes, &t->evaluated,
                                s->config->evaluate.file);
}

static int check_sizes(Trainer *t, const Policy *sizes)
{
    const Session *s = t->session;
    const Config *c = s->config;
    int err = dg_rewards_check_picture(t->rewards, c->num_rewards,
                                       sizes->shape.height, sizes->shape.width);

    if (!err)
        err = dg_setup_check_words(s, sizes, &t->prompts, c->prompts.file);
    if (!err)
        err = dg_rewards_check_prompts(t->rewards, c->num_rewards, &t->prompts);
    if (!err)
        err = dg_trainer_check_heldout(t, sizes);
    if (!err)
        err = dg_agree(s->comm, check_steps(c, sizes));
    return err ? err : open_cache(t, sizes);
}

/* The rewards' files and words, and libraries of the user's. */
static int prepare_rewards(Trainer *t)
{
    const Session *s = t->session;
    const int64_t num = s->config->num_rewards;
    int err;

    dg_rewards_seat(t->rewards, num, dg_session_gpu(s));
    err = dg_rewards_prepare(t->rewards, s->config, num, s->comm);
    return err ? err
               : dg_agree(s->comm,
                          dg_rewards_read(t->rewards, num, &t->prompts));
}

int dg_trainer_check_all(Trainer *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    Policy *sizes = NULL;
    int err = dg_trainer_check(c);

    if (!err)
        err = dg_setup_check_cache(c);
    if (!err)
        err = dg_setup_check_threads(s);
    if (!err)
        err = dg_agree(s->comm, dg_team_threads(s->num_threads));
    if (!err)
        err = dg_rewards_init(t->rewards, c);
    if (!err)
        err = open_prompts(t);
    if (!err)
        err = dg_setup_sizes(s, &sizes);
    if (!err)
        err = check_sizes(t, sizes);
    if (!err)
        err = prepare_rewards(t);
    if (!err)
        err = dg_setup_find_weights(s, sizes);
    dg_policy_destroy(sizes);
    return err;
}

/* --- what a resume compares ---------------------------------------------- */

/* version: NULL: it is a digest's, in text[1]. */
static void add_note(Trainer *t, const char *key, const char *version,
                     const char *of)
{
    const int i = t->learner->num_notes++;
    char(*text)[80] = t->frozen_text[i];

    snprintf(text[0], sizeof text[0], "%s", key);
    snprintf(text[2], sizeof text[2], "%s", of);
    t->frozen[i] = (CheckpointNote) { .key = text[0],
                                      .value = version ? version : text[1],
                                      .of = text[2],
                                      .is_version = version != NULL };
    t->learner->notes = t->frozen;
}

/* digest 0: they have none of their own, or are drawn from the seed. */
static void note_frozen(Trainer *t, uint64_t digest, const char *key,
                        const char *of)
{
    char(*text)[80] = t->frozen_text[t->learner->num_notes];

    if (digest == 0)
        return;
    snprintf(text[1], sizeof text[1], "%016llx", (unsigned long long)digest);
    add_note(t, key, NULL, of);
}

/* A program's weights are its own; it may say which they are. */
static void note_version(Trainer *t, const Reward *r, int k)
{
    const char *version = dg_reward_version(r);
    char key[40], of[80];

    if (version == NULL)
        return;
    snprintf(key, sizeof key, "reward_version_%d", k);
    snprintf(of, sizeof of, "the program of rewards[%d], %.40s", k, r->name);
    add_note(t, key, version, of);
}

/* KL's reference is what the run starts from, which adapters name as their base;
 * what is drawn from the seed is the same again. */
static int note_reference(Trainer *t)
{
    const Session *s = t->session;
    uint64_t digest;
    int err;

    if (t->reference == NULL || t->policy->adapters.num_params > 0 ||
        !dg_setup_has_weights(s->config))
        return DG_OK;
    err = dg_learner_value_digest(t->learner, s->comm, &digest);
    if (!err)
        note_frozen(t, digest, "frozen_reference", "weights of KL's reference");
    return err;
}

static int note_prompts(Trainer *t)
{
    const int i = t->learner->num_notes;
    const int err = dg_agree(
        t->session->comm, dg_prompts_digest(t->frozen_text[i][1], &t->prompts));

    if (!err)
        add_note(t, "prompts_sha256", NULL, "prompts in prompts.file");
    return err;
}

int dg_trainer_note_frozen(Trainer *t)
{
    const int64_t num = t->session->config->num_rewards;
    int err;

    t->learner->num_notes = 0;
    err = note_prompts(t);
    if (!err)
        err = note_reference(t);
    if (err)
        return err;
    if (t->policy->codec != NULL)
        note_frozen(t, t->policy->codec->digest, "frozen_decoder",
                    "weights of the decoder of pictures");
    for (int64_t k = 0; k < num; k++) {
        char key[40], of[80];

        snprintf(key, sizeof key, "frozen_reward_%lld", (long long)k);
        snprintf(of, sizeof of, "weights of rewards[%d], %.40s", (int)k,
                 t->rewards[k].name);
        note_frozen(t, dg_reward_digest(&t->rewards[k]), key, of);
        note_version(t, &t->rewards[k], (int)k);
    }
    return DG_OK;
}
