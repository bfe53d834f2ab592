#include "train/learner.h"

#include "base/error.h"
#include "base/sha256.h"
#include "optim/adamw.h"
#include "optim/grad_norm.h"
#include "store/checkpoint.h"
#include "tensor/mirror.h"
#include "train/pool.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static int new_floats(float **out, const Backend *on, int64_t num)
{
    void *at = NULL;
    const int err = dg_kernel_memory_new(&at, on, sizeof(float) * (size_t)num);

    *out = at;
    return err;
}

void dg_learner_shard(Shard *out, ShardLevel level, int rank, int size,
                      int64_t num)
{
    dg_shard_outline(out, rank, size, level, num, DG_GRAD_NORM_CHUNK);
}

void dg_learner_place(LearnerPlace *out, const Session *s, int64_t num)
{
    const Config *c = s->config;

    *out = (LearnerPlace) { .offload = c->parallel.offload_optimizer,
                            .host_threads = s->host_threads };
    dg_shard_init(&out->shard, s->comm, c->parallel.shard, num,
                  DG_GRAD_NORM_CHUNK);
}

/* The kernel memory of the state; NULL: the host's. */
static const Backend *state_on(const Learner *l)
{
    return l->place.offload ? NULL : l->policy->on;
}

static int reserve(Learner *l)
{
    const Backend *on = state_on(l);
    const int64_t num = l->place.shard.num;
    LearnerBytes bytes;
    int err = DG_OK;

    if (!l->place.offload)
        err = dg_policy_masters(l->policy, l->place.shard.first, num);
    if (!err)
        err = new_floats(&l->grads, on, num);
    dg_learner_bytes(&bytes, &l->place.shard, &l->optim);
    if (!err)
        err = new_floats(&l->m, on, num);
    if (!err)
        err = new_floats(&l->v, on, num);
    if (!err && l->optim.ema_decay > 0)
        err = new_floats(&l->ema, on, num);
    if (!err)
        err = dg_kernel_memory_new(&l->norm_scratch, on, bytes.norm);
    if (!err && bytes.chunks > 0) {
        l->chunks = calloc(1, bytes.chunks);
        err = l->chunks == NULL;
    }
    return err ? dg_fail(DG_ENOMEM, "optimizer state of %lld parameters",
                         (long long)num)
               : DG_OK;
}

int dg_learner_create(Learner **out, Policy *policy, int64_t num,
                      const OptimConfig *o, int64_t num_updates,
                      const LearnerPlace *place)
{
    Learner *l = calloc(1, sizeof *l);
    int err;

    if (l == NULL)
        return dg_fail(DG_ENOMEM, "learner");
    l->policy = policy;
    l->optim = *o;
    l->lr = (LrOpts) { o->schedule, o->lr, o->warmup, num_updates, 0 };
    l->num = num;
    if (place != NULL)
        l->place = *place;
    if (l->place.shard.size == 0)
        dg_learner_shard(&l->place.shard, DG_SHARD_NONE, 0, 1, num);
    l->engine = dg_engine_of(state_on(l));
    err = reserve(l);
    if (err) {
        dg_learner_destroy(l);
        return err;
    }
    if (l->ema != NULL)
        dg_learner_put(l, DG_STATE_EMA, policy->values + l->place.shard.first,
                       0, l->place.shard.num);
    *out = l;
    return DG_OK;
}

void dg_learner_bytes(LearnerBytes *out, const Shard *shard,
                      const OptimConfig *o)
{
    const size_t floats = sizeof(float) * (size_t)shard->num;
    const int64_t mine = dg_grad_norm_num_chunks(shard->num);
    const int64_t all = dg_grad_norm_num_chunks(shard->total);

    *out = (LearnerBytes) {
        .gradient = floats,
        .moments = 2 * floats,
        .ema = o->ema_decay > 0 ? floats : 0,
        .norm = sizeof(double) * ((size_t)mine + 1),
        .chunks = dg_shard_split(shard) ? sizeof(double) * (size_t)all : 0,
    };
}

void dg_learner_destroy(Learner *l)
{
    if (l == NULL)
        return;
    dg_kernel_memory_free(state_on(l), l->grads);
    dg_kernel_memory_free(state_on(l), l->m);
    dg_kernel_memory_free(state_on(l), l->v);
    dg_kernel_memory_free(state_on(l), l->ema);
    dg_kernel_memory_free(state_on(l), l->norm_scratch);
    free(l->chunks);
    free(l);
}

static float *state_at(const Learner *l, LearnerState which, int64_t first)
{
    float *const all[] = { l->m, l->v, l->ema };

    return all[which] + first;
}

int dg_learner_get(const Learner *l, LearnerState which, float *to,
                   int64_t first, int64_t num)
{
    const Backend *on = state_on(l);
    const float *from = state_at(l, which, first);
    const size_t bytes = sizeof *to * (size_t)num;

    if (on != NULL)
        return dg_kernel_download(on, to, from, bytes);
    memcpy(to, from, bytes);
    return DG_OK;
}

void dg_learner_put(const Learner *l, LearnerState which, const float *from,
                    int64_t first, int64_t num)
{
    const Backend *on = state_on(l);
    float *to = state_at(l, which, first);
    const size_t bytes = sizeof *to * (size_t)num;

    if (on != NULL)
        dg_kernel_upload(on, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

int dg_learner_fetch(const Learner *l, const Comm *c)
{
    Shard s = l->place.shard;
    int err;

    s.comm = c;
    if (l->policy->dropped > 0) /* who wants some asks for pieces */
        return DG_OK;
    err = dg_policy_fetch(l->policy, l->num);
    /* the networks have others' weights rounded: their masters are elsewhere */
    if (dg_shard_split(&s) && l->policy->stored != NULL && l->pool == NULL) {
        err = dg_agree(c, err);
        if (!err)
            dg_shard_gather(&s, l->policy->values, sizeof(float));
    }
    return err;
}

void dg_learner_send(const Learner *l)
{
    dg_policy_send(l->policy);
}

/* What AdamW moves, of this rank's range, where the state is. */
static float *own_weights(const Learner *l)
{
    const int64_t first = l->place.shard.first;

    return l->place.offload ? l->policy->values + first
                            : dg_policy_master(l->policy, first);
}

/* Of the whole gradient, of which this rank has its range. */
static int grad_norm(Learner *l, double *norm)
{
    const Shard *s = &l->place.shard;
    const int64_t mine = dg_grad_norm_num_chunks(s->num);
    const Backend *on = state_on(l);
    double *part = l->chunks + s->first / DG_GRAD_NORM_CHUNK;
    int err = DG_OK;

    if (!dg_shard_split(s))
        return l->engine->grad_norm(norm, l->grads, s->num, l->norm_scratch);
    l->engine->norm_chunks(on != NULL ? l->norm_scratch : part, l->grads,
                           s->num);
    if (on != NULL)
        err = dg_kernel_download(on, part, l->norm_scratch,
                                 sizeof *part * (size_t)mine);
    err = dg_agree(s->comm, err);
    if (err)
        return err;
    dg_shard_gather_blocks(s, l->chunks, sizeof *l->chunks);
    *norm =
        sqrt(dg_grad_norm_fold(l->chunks, dg_grad_norm_num_chunks(s->total)));
    return DG_OK;
}

/* Owners' weights to all ranks' kernel memory, from there. A device that has
 * failed shows it before others wait for its part. */
static int spread_there(const Learner *l, int *done)
{
    const Policy *p = l->policy;
    const Engine *e = dg_engine_of(p->on);
    const Shard *s = &l->place.shard;
    uint16_t seen;
    int err = dg_agree(s->comm,
                       p->on->download(&seen, dg_policy_at(p, 0), sizeof seen));

    *done = e->bcast != NULL;
    for (int r = 0; r < s->size && !err && *done; r++) {
        int64_t first, num;

        dg_shard_range(s, r, &first, &num);
        err = e->bcast(s->comm, dg_policy_at(p, first),
                       (size_t)(dg_dtype_bytes(p->dtype) * num), r, done);
    }
    return err;
}

/* The networks' weights follow those of this rank's range, then those of all
 * ranks. */
static int spread(const Learner *l)
{
    const Policy *p = l->policy;
    const Shard *s = &l->place.shard;
    const int64_t end = s->first + s->num;
    int err = DG_OK, done = 0;

    if (l->place.offload)
        dg_policy_upload(p, s->first, s->num);
    else
        dg_policy_round(p);
    if (l->pool != NULL)
        return dg_pool_refresh(l->pool);
    if (!dg_shard_split(s))
        return DG_OK;
    if (p->on != NULL)
        err = spread_there(l, &done);
    if (err || done)
        return err;
    if (p->on != NULL && !l->place.offload && s->num > 0)
        err = p->on->download(p->values + s->first, own_weights(l),
                              sizeof *p->values * (size_t)s->num);
    err = dg_agree(s->comm, err);
    if (err)
        return err;
    dg_shard_gather(s, p->values, sizeof *p->values);
    if (p->on != NULL) {
        dg_policy_upload(p, 0, s->first);
        dg_policy_upload(p, end, s->total - end);
    }
    if (p->dropped > 0) /* it was there for the way alone */
        dg_policy_drop(l->policy, 1);
    return DG_OK;
}

/* Elements that a thread takes at once. */
enum { STRIDE = 1 << 20 };

static void adamw(Learner *l, const AdamwStep *step)
{
    const int64_t num = l->place.shard.num;
    float *w = own_weights(l);

    if (!l->place.offload) {
        l->engine->adamw(w, l->m, l->v, l->grads, num, step);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < num; at += STRIDE)
        l->engine->adamw(w + at, l->m + at, l->v + at, l->grads + at,
                         num - at < STRIDE ? num - at : STRIDE, step);
}

static int update(Learner *l, const ExactSum *own, LearnerStep *out)
{
    const AdamwOpts o = { l->optim.beta1, l->optim.beta2, l->optim.eps,
                          l->optim.weight_decay };
    const double lr = dg_lr_at(&l->lr, l->updates + 1);
    double norm, scale;
    AdamwStep step;
    int err;

    l->engine->exact_read(own, l->grads, 1.0);
    err = grad_norm(l, &norm);
    if (!err)
        err = dg_grad_norm_scale(&scale, norm, l->optim.max_grad_norm);
    if (!err)
        err = dg_adamw_step_init(&step, &o, lr, l->updates + 1, scale);
    if (err)
        return err;
    adamw(l, &step);
    err = spread(l);
    if (err)
        return err;
    l->updates++;
    *out = (LearnerStep) { norm, lr };
    return DG_OK;
}

int dg_learner_update(Learner *l, const ExactSum *own, LearnerStep *out)
{
    int err;

    if (l->place.host_threads > 1)
        omp_set_num_threads(l->place.host_threads);
    err = update(l, own, out);
    omp_set_num_threads(1); /* as dg_team_create() left it */
    return err;
}

void dg_learner_average(Learner *l)
{
    if (l->ema != NULL)
        l->engine->ema(l->ema, own_weights(l), l->place.shard.num,
                       l->optim.ema_decay);
}

int dg_learner_swap_ema(Learner *l)
{
    if (l->ema == NULL)
        return DG_OK;
    l->engine->swap(own_weights(l), l->ema, l->place.shard.num);
    return spread(l);
}

/* --- checkpoints ------------------------------------------------------- */

enum { MAX_ARRAYS = 4, MAX_NOTES = 2 };

/* an array of the state, for get() and put() */
typedef struct StateOf {
    const Learner *learner;
    LearnerState which;
} StateOf;

/* the weights from the first that is here */
typedef struct WeightsOf {
    const Policy *policy;
    int64_t first;
} WeightsOf;

typedef struct Content {
    StateOf state[MAX_ARRAYS];
    WeightsOf weights;
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

static int get_state(void *user, float *to, int64_t first, int64_t num)
{
    const StateOf *s = user;

    return dg_learner_get(s->learner, s->which, to, first, num);
}

static int put_state(void *user, const float *from, int64_t first, int64_t num)
{
    const StateOf *s = user;

    dg_learner_put(s->learner, s->which, from, first, num);
    return DG_OK;
}

/* An array of which each rank has its range, which is the host's, or fetched
 * in pieces. */
static void add_state(Content *c, const Learner *l, LearnerState which,
                      const char *name, const char *long_name)
{
    const Shard *s = &l->place.shard;
    const int apart = state_on(l) != NULL && state_on(l)->apart;

    c->state[which] = (StateOf) { l, which };
    c->arrays[c->k.num_arrays++] =
        (CheckpointArray) { .name = name,
                            .long_name = long_name,
                            .data = apart ? NULL : state_at(l, which, 0),
                            .num = l->num,
                            .shared = dg_shard_split(s),
                            .first = s->first,
                            .held = s->num,
                            .get = apart ? get_state : NULL,
                            .put = apart ? put_state : NULL,
                            .user = &c->state[which] };
}

static int get_weights(void *user, float *to, int64_t first, int64_t num)
{
    const WeightsOf *w = user;

    return dg_policy_get(w->policy, to, w->first + first, num);
}

static int put_weights(void *user, const float *from, int64_t first,
                       int64_t num)
{
    const WeightsOf *w = user;

    dg_policy_put(w->policy, from, w->first + first, num);
    return DG_OK;
}

/* num of them, or of those in ranges this rank's: the last one's ends with the
 * text encoders, which are behind the network. They are the host's, or
 * fetched in pieces. */
static void weights_array(CheckpointArray *a, WeightsOf *of, const Learner *l,
                          int64_t num)
{
    const Policy *p = l->policy;
    const Shard *s = &l->place.shard;
    const int apart = p->dropped > 0;

    *of = (WeightsOf) { p, dg_learner_in_ranges(l) ? s->first : 0 };
    *a = (CheckpointArray) { .name = "weights",
                             .long_name = "master weights",
                             .data = apart ? NULL : p->values + of->first,
                             .num = num,
                             .shared = dg_learner_in_ranges(l),
                             .first = of->first,
                             .held = s->num,
                             .get = apart ? get_weights : NULL,
                             .put = apart ? put_weights : NULL,
                             .user = of };
    if (s->rank == s->size - 1)
        a->held += num - s->total;
}

static int describe(Content *c, const Learner *l)
{
    const Policy *p = l->policy;
    int err;

    memset(c, 0, sizeof *c);
    err = p->adapters.num_params > 0 ? describe_adapters(c, p)
                                     : describe_base(c, p);
    if (err)
        return err;
    c->k.arrays = c->arrays;
    weights_array(&c->arrays[c->k.num_arrays++], &c->weights, l,
                  p->adapters.num_params > 0 ? p->adapters.count
                                             : p->num_values);
    add_state(c, l, DG_STATE_M, "adam_m", "AdamW first moment");
    add_state(c, l, DG_STATE_V, "adam_v", "AdamW second moment");
    if (l->ema != NULL)
        add_state(c, l, DG_STATE_EMA, "ema",
                  "exponential moving average of the weights");
    c->counters[0] = (CheckpointCounter) { "optimizer_step", l->updates };
    c->k.params = c->params;
    c->k.counters = c->counters;
    c->k.num_counters = 1;
    return DG_OK;
}

int dg_learner_digest(const Learner *l, const Comm *c, char hex[65])
{
    CheckpointArray a;
    WeightsOf of;
    int err;

    weights_array(&a, &of, l, l->num);
    if (a.data != NULL && !a.shared)
        return dg_sha256_bytes(hex, a.data, sizeof *a.data * (size_t)a.num);
    err = dg_checkpoint_digest(hex, c, &a);
    dg_comm_bcast(c, hex, DG_SHA256_HEX, 0);
    return dg_agree(c, err);
}

int dg_learner_save(const Learner *l, const Session *s, const char *dir,
                    int64_t iteration)
{
    Content c;
    int err = dg_agree(s->comm, describe(&c, l));

    if (!err)
        err = dg_agree(s->comm, dg_learner_fetch(l, s->comm));
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
        if (l->policy->dropped > 0 && !dg_learner_in_ranges(l)) {
            dg_policy_round(l->policy); /* masters are where they have to be */
        } else if (l->policy->dropped > 0) {
            err = spread(l);
        } else {
            dg_learner_send(l);
            if (l->pool != NULL)
                err = dg_pool_refresh(l->pool);
        }
    }
    free(c.params);
    return err;
}
