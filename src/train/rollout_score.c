/* Pictures of a rank's trajectories, and their scores. */
#include "train/rollout.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>

/* What kernels work on. */
static float *in_of(const Rollout *r, int which)
{
    return r->in[which].at;
}

static size_t picture_bytes(const Policy *p)
{
    return (sizeof(float) * 3 * (size_t)(p->shape.height * p->shape.width) +
            63) &
           ~(size_t)63;
}

size_t dg_rollout_scratch(const Policy *p, const Reward *rewards, int64_t K)
{
    const size_t sampling = dg_sampling_scratch(p);
    const size_t scoring =
        picture_bytes(p) +
        dg_rewards_scratch(rewards, K, p->shape.height, p->shape.width);

    return sampling > scoring ? sampling : scoring;
}

static int see_prompt(Worker *w, int64_t i, void *user)
{
    const Scoring *j = user;
    const Rollout *r = j->rollout;

    return dg_rewards_encode(j->rewards, r->K, &w->ctx,
                             &j->prompts->item[r->prompt[r->first_prompt + i]],
                             r->features + i * r->num_features);
}

/* A sample that has any score, to its group. */
static void add_picture(Rollout *r, int64_t item, const float *rgb,
                        const PolicyShape *shape)
{
    int32_t cells[DG_DIVERSITY_CELLS];
    int scored = 0;

    for (int64_t k = 0; k < r->K; k++)
        scored |= !r->scores[item * r->K + k].missing;
    if (!scored || !dg_diversity_cells(cells, rgb, shape->height, shape->width))
        return;
#pragma omp critical(dg_rollout_picture)
    dg_diversity_add(&r->pictures[item / r->G], cells);
}

/* An item that is scored. */
typedef struct Judged {
    const Scoring *scoring;
    int64_t item;
} Judged;

/* Why the first of them is missing. */
static void note_missing(void *user, int64_t k)
{
    const Judged *judged = user;
    Rollout *r = judged->scoring->rollout;
    const int64_t item = judged->item;

#pragma omp critical(dg_rollout_note)
    {
        if (item < r->why[k].item) {
            r->why[k].item = item;
            snprintf(r->why[k].text, sizeof r->why[k].text, "%.300s",
                     dg_last_error()->text);
        }
        if (item < r->note_item) {
            r->note_item = item;
            snprintf(r->note, sizeof r->note,
                     "iteration %lld, prompt %lld, sample %lld: reward %s is "
                     "missing: %.300s",
                     (long long)r->iteration + 1,
                     (long long)r->prompt[item / r->G],
                     (long long)(item % r->G), judged->scoring->rewards[k].name,
                     dg_last_error()->text);
        }
    }
}

/* One that is not finite is shown to no reward. */
static void set_aside(const Scoring *j, int64_t item)
{
    Rollout *r = j->rollout;

    for (int64_t k = 0; k < r->K; k++)
        r->scores[item * r->K + k] =
            (RewardScore) { NAN, NAN, DG_SCORE_SPOILT };
#pragma omp critical(dg_rollout_note)
    {
        if (item < r->spoilt.item) {
            r->spoilt.item = item;
            snprintf(r->spoilt.text, sizeof r->spoilt.text, "%.300s",
                     dg_last_error()->text);
        }
        if (item < r->note_item) {
            r->note_item = item;
            snprintf(r->note, sizeof r->note,
                     "iteration %lld, prompt %lld, sample %lld: %.360s",
                     (long long)r->iteration + 1,
                     (long long)r->prompt[item / r->G],
                     (long long)(item % r->G), dg_last_error()->text);
        }
    }
}

static int score_one(Worker *w, int64_t i, void *user)
{
    const Scoring *j = user;
    Rollout *r = j->rollout;
    const int64_t item = r->first + i;
    float *rgb = w->scratch;
    Judged judged = { j, item };
    RewardInput in = { .rgb = rgb,
                       .height = j->policy->shape.height,
                       .width = j->policy->shape.width,
                       .prompt = &j->prompts->item[r->prompt[item / r->G]],
                       .ctx = &w->ctx,
                       .scratch =
                           (char *)w->scratch + picture_bytes(j->policy) };
    const float *latent = in_of(r, DG_ROLLOUT_FINAL) + i * r->D;
    /* one that is missing before: the sampler set the sample aside */
    const int seen = r->K > 0 && !r->scores[item * r->K].missing;
    int err = seen ? dg_sampling_paint(w, j->policy, latent, rgb)
                   : dg_policy_decode(j->policy, &w->ctx, latent, rgb);

    if (seen && err == DG_ENUMERIC) {
        set_aside(j, item);
        return DG_OK;
    }
    if (r->features != NULL)
        in.features =
            r->features + (item / r->G - r->first_prompt) * r->num_features;
    if (!err && seen)
        err = dg_rewards_score(j->rewards, r->K, &in, &r->scores[item * r->K],
                               note_missing, &judged);
    if (!err)
        add_picture(r, item, rgb, &j->policy->shape);
    return err;
}

static int64_t num_seen(const Rollout *r)
{
    return r->features != NULL ? r->num_prompts : 0;
}

/* An item's trajectory to the host. */
static int bring_down(const Worker *w, const Rollout *r, int64_t i)
{
    const Backend *be = w->ctx.backend;
    const int64_t all = (r->T + 1) * r->D, D = r->D;
    const int err = be->download(r->latents + i * all,
                                 in_of(r, DG_ROLLOUT_LATENTS) + i * all,
                                 sizeof *r->latents * (size_t)all);

    return err ? err
               : be->download(r->final + i * D,
                              in_of(r, DG_ROLLOUT_FINAL) + i * D,
                              sizeof *r->final * (size_t)D);
}

/* First what networks make of the prompts, then the items. */
static int score_beside(Worker *w, int64_t i, void *user)
{
    const Scoring *s = user;
    const int64_t seen = num_seen(s->rollout);
    int err;

    if (i < seen)
        return see_prompt(w, i, user);
    err = score_one(w, i - seen, user);
    return err || !s->fetch ? err : bring_down(w, s->rollout, i - seen);
}

void dg_rollout_score_beside(Scoring *s)
{
    if (s->beside == NULL)
        return;
    s->rollout->scoring = s;
    dg_beside_start(s->beside, score_beside, s);
    dg_beside_give(s->beside, num_seen(s->rollout));
}

int dg_rollout_score(Scoring *s, Team *team)
{
    Rollout *r = s->rollout;
    int err = DG_OK;

    if (r->scoring != NULL) {
        r->scoring = NULL;
        err = dg_beside_finish(s->beside);
        r->fetched = !err && s->fetch;
        return err;
    }
    err = dg_team_run(team, num_seen(r), see_prompt, s);
    return err ? err : dg_team_run(team, r->num, score_one, s);
}

/* The first of all ranks'. */
static void share_first(const Rollout *r, const Comm *c, RolloutWhy *why)
{
    dg_comm_min_i64(c, &why->item, 1);
    dg_comm_bcast(c, why->text, sizeof why->text,
                  dg_share_owner(r->N, c->size, why->item));
}

/* All know by the scores whether there is one. */
static void share_why(Rollout *r, const Comm *c)
{
    int spoilt = 0;

    for (int64_t k = 0; k < r->K; k++) {
        int missing = 0;

        for (int64_t i = k; i < r->N * r->K; i += r->K) {
            missing |= r->scores[i].missing == DG_SCORE_FAILED ||
                       r->scores[i].missing == DG_SCORE_NONE;
            spoilt |= r->scores[i].missing == DG_SCORE_SPOILT;
        }
        if (missing)
            share_first(r, c, &r->why[k]);
    }
    if (spoilt)
        share_first(r, c, &r->spoilt);
}

void dg_rollout_share(Rollout *r, const Comm *c)
{
    const size_t words = sizeof *r->pictures / sizeof(int64_t);

    dg_comm_share_items(c, r->scores, r->N, sizeof *r->scores * (size_t)r->K);
    dg_comm_sum_i64(c, (int64_t *)r->pictures, r->P * (int64_t)words);
    share_why(r, c);
}
