#include "train/learner.h"

#include "base/error.h"
#include "optim/adamw.h"
#include "optim/grad_norm.h"
#include "store/checkpoint.h"

#include <stdlib.h>
#include <string.h>

/* num floats and their place on the host */
static int new_floats(Mirror *m, float **host, const Policy *p, int64_t num)
{
    const int err =
        dg_mirror_new(m, p->on, sizeof(float) * (size_t)num, "optimizer state");

    *host = m->host;
    return err;
}

int dg_learner_create(Learner **out, Policy *policy, int64_t num,
                      const OptimConfig *o, int64_t num_updates)
{
    const size_t chunks = (size_t)dg_grad_norm_num_chunks(num) + 1;
    Learner *l = calloc(1, sizeof *l);
    int err;

    if (l == NULL)
        return dg_fail(DG_ENOMEM, "learner");
    l->policy = policy;
    l->optim = *o;
    l->lr = (LrOpts) { o->schedule, o->lr, o->warmup, num_updates, 0 };
    l->num = num;
    l->engine = dg_engine_of(policy->on);
    err = dg_policy_masters(policy, num);
    if (!err)
        err = new_floats(&l->grads_in, &l->grads, policy, num);
    if (!err)
        err = new_floats(&l->m_in, &l->m, policy, num);
    if (!err)
        err = new_floats(&l->v_in, &l->v, policy, num);
    if (!err && o->ema_decay > 0)
        err = new_floats(&l->ema_in, &l->ema, policy, num);
    if (!err)
        err = dg_kernel_memory_new(&l->norm_scratch, policy->on,
                                   chunks * sizeof(double));
    if (err) {
        dg_learner_destroy(l);
        return dg_fail(DG_ENOMEM, "optimizer state of %lld parameters",
                       (long long)num);
    }
    if (l->ema != NULL) {
        memcpy(l->ema, policy->values, sizeof(float) * (size_t)num);
        dg_mirror_up(&l->ema_in);
    }
    *out = l;
    return DG_OK;
}

size_t dg_learner_bytes(int64_t num, const OptimConfig *o)
{
    const size_t copies = o->ema_decay > 0 ? 4 : 3;

    return copies * sizeof(float) * (size_t)num +
           sizeof(double) * ((size_t)dg_grad_norm_num_chunks(num) + 1);
}

void dg_learner_destroy(Learner *l)
{
    if (l == NULL)
        return;
    dg_mirror_free(&l->grads_in);
    dg_mirror_free(&l->m_in);
    dg_mirror_free(&l->v_in);
    dg_mirror_free(&l->ema_in);
    dg_kernel_memory_free(l->policy->on, l->norm_scratch);
    free(l);
}

int dg_learner_fetch(const Learner *l)
{
    const Mirror *all[] = { &l->grads_in, &l->m_in, &l->v_in, &l->ema_in };
    int err = dg_policy_fetch(l->policy, l->num);

    for (size_t i = 0; i < sizeof all / sizeof *all && !err; i++)
        err = dg_mirror_down(all[i]);
    return err;
}

void dg_learner_send(const Learner *l)
{
    dg_mirror_up(&l->m_in);
    dg_mirror_up(&l->v_in);
    dg_mirror_up(&l->ema_in);
    dg_policy_send(l->policy);
}

int dg_learner_update(Learner *l, const ExactSum *sum, LearnerStep *out)
{
    const AdamwOpts o = { l->optim.beta1, l->optim.beta2, l->optim.eps,
                          l->optim.weight_decay };
    const double lr = dg_lr_at(&l->lr, l->updates + 1);
    double norm, scale;
    AdamwStep step;
    int err;

    l->engine->exact_read(sum, l->grads_in.at, 1.0);
    err = l->engine->grad_norm(&norm, l->grads_in.at, l->num, l->norm_scratch);
    if (!err)
        err = dg_grad_norm_scale(&scale, norm, l->optim.max_grad_norm);
    if (!err)
        err = dg_adamw_step_init(&step, &o, lr, l->updates + 1, scale);
    if (err)
        return err;
    l->engine->adamw(l->policy->at, l->m_in.at, l->v_in.at, l->grads_in.at,
                     l->num, &step);
    dg_policy_round(l->policy);
    l->updates++;
    *out = (LearnerStep) { norm, lr };
    return DG_OK;
}

void dg_learner_average(Learner *l)
{
    if (l->ema != NULL)
        l->engine->ema(l->ema_in.at, l->policy->at, l->num, l->optim.ema_decay);
}

void dg_learner_swap_ema(Learner *l)
{
    if (l->ema == NULL)
        return;
    l->engine->swap(l->policy->at, l->ema_in.at, l->num);
    dg_policy_round(l->policy);
}

/* --- checkpoints ------------------------------------------------------- */

enum { MAX_ARRAYS = 4, MAX_NOTES = 2 };

typedef struct Content {
    CheckpointArray arrays[MAX_ARRAYS];
    CheckpointCounter counters[1];
    CheckpointNote notes[MAX_NOTES];
    CheckpointParam *params;
    Checkpoint k;
} Content;

static void add_params(CheckpointParam *to, const ParamSet *set, int64_t base)
{
    for (int i = 0; i < set->num_params; i++) {
        const Param *q = set->params[i];

        to[i].name = q->name;
        to[i].offset = base + q->value.param_offset;
        to[i].num_dims = q->value.num_dims;
        for (int k = 0; k < q->value.num_dims; k++)
            to[i].dims[k] = q->value.dims[k];
    }
}

static int new_params(Content *c, int num)
{
    c->k.num_params = num;
    c->params = calloc((size_t)num, sizeof *c->params);
    return c->params != NULL ? DG_OK : dg_fail(DG_ENOMEM, "checkpoint index");
}

static int describe_base(Content *c, const Policy *p)
{
    int err = new_params(c, p->net.num_params + p->text.num_params);

    if (err)
        return err;
    add_params(c->params, &p->net, 0);
    add_params(c->params + p->net.num_params, &p->text, p->net.count);
    return DG_OK;
}

/* The base stays where it is; the file says what it has to be. */
static int describe_adapters(Content *c, const Policy *p)
{
    int err = new_params(c, p->adapters.num_params);

    if (err)
        return err;
    add_params(c->params, &p->adapters, 0);
    c->notes[0] = (CheckpointNote) { "base_path", p->base_path, 0 };
    c->notes[1] = (CheckpointNote) { "base_sha256", p->base_sha256, 1 };
    c->k.notes = c->notes;
    c->k.num_notes = 2;
    return DG_OK;
}

static int describe(Content *c, const Learner *l)
{
    const Policy *p = l->policy;
    int n = 0;
    int err;

    memset(c, 0, sizeof *c);
    err = p->adapters.num_params > 0 ? describe_adapters(c, p)
                                     : describe_base(c, p);
    if (err)
        return err;
    c->arrays[n++] =
        (CheckpointArray) { "weights", "master weights", p->values,
                            p->adapters.num_params > 0 ? p->adapters.count
                                                       : p->num_values };
    c->arrays[n++] =
        (CheckpointArray) { "adam_m", "AdamW first moment", l->m, l->num };
    c->arrays[n++] =
        (CheckpointArray) { "adam_v", "AdamW second moment", l->v, l->num };
    if (l->ema != NULL)
        c->arrays[n++] = (CheckpointArray) {
            "ema", "exponential moving average of the weights", l->ema, l->num
        };
    c->counters[0] = (CheckpointCounter) { "optimizer_step", l->updates };
    c->k.arrays = c->arrays;
    c->k.num_arrays = n;
    c->k.params = c->params;
    c->k.counters = c->counters;
    c->k.num_counters = 1;
    return DG_OK;
}

int dg_learner_save(const Learner *l, const Session *s, const char *dir,
                    int64_t iteration)
{
    Content c;
    int err = describe(&c, l);

    if (!err)
        err = dg_learner_fetch(l);
    err = dg_agree(s->comm, err);
    if (err) {
        free(c.params);
        return err;
    }
    c.k.iteration = iteration;
    err = dg_checkpoint_write(s->comm, dir, &c.k, &s->info,
                              s->config->checkpoint.keep);
    free(c.params);
    return err;
}

int dg_learner_resume(Learner *l, const Session *s, const char *dir,
                      int64_t *iteration, int *found)
{
    Content c;
    int err = dg_agree(s->comm, describe(&c, l));

    if (err)
        return err;
    err = dg_checkpoint_resume(s->comm, dir, &c.k, found);
    if (!err && *found) {
        *iteration = c.k.iteration;
        l->updates = c.counters[0].value;
        dg_learner_send(l);
    }
    free(c.params);
    return err;
}
