/* The file of weights that pretraining ends with. */
#include "base/error.h"
#include "base/log.h"
#include "pretrain_setup.h"
#include "store/weights_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Tensors of the network, then of the text encoders, and where in the trained
 * values each is. */
typedef struct Listed {
    const Pretrain *run;
    WeightTensor *tensors;
    int64_t *first;
    int num;
} Listed;

static void add_tensor(Listed *l, const Param *q, int64_t base)
{
    WeightTensor *to = &l->tensors[l->num];

    to->name = q->name;
    to->num_dims = q->value.num_dims;
    for (int k = 0; k < q->value.num_dims; k++)
        to->dims[k] = q->value.dims[k];
    l->first[l->num++] = base + q->value.param_offset;
}

static int list(Listed *l, const Pretrain *t)
{
    const Policy *p = t->policy;
    const size_t num = (size_t)(p->net.num_params + p->text.num_params);

    *l = (Listed) { .run = t,
                    .tensors = calloc(num, sizeof *l->tensors),
                    .first = calloc(num, sizeof *l->first) };
    if (l->tensors == NULL || l->first == NULL)
        return dg_fail(DG_ENOMEM, "weights");
    for (int i = 0; i < p->net.num_params; i++)
        add_tensor(l, p->net.params[i], 0);
    for (int i = 0; i < p->text.num_params; i++)
        add_tensor(l, p->text.params[i], p->net.count);
    return DG_OK;
}

static int fetch(void *user, const WeightTensor *t, float *to)
{
    const Listed *l = user;
    const Pretrain *run = l->run;
    int64_t num = 1;

    for (int k = 0; k < t->num_dims; k++)
        num *= t->dims[k];
    return dg_learner_gather(run->learner, run->session->comm, to,
                             l->first[t - l->tensors], num);
}

/* The averaged weights, if there are any. */
static int write_averaged(Pretrain *t, const char *path,
                          const WeightsContent *content)
{
    const Session *s = t->session;
    int err = dg_pretrain_wait_files(t);

    if (!err)
        err = dg_learner_swap_ema(t->learner);
    if (!err)
        err = dg_agree(s->comm, dg_learner_fetch(t->learner, s->comm));
    if (!err)
        err = dg_weights_write(s->comm, path, DG_H5_F16, content, &s->info);
    return err ? err : dg_learner_swap_ema(t->learner);
}

/* By the strict score, where the reward has one. */
static void describe_score(char *text, size_t bytes, const Evaluation *e)
{
    const int strict = !isnan(e->all.strict.mean);
    char score[DG_INTERVAL_BYTES];

    dg_interval_text(score, strict ? &e->all.strict : &e->all.reward, 4);
    if (e->prompts == 0)
        snprintf(text, bytes, "not evaluated");
    else
        snprintf(text, bytes, "held-out %s %s", strict ? "strict" : "reward",
                 score);
}

static int write_listed(Pretrain *t, Listed *l)
{
    const Session *s = t->session;
    char path[DG_RUNDIR_PATH + 16], steps[32], seed[32];
    char score[DG_INTERVAL_BYTES + 32];
    const WeightNote notes[] = {
        { "command", s->info.command },
        { "git_commit", s->info.git_commit },
        { "seed", seed },
        { "steps", steps },
        { "final_score", score },
    };
    const WeightsContent content = { .tensors = l->tensors,
                                     .num_tensors = l->num,
                                     .fetch = fetch,
                                     .user = l,
                                     .notes = notes,
                                     .num_notes = 5 };
    Evaluation e;
    int err = dg_pretrain_evaluate(t, &e);

    if (err)
        return err;
    snprintf(path, sizeof path, "%s/weights.h5", t->dir.root);
    snprintf(seed, sizeof seed, "%lld", (long long)s->config->run.seed);
    snprintf(steps, sizeof steps, "%lld", (long long)t->step);
    describe_score(score, sizeof score, &e);
    err = write_averaged(t, path, &content);
    if (!err)
        dg_info("wrote %s (%s)", path, score);
    return err;
}

int dg_pretrain_write_weights(Pretrain *t)
{
    Listed l;
    int err = dg_agree(t->session->comm, list(&l, t));

    if (!err)
        err = write_listed(t, &l);
    free(l.tensors);
    free(l.first);
    return err;
}
