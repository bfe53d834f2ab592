/* Rewards that do not serve: a run would go on to its end and learn nothing of
 * them. */
#include "trainer.h"

#include "base/error.h"

#include <stdio.h>

/* A reward's scores of an iteration, by all ranks. */
typedef struct Tally {
    int64_t there, failed, none, spoilt;
} Tally;

static Tally count(const Rollout *r, int64_t k)
{
    Tally n = { 0 };

    for (int64_t i = k; i < r->N * r->K; i += r->K) {
        n.there += r->scores[i].missing == 0;
        n.failed += r->scores[i].missing == DG_SCORE_FAILED;
        n.none += r->scores[i].missing == DG_SCORE_NONE;
        n.spoilt += r->scores[i].missing == DG_SCORE_SPOILT;
    }
    return n;
}

/* Of a list in a new order for each pass, so many in a row are all of it. */
static int64_t most_unscored(const PromptList *list)
{
    const int64_t all = 2 * (int64_t)list->num - 1;

    return all < DG_TRAINER_UNSCORED ? all : DG_TRAINER_UNSCORED;
}

/* Pictures of which none is finite, whatever a reward would say of them. */
static int64_t all_spoilt(const Rollout *r)
{
    const Tally n = count(r, 0);

    return n.there + n.failed + n.none == 0 ? n.spoilt : 0;
}

static void name_spoilt(char text[DG_TRAINER_MISSING], const Rollout *r,
                        int64_t num)
{
    const RolloutWhy *why = &r->spoilt;

    snprintf(text, DG_TRAINER_MISSING,
             "none of %lld pictures is finite, and no reward has seen one; the "
             "first of them, prompt %lld, sample %lld: %.300s",
             (long long)num, (long long)r->prompt[why->item / r->G],
             (long long)(why->item % r->G), why->text);
}

static int failed_for_all(const Tally *n)
{
    return n->there == 0 && n->none == 0 && n->failed > 0;
}

static void name(char text[DG_TRAINER_MISSING], const Trainer *t, int64_t k,
                 const char *what, int64_t num, const char *of)
{
    const Rollout *r = t->rollout;
    const RolloutWhy *why = &r->why[k];

    snprintf(text, DG_TRAINER_MISSING,
             "reward %s %s %lld %s; the first of them, prompt %lld, sample "
             "%lld: %.300s",
             t->rewards[k].name, what, (long long)num, of,
             (long long)r->prompt[why->item / r->G],
             (long long)(why->item % r->G), why->text);
}

static int refuse(const Trainer *t, int64_t k, const char *what, int64_t num,
                  const char *of)
{
    const int64_t done = t->rollout->iteration;
    char text[DG_TRAINER_MISSING];

    name(text, t, k, what, num, of);
    return dg_fail(DG_EREWARD,
                   "iteration %lld: %s. The iteration is not done: mend the "
                   "reward and start the run again, which goes on after "
                   "iteration %lld",
                   (long long)done + 1, text, (long long)done);
}

static int refuse_pictures(const Rollout *r, int64_t num)
{
    char text[DG_TRAINER_MISSING];

    name_spoilt(text, r, num);
    return dg_fail(DG_ENUMERIC,
                   "iteration %lld: %s. The iteration is not done: look at the "
                   "weights of the policy and of its decoder; a run that is "
                   "started again goes on after iteration %lld",
                   (long long)r->iteration + 1, text, (long long)r->iteration);
}

/* unscored: as it is once the iteration is done. */
static int check_one(const Trainer *t, int64_t k, int64_t *unscored)
{
    const Tally n = count(t->rollout, k);

    if (n.there > 0)
        *unscored = 0;
    else if (n.failed + n.none > 0) /* else no reward has seen a picture */
        *unscored += t->rollout->P;
    if (failed_for_all(&n))
        return refuse(t, k, "failed for all", n.failed, "pictures");
    if (n.there == 0 && n.none > 0 && *unscored >= most_unscored(&t->prompts))
        return refuse(t, k, "has had no score for any picture of", *unscored,
                      "prompts in a row");
    return DG_OK;
}

int dg_trainer_check_scores(Trainer *t)
{
    const int64_t K = t->rollout->K;
    const int64_t spoilt = all_spoilt(t->rollout);
    int64_t unscored[DG_CONFIG_REWARDS];
    int err = DG_OK;

    if (spoilt > 0)
        return refuse_pictures(t->rollout, spoilt);
    for (int64_t k = 0; k < K && !err; k++) {
        unscored[k] = t->unscored[k].value;
        err = check_one(t, k, &unscored[k]);
    }
    /* one that ends here is not done: a checkpoint does not have it */
    for (int64_t k = 0; k < K && !err; k++)
        t->unscored[k].value = unscored[k];
    return err;
}

/* By their place, which a run that goes on does not change. */
void dg_trainer_keep_unscored(Trainer *t)
{
    const int K = (int)t->rollout->K;

    for (int k = 0; k < K; k++) {
        snprintf(t->unscored_name[k], sizeof t->unscored_name[k],
                 "unscored_prompts_%d", k);
        t->unscored[k] =
            (CheckpointCounter) { .name = t->unscored_name[k], .optional = 1 };
    }
    t->learner->more = t->unscored;
    t->learner->num_more = K;
}

/* One that has said itself of some pictures that it has no score does its work. */
int dg_trainer_try_scores(const Trainer *t, char text[DG_TRAINER_MISSING])
{
    const int64_t spoilt = all_spoilt(t->rollout);

    text[0] = '\0';
    if (spoilt > 0) {
        name_spoilt(text, t->rollout, spoilt);
        return dg_fail(DG_ENUMERIC, "%s", text);
    }
    for (int64_t k = 0; k < t->rollout->K; k++) {
        const Tally n = count(t->rollout, k);
        const int64_t missing = n.failed + n.none;
        char all[48];

        if (missing == 0 || (n.failed == 0 && n.there > 0))
            continue;
        if (failed_for_all(&n)) {
            name(text, t, k, "failed for all", n.failed, "pictures");
            return dg_fail(DG_EREWARD, "%s", text);
        }
        snprintf(all, sizeof all, "of %lld pictures",
                 (long long)(missing + n.there));
        if (text[0] == '\0')
            name(text, t, k, "has no score for", missing, all);
    }
    return DG_OK;
}
